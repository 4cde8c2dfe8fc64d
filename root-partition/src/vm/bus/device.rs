//! What a device is, and which there are.

use super::channel::Channel;
use super::echo::Echo;
use crate::vm::host::Job;
use alloc::string::String;
use alloc::sync::Arc;
use vmbus::protocol::offer::Offer;

/// A device on the bus of one child.
///
/// It has no part in opening and closing: each channel that the guest opens, the first and the sub-channels that the device has
/// asked for, is given to [`serve`](Self::serve), and what that returns is dropped when the channel closes, be it that the guest
/// wants it, that the guest is gone, or that the device is taken away. Work that outlives it (a disk's transfer) keeps the
/// guest's memory by the buffers that it has.
pub trait Device: Send + Sync {
    /// Its first channel.
    fn offer(&self) -> Offer;

    /// Serves one channel. If it ends by itself, the channel stands still until the guest closes it.
    fn serve(self: Arc<Self>, channel: Channel) -> Job;

    /// A word or two on what is behind it, for `bus list`.
    fn backend(&self) -> String {
        String::new()
    }
}

/// Makes a device.
pub type Make = fn() -> Arc<dyn Device>;

/// Devices that need nothing but their name (`devices` of a machine's description).
pub static BY_NAME: &[(&str, Make)] = &[("echo", || Arc::new(Echo))];

/// A new device called `name`.
pub fn by_name(name: &str) -> Option<Arc<dyn Device>> {
    let (_, make) = BY_NAME.iter().find(|(known, _)| *known == name)?;
    Some(make())
}
