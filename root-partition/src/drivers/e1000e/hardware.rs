//! What the driver needs of the world, so that its logic runs on the host as well, against a card made of memory.

use crate::drivers::pci::device::Device;
use core::future::Future;

/// A card's registers, and the machine around it.
pub trait Hardware: Device {
    /// Completes after a millisecond.
    fn sleep_a_millisecond(&self) -> impl Future<Output = ()> + Send;
}
