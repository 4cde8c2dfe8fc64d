//! What a card needs of the bus.

use crate::buffer::Buffer;
use alloc::sync::Arc;
use vmbus::protocol::id::GpadlId;
use vmbus::protocol::network::Mac;

/// A channel's connection to its guest.
pub trait Link: Send + Sync {
    /// Signals the guest.
    fn signal(&self);
    /// The memory of `pieces`, guest physical addresses with their lengths, in a row; `None` where the guest does not have it.
    fn buffer(&self, pieces: &mut dyn Iterator<Item = (u64, usize)>) -> Option<Buffer>;
    /// The memory that the guest shared under `gpadl`.
    fn gpadl(&self, gpadl: GpadlId) -> Option<Arc<Buffer>>;
    /// Offers so many sub-channels, and says how many there are. Only asked for on the first channel.
    fn offer_sub_channels(&self, count: u16) -> u16;
    /// The guest wants another address; whether it may have it.
    fn set_address(&self, _address: Mac) -> bool {
        false
    }
}
