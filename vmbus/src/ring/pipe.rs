//! The framing of channels in pipe mode: a header in each packet's payload.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What begins the payload of each packet of a pipe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PipeHeader {
    /// What follows: [`PipeHeader::DATA`].
    pub message_type: u32,
    /// Bytes that follow, without padding.
    pub size: u32,
}
const _: () = assert!(size_of::<PipeHeader>() == 8);

impl PipeHeader {
    /// Data follow.
    pub const DATA: u32 = 1;

    /// The header of `size` bytes of data.
    pub const fn data(size: u32) -> Self {
        Self {
            message_type: Self::DATA,
            size,
        }
    }
}
