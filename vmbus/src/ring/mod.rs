//! The ring buffers of a channel, and the packets in them.
//!
//! A ring is a control page and data pages, shared with a peer that may change any of it at any moment. One end writes
//! packets ([`Writer`]), the other reads them ([`Reader`]); a [`Channel`] has one of each. Nothing here waits or signals: what
//! commits returns whether the peer is to be [signalled](Signal), and its caller does that.
//!
//! What is read from the control page is read once and checked, and a packet's descriptor is copied before it is
//! believed. A ring whose peer broke the rules returns [`RingError::Corrupt`] from then on.
//!
//! | file | what it is |
//! |---|---|
//! | [`memory`] | the shared pages: the only unsafe part, beside what [`shared`](crate::shared) copies |
//! | [`packet`] | descriptors, and packets as they are read |
//! | [`gpa`] | packets that name pages: GPA-direct and transfer pages |
//! | [`pipe`] | the framing of channels in pipe mode |
//! | [`writer`], [`reader`] | the two ends of a ring |
//! | `whole` | packets of structures, as they are written |
//! | `order` | who is signalled, and why no wake-up is lost |
//! | [`channel`] | the two rings of a channel |
//! | [`loopback`] | both ends of a channel in ordinary memory, for tests and benchmarks |

pub mod channel;
pub mod gpa;
pub mod loopback;
pub mod memory;
mod order;
pub mod packet;
pub mod pipe;
pub mod reader;
mod whole;
pub mod writer;

pub use channel::Channel;
pub use memory::RingMemory;
pub use packet::{Packet, PacketFlags, PacketType};
pub use reader::{ReadBatch, Reader};
pub use writer::{Reservation, WriteBatch, Writer};

#[cfg(test)]
mod tests;

/// Whether the peer has to be signalled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a peer that is not signalled may wait for ever"]
pub enum Signal {
    /// It may sleep: signal it.
    Needed,
    /// It looks by itself.
    NotNeeded,
}

impl Signal {
    /// Whether to signal.
    pub const fn is_needed(self) -> bool {
        matches!(self, Self::Needed)
    }

    const fn when(needed: bool) -> Self {
        if needed { Self::Needed } else { Self::NotNeeded }
    }
}

/// Which rule a peer has broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Corruption {
    /// The other end's index is not a position in the ring, or not one that it can have reached.
    #[error("an index of {0:#x} cannot be")]
    Index(u32),
    /// A packet's length is less than its parts, or more than what was written.
    #[error(
        "a packet of {length} bytes with data at {data_offset} does not fit the {available} bytes written"
    )]
    Length {
        /// Where its payload begins.
        data_offset: u32,
        /// Its length.
        length: u32,
        /// Bytes between the indexes.
        available: u32,
    },
}

/// Why a ring did not do it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RingError {
    /// There is no room now. [`Writer::request_space`] asks the peer to signal when there is.
    #[error("the ring has no room for {needed} bytes now")]
    Full {
        /// Bytes that the packet takes.
        needed: u32,
    },
    /// The packet is larger than the ring, or than a packet can be.
    #[error("a packet of {0} bytes never fits this ring")]
    TooLarge(usize),
    /// The peer broke the rules; the ring cannot be used any more.
    #[error("the peer broke the ring: {0}")]
    Corrupt(#[from] Corruption),
}
