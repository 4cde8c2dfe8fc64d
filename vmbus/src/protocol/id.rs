//! The numbers that name channels, GPADLs and where messages go.

use core::fmt;
use hypercall_api::port::ConnectionId;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Where guests post `INITIATE_CONTACT` of versions below 5.0, and then everything else.
pub const MESSAGE_CONNECTION: ConnectionId = ConnectionId(1);
/// Where a guest signals channels that have no interrupt of their own (versions below 5.0).
pub const SHARED_EVENT_CONNECTION: ConnectionId = ConnectionId(2);
/// Where guests post `INITIATE_CONTACT` of versions from 5.0 on.
pub const CONTACT_CONNECTION: ConnectionId = ConnectionId(4);
/// SINT at which a guest takes messages and events.
pub const SINT: u8 = 2;
/// Type of the SynIC messages that carry channel messages, both ways.
pub const CHANNEL_MESSAGE: hypercall_api::message::MessageType = hypercall_api::message::MessageType(1);

/// Names a channel between guest and host (`child_relid`), and is the event flag of its interrupt.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct Relid(pub u32);

impl Relid {
    /// The smallest.
    pub const MIN: Self = Self(1);
    /// The largest: a SINT has that many event flags.
    pub const MAX: Self = Self(hypercall_api::message::EVENT_FLAGS as u32 - 1);

    /// Whether a channel can have it.
    pub const fn is_valid(self) -> bool {
        self.0 >= Self::MIN.0 && self.0 <= Self::MAX.0
    }
}

impl fmt::Display for Relid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Names a list of guest pages; the guest chooses it.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct GpadlId(pub u32);

impl fmt::Display for GpadlId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// How a request ended (an NT status). An open set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Status(pub u32);

impl Status {
    /// Done.
    pub const SUCCESS: Self = Self(0);
    /// Failed, for no reason that has a number.
    pub const UNSUCCESSFUL: Self = Self(0xc000_0001);
    /// What was asked makes no sense.
    pub const INVALID_PARAMETER: Self = Self(0xc000_000d);
    /// The device is not in a state for it.
    pub const INVALID_DEVICE_STATE: Self = Self(0xc000_0184);
    /// A bound is reached.
    pub const INSUFFICIENT_RESOURCES: Self = Self(0xc000_009a);
    /// Nobody listens.
    pub const CONNECTION_REFUSED: Self = Self(0xc000_0236);

    /// Whether it is a success.
    pub const fn is_success(self) -> bool {
        self.0 == Self::SUCCESS.0
    }

    /// As a result.
    pub const fn ok(self) -> Result<(), Self> {
        match self.is_success() {
            true => Ok(()),
            false => Err(self),
        }
    }
}

impl From<Result<(), Status>> for Status {
    /// An error that calls itself a success becomes a failure.
    fn from(result: Result<(), Status>) -> Self {
        match result {
            Ok(()) => Self::SUCCESS,
            Err(Self::SUCCESS) => Self::UNSUCCESSFUL,
            Err(status) => status,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {:#x}", self.0)
    }
}
