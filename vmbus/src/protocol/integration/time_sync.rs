//! Time synchronisation: the host tells its wall clock, and the reference time at which it read it.

use super::frame::Version;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Versions, the newest first. Only 4.0 tells the reference time.
pub const VERSIONS: [Version; 3] = [Version::new(4, 0), Version::new(3, 0), Version::new(1, 0)];

/// Ticks of 100 ns between the clock's origin, the year 1601, and that of Unix.
pub const UNIX_EPOCH: u64 = 116_444_736_000_000_000;

/// What a guest shall do with a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Set the clock to it.
    Sync = 1,
    /// Compare it, and adjust the clock's rate.
    Sample = 2,
}

/// A time, as of version 4.0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ReferenceTime {
    /// The wall clock, in 100 ns since 1601, UTC.
    pub host_time: U64,
    /// The guest's reference counter when the clock was read.
    pub reference: U64,
    /// [`Kind`].
    pub flags: u8,
    /// Leap seconds announced.
    pub leap: u8,
    /// How far the clock is from a good one; 0 is unknown.
    pub stratum: u8,
    /// Zero.
    pub reserved: [u8; 3],
}
const _: () = assert!(size_of::<ReferenceTime>() == 22);

/// A time, before version 4.0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct PlainTime {
    /// The wall clock, in 100 ns since 1601, UTC.
    pub host_time: U64,
    /// Filled by the guest, or not.
    pub guest_time: U64,
    /// Ticks from asking to answer.
    pub round_trip: U64,
    /// [`Kind`].
    pub flags: u8,
}
const _: () = assert!(size_of::<PlainTime>() == 25);
