//! What becomes of frames, and how often.

use super::packet::Packet;
use alloc::vec::Vec;

/// Which of the gateway's networks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Network {
    /// The guests'.
    Inside,
    /// The uplink's.
    Outside,
}

/// A frame that the gateway made, or held back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Made {
    /// Where it goes.
    pub to: Network,
    /// The frame, complete.
    pub bytes: Vec<u8>,
}

/// What becomes of a frame.
pub enum Verdict {
    /// Nothing more.
    Done,
    /// It is for the root's own stack.
    Stack,
    /// It goes on, with these first bytes.
    Forward(Network, Packet),
    /// It is for the root's own stack, with these first bytes.
    ForwardToStack(Packet),
}

/// Why frames went nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Dropped {
    /// They are no packets, or their checksums are wrong.
    Malformed,
    /// They are parts of packets whose beginning has not come, or for the gateway itself.
    Fragment,
    /// Their sender's address is not theirs.
    Spoofed,
    /// The root has no address outside.
    NoUplink,
    /// They belong to no flow, and begin none.
    NoFlow,
    /// The table of flows is full.
    TableFull,
    /// They are larger than the uplink takes.
    TooLarge,
    /// They have passed too many routers.
    Hops,
    /// Nobody has told yet who has the address.
    Unresolved,
    /// They carry what cannot be translated.
    OtherProtocol,
}

impl Dropped {
    /// All, with what a person calls them.
    pub const ALL: [(Self, &'static str); 10] = [
        (Self::Malformed, "malformed"),
        (Self::Fragment, "fragment"),
        (Self::Spoofed, "spoofed"),
        (Self::NoUplink, "no uplink"),
        (Self::NoFlow, "no flow"),
        (Self::TableFull, "table full"),
        (Self::TooLarge, "too large"),
        (Self::Hops, "hops"),
        (Self::Unresolved, "unresolved"),
        (Self::OtherProtocol, "other protocol"),
    ];
}

/// What the gateway counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Packets that went out.
    pub outward: u64,
    /// Packets that went in.
    pub inward: u64,
    pub(super) dropped: [u64; Dropped::ALL.len()],
}

impl Counters {
    /// Frames dropped for `reason`.
    pub const fn dropped(&self, reason: Dropped) -> u64 {
        self.dropped[reason as usize]
    }
}
