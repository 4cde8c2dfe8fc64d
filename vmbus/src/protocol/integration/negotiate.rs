//! Negotiation: the host lists its versions of framing and service, the guest answers with one of each, or with none.

use super::frame::Version;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Versions of the framing that guests know, the newest first.
pub const FRAMEWORKS: [Version; 2] = [Version::new(3, 0), Version::new(1, 0)];

/// What stands before the versions: those of the framing, then those of the service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Negotiate {
    /// Versions of the framing.
    pub frameworks: U16,
    /// Versions of the service.
    pub services: U16,
    /// Zero.
    pub reserved: U32,
}
const _: () = assert!(size_of::<Negotiate>() == 8);

/// The pair of versions that an answer's body chose: `None` where the guest has none in common, or says nonsense.
pub fn chosen(body: &[u8]) -> Option<(Version, Version)> {
    let (head, rest) = Negotiate::read_from_prefix(body).ok()?;
    let (versions, _) = <[Version; 2]>::read_from_prefix(rest).ok()?;
    (head.frameworks.get() == 1 && head.services.get() == 1).then_some((versions[0], versions[1]))
}
