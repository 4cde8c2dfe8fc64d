//! Packets that name pages: GPA-direct packets carry ranges of the guest's pages, transfer-page packets ranges of a
//! buffer that was agreed on before.

use super::memory::PAGE;
use super::packet::{DESCRIPTOR, OutsidePacket, Packet, PacketType};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What follows the descriptor of a GPA-direct packet.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct GpaDirectHeader {
    pub(super) reserved: u32,
    pub(super) range_count: u32,
}
const _: () = assert!(size_of::<GpaDirectHeader>() == 8);

/// What begins each range of pages; the page numbers follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RangeHeader {
    pub(super) byte_count: u32,
    pub(super) byte_offset: u32,
}
const _: () = assert!(size_of::<RangeHeader>() == 8);

/// What follows the descriptor of a GPA-direct packet that names one page.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct OnlyPage {
    pub(super) header: GpaDirectHeader,
    pub(super) range: RangeHeader,
    pub(super) page: u64,
}
const _: () = assert!(size_of::<OnlyPage>() == 24);

/// What follows the descriptor of a transfer-page packet.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct TransferHeader {
    pub(super) page_set: u16,
    pub(super) sender_owns_set: u8,
    pub(super) reserved: u8,
    pub(super) range_count: u32,
}
const _: () = assert!(size_of::<TransferHeader>() == 8);

impl TransferHeader {
    pub(super) const fn new(page_set: u16, range_count: u32) -> Self {
        Self {
            page_set,
            sender_owns_set: 0,
            reserved: 0,
            range_count,
        }
    }
}

/// A range of a transfer page set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TransferRange {
    /// Bytes.
    pub byte_count: u32,
    /// First byte.
    pub byte_offset: u32,
}
const _: () = assert!(size_of::<TransferRange>() == 8);

/// What follows the descriptor of a transfer-page packet that names one range.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct OnlyRange {
    pub(super) header: TransferHeader,
    pub(super) range: TransferRange,
}
const _: () = assert!(size_of::<OnlyRange>() == 16);

/// A range of guest memory to be named in a packet.
#[derive(Clone, Copy, Debug)]
pub struct GpaRange<'a> {
    /// Bytes.
    pub byte_count: u32,
    /// First byte, in the first page.
    pub byte_offset: u32,
    /// The pages' numbers.
    pub pages: &'a [u64],
}

/// Why the ranges of a packet cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RangeError {
    /// The packet is of another type.
    #[error("the packet carries no such ranges")]
    OtherType,
    /// The ranges are not all in the packet.
    #[error(transparent)]
    Outside(#[from] OutsidePacket),
    /// A range begins beyond its first page, or is longer than can be.
    #[error("a range of {byte_count} bytes at {byte_offset} is no range of pages")]
    Shape {
        /// Bytes.
        byte_count: u32,
        /// First byte.
        byte_offset: u32,
    },
}

impl<'a> Packet<'a> {
    /// The ranges of a GPA-direct packet.
    pub fn gpa_ranges(&self) -> Result<GpaRanges<'a>, RangeError> {
        if self.kind() != PacketType::GPA_DIRECT {
            return Err(RangeError::OtherType);
        }
        let header: GpaDirectHeader = self.read_header(0)?;
        Ok(GpaRanges {
            packet: *self,
            left: header.range_count,
            at: size_of::<GpaDirectHeader>() as u32,
        })
    }

    /// The memory that a GPA-direct packet names, if it is all in one page: guest physical address and bytes. `None` says nothing of
    /// any other packet.
    #[inline]
    pub fn only_page(&self) -> Option<(u64, usize)> {
        if self.kind() != PacketType::GPA_DIRECT {
            return None;
        }
        let OnlyPage { header, range, page } = self.read_header(0).ok()?;
        let RangeHeader {
            byte_count,
            byte_offset,
        } = range;
        let is_one = header.range_count == 1 && u64::from(byte_offset) + u64::from(byte_count) <= PAGE as u64;
        if !is_one || byte_count == 0 {
            return None;
        }
        let gpa = page.checked_mul(PAGE as u64)? + u64::from(byte_offset);
        Some((gpa, byte_count as usize))
    }

    /// The page set of a transfer-page packet, its range and what its payload begins with, if it names one range and nothing is between
    /// that and the payload, as in most; `None` says nothing of any other packet.
    #[inline]
    pub fn only_range<T: FromBytes>(&self) -> Option<(u16, TransferRange, T)> {
        let data_offset = DESCRIPTOR as usize + size_of::<OnlyRange>();
        if self.kind() != PacketType::TRANSFER_PAGES
            || self.descriptor.data_offset as usize != data_offset
            || size_of::<T>() > self.payload_size()
        {
            return None;
        }
        let (OnlyRange { header, range }, payload) = self.memory.read_two(self.at + DESCRIPTOR);
        (header.range_count == 1).then_some((header.page_set, range, payload))
    }

    /// The page set and the ranges of a transfer-page packet.
    pub fn transfer_ranges(&self) -> Result<(u16, TransferRanges<'a>), RangeError> {
        if self.kind() != PacketType::TRANSFER_PAGES {
            return Err(RangeError::OtherType);
        }
        let header: TransferHeader = self.read_header(0)?;
        let ranges = TransferRanges {
            packet: *self,
            left: header.range_count,
            at: size_of::<TransferHeader>() as u32,
        };
        Ok((header.page_set, ranges))
    }
}

