//! Lists of guest pages: how they are taken apart into messages, and put together from them.

use super::body::{GpadlBody, GpadlHeader};
use super::id::{GpadlId, Relid};
use super::message::{ChannelMessage, HEADER, MessageBytes};
use alloc::vec::Vec;
use hypercall_api::message::MESSAGE_PAYLOAD;
use zerocopy::IntoBytes;

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Bytes of ranges that the first message carries.
const IN_HEADER: usize = MESSAGE_PAYLOAD - HEADER - size_of::<GpadlHeader>();
/// Bytes that each further one carries.
const IN_BODY: usize = MESSAGE_PAYLOAD - HEADER - size_of::<GpadlBody>();
/// Bytes of an entry: a range's head, or a page number.
const ENTRY: usize = 8;
const _: () = assert!(IN_HEADER / ENTRY == 27 && IN_BODY / ENTRY == 28);

/// Bytes in a row of a guest's own address space, and the guest's pages that hold them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GpaRange {
    /// Bytes.
    pub byte_count: u32,
    /// Where in the first page they begin.
    pub byte_offset: u32,
    /// Numbers of the pages; exactly as many as the bytes touch.
    pub pages: Vec<u64>,
}

impl GpaRange {
    /// Whole pages.
    pub fn whole(pages: Vec<u64>) -> Self {
        Self {
            byte_count: u32::try_from(pages.len() as u64 * PAGE).unwrap_or(u32::MAX),
            byte_offset: 0,
            pages,
        }
    }

    /// Pages that `byte_count` bytes at `byte_offset` touch; `None` for a range that is empty or starts behind its page.
    pub const fn page_count(byte_count: u32, byte_offset: u32) -> Option<usize> {
        if byte_count == 0 || byte_offset as u64 >= PAGE {
            return None;
        }
        Some((byte_count as u64 + byte_offset as u64).div_ceil(PAGE) as usize)
    }

    /// Whether it is whole pages, as rings are.
    pub const fn is_whole(&self) -> bool {
        self.byte_offset == 0 && (self.byte_count as u64).is_multiple_of(PAGE)
    }
}

/// Why pieces are not a list of pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GpadlError {
    /// No ranges, or bytes that are no whole entries, or fewer than the ranges need.
    #[error("{bytes} bytes cannot be {ranges} ranges of pages")]
    BadSize {
        /// Bytes said.
        bytes: u32,
        /// Ranges said.
        ranges: u16,
    },
    /// A range is empty, starts behind its page, or has not the pages that it needs.
    #[error("range {0} of the list makes no sense")]
    BadRange(u16),
    /// Too many pages.
    #[error("the list has more pages than are allowed")]
    TooLong,
}

/// A list that is being put together from messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assembly {
    range_count: u16,
    expected: usize,
    entries: Vec<u64>,
}

impl Assembly {
    /// A list of which the first message says `range_count` and `range_bytes`, with at most `most_pages` pages.
    pub fn new(range_count: u16, range_bytes: u16, most_pages: usize) -> Result<Self, GpadlError> {
        let (bytes, ranges) = (range_bytes as usize, range_count as usize);
        // Each range has a head and a page at least.
        if ranges == 0 || !bytes.is_multiple_of(ENTRY) || bytes < ranges * 2 * ENTRY {
            return Err(GpadlError::BadSize {
                bytes: range_bytes.into(),
                ranges: range_count,
            });
        }
        let expected = bytes / ENTRY;
        if expected - ranges > most_pages {
            return Err(GpadlError::TooLong);
        }
        Ok(Self {
            range_count,
            expected,
            entries: Vec::new(),
        })
    }

    /// Pages that it will have.
    pub fn pages(&self) -> usize {
        self.expected - self.range_count as usize
    }

    /// Adds the entries that a message carries, and says whether the list is whole. What is too much, or no whole entry, is left.
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        let missing = self.expected - self.entries.len();
        let (entries, _) = bytes.as_chunks::<ENTRY>();
        self.entries.extend(
            entries
                .iter()
                .take(missing)
                .map(|entry| u64::from_le_bytes(*entry)),
        );
        self.is_whole()
    }

    /// Whether nothing is missing.
    pub fn is_whole(&self) -> bool {
        self.entries.len() == self.expected
    }

    /// The ranges of a whole list.
    pub fn finish(self) -> Result<Vec<GpaRange>, GpadlError> {
        let mut entries = self.entries.as_slice();
        let mut ranges = Vec::with_capacity(self.range_count as usize);
        for index in 0..self.range_count {
            let bad = GpadlError::BadRange(index);
            let (head, rest) = entries.split_first().ok_or(bad)?;
            let (byte_count, byte_offset) = (*head as u32, (*head >> 32) as u32);
            let count = GpaRange::page_count(byte_count, byte_offset).ok_or(bad)?;
            let (pages, rest) = rest.split_at_checked(count).ok_or(bad)?;
            ranges.push(GpaRange {
                byte_count,
                byte_offset,
                pages: pages.to_vec(),
            });
            entries = rest;
        }
        match entries.is_empty() {
            true => Ok(ranges),
            false => Err(GpadlError::BadRange(self.range_count - 1)),
        }
    }
}

