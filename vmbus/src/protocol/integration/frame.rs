//! The header of every integration service packet.

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Which service a packet belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub struct MessageType(pub U16);

impl MessageType {
    /// Versions.
    pub const NEGOTIATE: Self = Self(U16::new(0));
    /// Heartbeat.
    pub const HEARTBEAT: Self = Self(U16::new(1));
    /// Key/value exchange.
    pub const KEY_VALUE: Self = Self(U16::new(2));
    /// Shutdown.
    pub const SHUTDOWN: Self = Self(U16::new(3));
    /// Time synchronisation.
    pub const TIME_SYNC: Self = Self(U16::new(4));
}

/// A version of the framing or of a service; the newer is greater.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Version {
    /// Major number.
    pub major: U16,
    /// Minor number.
    pub minor: U16,
}

impl Version {
    /// `major.minor`.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self {
            major: U16::new(major),
            minor: U16::new(minor),
        }
    }
}

impl core::fmt::Display for Version {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// How an answer ended: an HRESULT.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub struct Status(pub U32);

impl Status {
    /// Done.
    pub const OK: Self = Self(U32::new(0));
    /// Not done.
    pub const FAIL: Self = Self(U32::new(0x8000_4005));
    /// There is no item of this number, and none behind it.
    pub const NO_MORE_ITEMS: Self = Self(U32::new(0x8007_0103));
}

bitflags! {
    /// What a packet is.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Flags: u8 {
        /// It is one of a pair.
        const TRANSACTION = 1;
        /// It asks.
        const REQUEST = 2;
        /// It answers.
        const RESPONSE = 4;
    }
}

/// The header: pipe framing, then the service's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Flags of the pipe; 1 for data.
    pub pipe_flags: U32,
    /// Bytes behind the pipe's two words.
    pub pipe_size: U32,
    /// Version of the framing.
    pub framework: Version,
    /// The service.
    pub message_type: MessageType,
    /// Version of the service.
    pub service: Version,
    /// Bytes behind this header.
    pub size: U16,
    /// How it ended, in an answer.
    pub status: Status,
    /// Chosen by the host, and given back by the guest.
    pub transaction: u8,
    /// [`Flags`].
    pub flags: u8,
    /// Zero.
    pub reserved: U16,
}
const _: () = assert!(size_of::<Header>() == 28);

/// Bytes of the pipe's framing, which [`Header::pipe_size`] does not count.
pub const PIPE_HEADER: usize = 8;
/// The pipe carries data.
pub const PIPE_DATA: u32 = 1;

impl Header {
    /// The header of a request with `size` bytes behind it. Versions are zero while they are being negotiated.
    pub fn request(
        message_type: MessageType,
        framework: Version,
        service: Version,
        size: u16,
        transaction: u8,
    ) -> Self {
        Self {
            pipe_flags: U32::new(PIPE_DATA),
            pipe_size: U32::new((size_of::<Self>() - PIPE_HEADER) as u32 + u32::from(size)),
            framework,
            message_type,
            service,
            size: U16::new(size),
            status: Status::OK,
            transaction,
            flags: (Flags::TRANSACTION | Flags::REQUEST).bits(),
            reserved: U16::new(0),
        }
    }

    /// Whether it is an answer.
    pub const fn is_response(&self) -> bool {
        self.flags & Flags::RESPONSE.bits() != 0
    }
}