/// The ranges of a GPA-direct packet, one after the other. An error ends them.
#[derive(Clone, Debug)]
pub struct GpaRanges<'a> {
    packet: Packet<'a>,
    left: u32,
    /// Bytes behind the descriptor.
    at: u32,
}

impl<'a> Iterator for GpaRanges<'a> {
    type Item = Result<PageRange<'a>, RangeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let range = self.range();
        if range.is_err() {
            self.left = 0;
        }
        Some(range)
    }
}

impl<'a> GpaRanges<'a> {
    fn range(&mut self) -> Result<PageRange<'a>, RangeError> {
        let RangeHeader {
            byte_count,
            byte_offset,
        } = self.packet.read_header(self.at)?;
        let end = byte_offset
            .checked_add(byte_count)
            .filter(|_| (byte_offset as usize) < PAGE);
        let end = end.ok_or(RangeError::Shape {
            byte_count,
            byte_offset,
        })?;
        let range = PageRange {
            packet: self.packet,
            byte_count,
            byte_offset,
            pages: end.div_ceil(PAGE as u32),
            at: self.at + size_of::<RangeHeader>() as u32,
        };
        let size = self.packet.header_size() - range.at;
        let bytes = u64::from(range.pages) * 8;
        if bytes > u64::from(size) {
            return Err(RangeError::Outside(OutsidePacket {
                offset: range.at as usize,
                length: bytes as usize,
                size: self.packet.header_size() as usize,
            }));
        }
        self.at = range.at + range.pages * 8;
        Ok(range)
    }
}

/// A range of guest pages as a packet names it; all its page numbers are in the packet.
#[derive(Clone, Copy, Debug)]
pub struct PageRange<'a> {
    packet: Packet<'a>,
    byte_count: u32,
    byte_offset: u32,
    pages: u32,
    at: u32,
}

impl<'a> PageRange<'a> {
    /// Bytes.
    pub const fn byte_count(&self) -> u32 {
        self.byte_count
    }

    /// First byte, in the first page; less than a page.
    pub const fn byte_offset(&self) -> u32 {
        self.byte_offset
    }

    /// The number of page `index`, copied now; `None` behind the last.
    #[inline]
    pub fn page(&self, index: u32) -> Option<u64> {
        (index < self.pages).then(|| self.packet.read_header(self.at + index * 8).ok())?
    }

    /// The numbers of the pages, each copied when it comes up.
    pub fn pages(&self) -> impl ExactSizeIterator<Item = u64> + use<'a> {
        let (packet, at) = (self.packet, self.at);
        // The packet holds them all, so that the zero never comes up.
        (0..self.pages).map(move |page| packet.read_header(at + page * 8).unwrap_or(0))
    }
}

/// The ranges of a transfer-page packet. An error ends them.
#[derive(Clone, Debug)]
pub struct TransferRanges<'a> {
    packet: Packet<'a>,
    left: u32,
    at: u32,
}

impl Iterator for TransferRanges<'_> {
    type Item = Result<TransferRange, RangeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let range = self.packet.read_header(self.at);
        self.at += size_of::<TransferRange>() as u32;
        if range.is_err() {
            self.left = 0;
        }
        Some(range.map_err(RangeError::from))
    }
}
