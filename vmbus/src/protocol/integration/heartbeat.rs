//! Heartbeat: the guest answers with the next number.

use super::frame::Version;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Versions, the newest first.
pub const VERSIONS: [Version; 2] = [Version::new(3, 0), Version::new(1, 0)];

/// A beat.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Heartbeat {
    /// The host's number; one more in the answer.
    pub sequence: U64,
    /// Zero.
    pub reserved: [U32; 8],
}
const _: () = assert!(size_of::<Heartbeat>() == 40);
