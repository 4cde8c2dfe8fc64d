//! The two rings of a channel, which lie in one GPADL: first the one that the guest writes, then the one that it reads.

use super::memory::{BadSize, PAGE, RingMemory};
use super::{Reader, RingError, Writer};
use alloc::sync::Arc;
use core::any::Any;
use core::ptr::NonNull;

/// One side's view of a channel's rings.
#[derive(Debug)]
pub struct Channel {
    /// What this side writes.
    pub outgoing: Writer,
    /// What this side reads.
    pub incoming: Reader,
}

/// Why pages cannot be a channel's rings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChannelError {
    /// A ring would have no data, or too much.
    #[error(transparent)]
    Size(#[from] BadSize),
    /// The peer has broken a ring already.
    #[error(transparent)]
    Ring(#[from] RingError),
}

impl Channel {
    /// The host's side, of rings that the guest has made.
    pub fn host(rings: Rings) -> Result<Self, ChannelError> {
        Ok(Self {
            outgoing: Writer::new(rings.from_host)?,
            incoming: Reader::new(rings.from_guest)?,
        })
    }

    /// The guest's side; empties the rings, as is to be done before the channel is opened.
    pub fn guest(rings: Rings) -> Result<Self, ChannelError> {
        rings.from_guest.initialize();
        rings.from_host.initialize();
        Ok(Self {
            outgoing: Writer::new(rings.from_guest)?,
            incoming: Reader::new(rings.from_host)?,
        })
    }
}

/// The memory of a channel's two rings.
#[derive(Debug)]
pub struct Rings {
    /// What the guest writes.
    pub from_guest: RingMemory,
    /// What the host writes.
    pub from_host: RingMemory,
}

#[allow(unsafe_code)]
impl Rings {
    /// The `pages` pages at `base`, of which those from `downstream` on are what the host writes.
    ///
    /// # Safety
    /// As [`RingMemory::new`], for all the pages.
    pub unsafe fn new(
        base: NonNull<u8>,
        pages: usize,
        downstream: usize,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Result<Self, BadSize> {
        let rest = pages.checked_sub(downstream).ok_or(BadSize(0))?;
        let (first, second) = (downstream.saturating_mul(PAGE), rest.saturating_mul(PAGE));
        // SAFETY: both are parts of the range that the caller vouches for.
        unsafe {
            Ok(Self {
                from_guest: RingMemory::new(base, first, owner.clone())?,
                from_host: RingMemory::new(base.add(first), second, owner)?,
            })
        }
    }
}
