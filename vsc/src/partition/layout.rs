//! The structures on the disk.

use crate::checksum::Crc32;
use uuid::Uuid;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub(super) const SIGNATURE: [u8; 8] = *b"EFI PART";
/// Version 1.0.
pub(super) const REVISION: u32 = 0x1_0000;
/// Entries that a table has at least.
pub(super) const ENTRIES: u32 = 128;

/// A header, in block 1, and again in the last block.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    pub(super) signature: [u8; 8],
    pub(super) revision: U32,
    /// Bytes of the header.
    pub(super) size: U32,
    /// Of the header, with zero in this place.
    pub(super) checksum: U32,
    pub(super) reserved: U32,
    /// The block of this header.
    pub(super) here: U64,
    /// The block of the other.
    pub(super) other: U64,
    pub(super) first_usable: U64,
    pub(super) last_usable: U64,
    pub(super) disk: [u8; 16],
    /// First block of the entries.
    pub(super) entries: U64,
    pub(super) count: U32,
    /// Bytes of an entry.
    pub(super) entry_size: U32,
    pub(super) entries_checksum: U32,
}
const _: () = assert!(size_of::<Header>() == 92);

impl Header {
    /// The checksum of the header in `bytes`, which are as many as its size says.
    pub(super) fn checksum_of(bytes: &[u8]) -> u32 {
        let mut sum = Crc32::new();
        let (before, rest) = bytes.split_at(bytes.len().min(16));
        sum.add(before);
        sum.add(&[0; 4]);
        sum.add(rest.get(4..).unwrap_or_default());
        sum.value()
    }
}

/// An entry of the table.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Entry {
    /// Zero: the entry is free.
    pub(super) kind: [u8; 16],
    pub(super) id: [u8; 16],
    pub(super) first: U64,
    pub(super) last: U64,
    pub(super) attributes: U64,
    pub(super) name: [U16; 36],
}
const _: () = assert!(size_of::<Entry>() == 128);

impl Entry {
    pub(super) fn kind(&self) -> Uuid {
        Uuid::from_bytes_le(self.kind)
    }
}