/// The messages by which a guest makes `ranges` known as `gpadl` of channel `relid`.
pub fn messages(relid: Relid, gpadl: GpadlId, ranges: &[GpaRange]) -> Result<Vec<MessageBytes>, GpadlError> {
    let mut entries = Vec::new();
    for (index, range) in ranges.iter().enumerate() {
        let needed = GpaRange::page_count(range.byte_count, range.byte_offset);
        if needed != Some(range.pages.len()) {
            return Err(GpadlError::BadRange(u16::try_from(index).unwrap_or(u16::MAX)));
        }
        entries.push(u64::from(range.byte_count) | u64::from(range.byte_offset) << 32);
        entries.extend_from_slice(&range.pages);
    }
    let bytes = entries.as_bytes();
    let too_long = |_| GpadlError::TooLong;
    let header = GpadlHeader {
        relid,
        gpadl,
        range_bytes: u16::try_from(bytes.len()).map_err(too_long)?,
        range_count: u16::try_from(ranges.len()).map_err(too_long)?,
    };
    if ranges.is_empty() {
        return Err(GpadlError::BadSize { bytes: 0, ranges: 0 });
    }
    let (first, rest) = bytes.split_at(bytes.len().min(IN_HEADER / ENTRY * ENTRY));
    let mut messages = alloc::vec![ChannelMessage::GpadlHeader(header).encode_with(first)];
    let body = GpadlBody {
        message_number: 0,
        gpadl,
    };
    messages.extend(
        rest.chunks(IN_BODY / ENTRY * ENTRY)
            .map(|chunk| ChannelMessage::GpadlBody(body).encode_with(chunk)),
    );
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn assemble(messages: &[MessageBytes]) -> Result<Vec<GpaRange>, GpadlError> {
        use crate::protocol::message::Sender;
        use crate::protocol::version::Version;
        let parse = |bytes| ChannelMessage::parse(bytes, Sender::Guest, Version::V2_4).unwrap();
        let (ChannelMessage::GpadlHeader(header), rest) = parse(&messages[0]) else {
            panic!("no header");
        };
        let mut assembly = Assembly::new(header.range_count, header.range_bytes, 10_000)?;
        let mut whole = assembly.push(rest);
        for message in &messages[1..] {
            assert!(!whole, "messages behind a whole list");
            whole = assembly.push(parse(message).1);
        }
        assert!(whole);
        assembly.finish()
    }

    #[test]
    fn a_header_holds_26_pages_and_a_body_28() {
        for (pages, count) in [(1, 1), (26, 1), (27, 2), (54, 2), (55, 3)] {
            let range = GpaRange::whole((0..pages).collect());
            let split = messages(Relid(1), GpadlId(2), core::slice::from_ref(&range)).unwrap();
            assert_eq!(split.len(), count);
            assert_eq!(assemble(&split), Ok(alloc::vec![range]));
        }
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        for (ranges, bytes) in [(0, 16), (1, 8), (1, 17), (2, 24), (u16::MAX, u16::MAX)] {
            assert!(matches!(
                Assembly::new(ranges, bytes, 10_000),
                Err(GpadlError::BadSize { .. })
            ));
        }
        assert_eq!(Assembly::new(1, 88, 9), Err(GpadlError::TooLong));
        assert!(Assembly::new(1, 88, 10).is_ok());
    }

    #[test]
    fn a_range_has_the_pages_that_its_bytes_touch() {
        let build = |head: u64, pages: u16| {
            let mut assembly = Assembly::new(1, 8 + pages * 8, 100).unwrap();
            let entries: Vec<u64> = core::iter::once(head).chain((0..pages).map(u64::from)).collect();
            assert!(assembly.push(entries.as_bytes()));
            assembly.finish()
        };
        assert!(build(4096, 1).is_ok());
        assert!(build(4096 | 1 << 32, 2).is_ok());
        for (head, pages) in [
            (4096, 2),
            (4096 | 1 << 32, 1),
            (0, 1),
            (1 | 4096 << 32, 1),
            (u64::MAX, 3),
        ] {
            assert!(
                matches!(build(head, pages), Err(GpadlError::BadRange(0))),
                "{head:#x}"
            );
        }
    }

    proptest! {
        #[test]
        fn several_ranges_survive_the_messages(
            sizes in prop::collection::vec((1u32..200_000, 0u32..4096), 1..6), seed: u64,
        ) {
            let ranges: Vec<GpaRange> = sizes.iter().map(|&(byte_count, byte_offset)| {
                let count = GpaRange::page_count(byte_count, byte_offset).unwrap() as u64;
                GpaRange { byte_count, byte_offset, pages: (0..count).map(|page| page ^ seed).collect() }
            }).collect();
            let split = messages(Relid(1), GpadlId(2), &ranges).unwrap();
            prop_assert_eq!(assemble(&split), Ok(ranges));
        }

        #[test]
        fn any_bytes_make_a_list_or_an_error(
            ranges: u16, size: u16, pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..240), 0..8),
        ) {
            if let Ok(mut assembly) = Assembly::new(ranges, size, 10_000) {
                let expected = assembly.pages();
                let whole = pieces.iter().any(|piece| assembly.push(piece));
                if whole && let Ok(ranges) = assembly.finish() {
                    prop_assert_eq!(ranges.iter().map(|range| range.pages.len()).sum::<usize>(), expected);
                }
            }
        }
    }
}
