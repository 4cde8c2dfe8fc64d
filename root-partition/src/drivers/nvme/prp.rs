//! Scattered memory as a controller wants it: physical region pages (NVM Express Base 2.0, 4.1.1).
//!
//! One command reaches memory that, page by page, is whole: only its first page may begin inside, only its last may end
//! inside, and the first byte is at a multiple of 4. A request's buffer need not be like that, so it is cut into
//! [`Piece`]s of whole sectors: as far as the rule holds, the device reaches the buffer itself; where it breaks inside a
//! sector, up to a page goes through memory of the driver's (it is *bounced*). So every buffer works, and those that are
//! made of whole pages, as guests' are, are never copied.

use crate::memory::dma::{DmaMemory, PAGE, device_address};
use vsp::buffer::Segment;

/// Entries of the list that a command may have beside its first page.
pub const LIST_ENTRIES: usize = 256;
/// Bytes of such a list.
pub const LIST: usize = LIST_ENTRIES * 8;
/// Bytes that the list and the first page reach however the first byte lies.
pub const MOST_BYTES: usize = LIST_ENTRIES * PAGE;

/// A position in a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Position {
    segment: usize,
    within: usize,
}

/// A part of a request that one command carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Where it begins in the buffer's segments.
    pub start: Position,
    /// Bytes, a multiple of the sector's size.
    pub length: usize,
    /// The device cannot reach it where it is.
    pub bounced: bool,
}

/// Cuts what is left of a buffer: `left` bytes from `start` on, at least one sector, into pieces of at most `limit`
/// bytes. Returns the first piece.
pub fn next_piece(segments: &[Segment], start: Position, left: usize, sector: usize, limit: usize) -> Piece {
    let reach = direct_length(segments, start, left.min(limit));
    let direct = reach - reach % sector;
    match direct {
        0 => Piece {
            start,
            length: left.min(PAGE.max(sector)),
            bounced: true,
        },
        length => Piece {
            start,
            length,
            bounced: false,
        },
    }
}

/// The position `length` bytes behind `start`.
pub fn advance(segments: &[Segment], start: Position, length: usize) -> Position {
    let mut left = length;
    let mut at = start;
    while let Some(segment) = segments.get(at.segment) {
        let here = segment.length().saturating_sub(at.within);
        if left < here {
            at.within += left;
            break;
        }
        left -= here;
        at = Position {
            segment: at.segment + 1,
            within: 0,
        };
    }
    at
}

/// Parts of segments from `start` on: address and length of each, without empty ones.
fn parts(segments: &[Segment], start: Position) -> impl Iterator<Item = (u64, usize)> + '_ {
    let mut within = start.within;
    let rest = segments.get(start.segment..).unwrap_or_default();
    rest.iter()
        .map(move |segment| {
            let skip = core::mem::take(&mut within);
            let address = device_address(segment.physical()).wrapping_add(skip as u64);
            (address, segment.length().saturating_sub(skip))
        })
        .filter(|(_, length)| *length != 0)
}

/// Bytes from `start` on, at most `limit`, that one command can reach.
fn direct_length(segments: &[Segment], start: Position, limit: usize) -> usize {
    let mut length = 0;
    let mut end = 0;
    for (address, available) in parts(segments, start) {
        let fits = match length {
            0 => address.is_multiple_of(4),
            _ => address == end || (is_page(address) && is_page(end)),
        };
        if !fits {
            break;
        }
        length += available.min(limit - length);
        end = address.wrapping_add(available as u64);
        if length == limit {
            break;
        }
    }
    length
}

fn is_page(address: u64) -> bool {
    address.is_multiple_of(PAGE as u64)
}

/// The two pointers of a command that reaches `length` bytes from `start` on, a direct piece; the list goes to `list`
/// from `offset` on, where it has room for [`LIST_ENTRIES`].
pub fn write(
    segments: &[Segment],
    start: Position,
    length: usize,
    list: &DmaMemory,
    offset: usize,
) -> (u64, u64) {
    let mut left = length;
    let mut first = None;
    let mut second = 0;
    let mut listed = 0;
    let mut push = |address: u64| match first {
        None => first = Some(address),
        Some(_) => {
            if listed == 0 {
                second = address;
            }
            if listed < LIST_ENTRIES {
                list.write_u64(offset + 8 * listed, address);
            }
            listed += 1;
        }
    };
    for (index, (address, available)) in parts(segments, start).enumerate() {
        let take = available.min(left);
        // In the middle of a page this goes on where the part before ended, whose page is listed.
        if index == 0 || is_page(address) {
            push(address);
        }
        let end = address.wrapping_add(take as u64);
        let mut page = (address | (PAGE as u64 - 1)).wrapping_add(1);
        while page < end {
            push(page);
            page += PAGE as u64;
        }
        left -= take;
        if left == 0 {
            break;
        }
    }
    let second = match listed {
        0 | 1 => second,
        _ => list.address(offset),
    };
    (first.unwrap_or_default(), second)
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;
    use core::ptr::NonNull;
    use proptest::prelude::*;

    fn segments(parts: &[(u64, usize)]) -> Vec<Segment> {
        let segment = |&(physical, length)| {
            // SAFETY: nothing here reads or writes through the pointer.
            unsafe { Segment::new(NonNull::dangling(), physical, length) }
        };
        parts.iter().map(segment).collect()
    }

    /// The addresses of every fourth byte that a device reaches by these pointers.
    fn reached(list: &DmaMemory, (first, second): (u64, u64), length: usize) -> Vec<u64> {
        let in_first = (PAGE - first as usize % PAGE).min(length);
        let pages = (length - in_first).div_ceil(PAGE);
        let mut addresses: Vec<u64> = (0..in_first as u64).step_by(4).map(|at| first + at).collect();
        for page in 0..pages {
            let start = match pages {
                1 => second,
                _ => {
                    assert_eq!(second, list.address(0));
                    u64::from(list.read_u32(8 * page + 4)) << 32 | u64::from(list.read_u32(8 * page))
                }
            };
            assert_eq!(start % PAGE as u64, 0, "a page in the list begins inside");
            let here = (length - in_first - page * PAGE).min(PAGE);
            addresses.extend((0..here as u64).step_by(4).map(|at| start + at));
        }
        addresses
    }

    fn all(parts: &[(u64, usize)]) -> Vec<u64> {
        parts
            .iter()
            .flat_map(|&(start, length)| start..start + length as u64)
            .collect()
    }

    /// Cuts and checks a buffer; returns its pieces' lengths and whether they were bounced.
    fn cut(parts: &[(u64, usize)], sector: usize, limit: usize) -> Vec<(usize, bool)> {
        let segments = segments(parts);
        let expected = all(parts);
        let list = DmaMemory::allocate(LIST).unwrap();
        let mut done = 0;
        let mut position = Position::default();
        let mut pieces = Vec::new();
        while done < expected.len() {
            let piece = next_piece(&segments, position, expected.len() - done, sector, limit);
            assert_eq!(piece.start, position);
            assert!(
                piece.length > 0 && piece.length.is_multiple_of(sector) && piece.length <= limit.max(PAGE)
            );
            if !piece.bounced {
                let pointers = write(&segments, position, piece.length, &list, 0);
                let wanted: Vec<u64> = expected[done..done + piece.length]
                    .iter()
                    .copied()
                    .step_by(4)
                    .collect();
                assert_eq!(reached(&list, pointers, piece.length), wanted);
            }
            pieces.push((piece.length, piece.bounced));
            position = advance(&segments, position, piece.length);
            done += piece.length;
        }
        assert_eq!(done, expected.len());
        pieces
    }

    #[test]
    fn pages_of_a_guest_are_one_command_however_they_are_scattered() {
        assert_eq!(cut(&[(0x1000, 4096)], 512, MOST_BYTES), [(4096, false)]);
        assert_eq!(
            cut(&[(0x1000, 4096), (0x9000, 4096)], 512, MOST_BYTES),
            [(8192, false)]
        );
        let scattered: Vec<(u64, usize)> = (0..256).map(|page| (0x10_0000 + page * 0x3000, 4096)).collect();
        assert_eq!(cut(&scattered, 512, MOST_BYTES), [(1 << 20, false)]);
        let first_and_last_inside = [(0x1e00, 512), (0x9000, 4096), (0x7000, 512)];
        assert_eq!(cut(&first_and_last_inside, 512, MOST_BYTES), [(5120, false)]);
    }

    #[test]
    fn the_largest_transfer_fits_the_list_wherever_it_begins() {
        assert_eq!(
            cut(&[(0x1ffc, MOST_BYTES)], 512, MOST_BYTES),
            [(MOST_BYTES, false)]
        );
    }

    #[test]
    fn a_buffer_is_cut_where_pages_are_not_whole() {
        assert_eq!(
            cut(&[(0x1000, 512), (0x9000, 512)], 512, MOST_BYTES),
            [(512, false), (512, false)]
        );
    }

    #[test]
    fn a_sector_that_is_broken_or_lies_oddly_is_bounced() {
        assert_eq!(
            cut(&[(0x1000, 256), (0x9000, 256)], 512, MOST_BYTES),
            [(512, true)]
        );
        assert_eq!(cut(&[(0x1001, 512)], 512, MOST_BYTES), [(512, true)]);
        assert_eq!(
            cut(&[(0x1002, 9 * 512)], 512, MOST_BYTES),
            [(4096, true), (512, true)]
        );
    }

    #[test]
    fn segments_that_touch_are_as_one() {
        assert_eq!(
            cut(&[(0x1000, 100), (0x1064, 412), (0x1200, 512)], 512, MOST_BYTES),
            [(1024, false)]
        );
    }

    #[test]
    fn the_limit_is_kept() {
        assert_eq!(cut(&[(0x1000, 12288)], 512, 8192), [(8192, false), (4096, false)]);
        assert_eq!(cut(&[(0x1200, 8192)], 512, 4096), [(4096, false), (4096, false)]);
    }

    fn any_parts(sector: usize) -> impl Strategy<Value = Vec<(u64, usize)>> {
        let length = prop_oneof![Just(4096usize), Just(512), Just(8192), 1usize..9000];
        let offset = prop_oneof![4 => Just(0u64), 1 => Just(512), 1 => 0u64..4096];
        let part = (0u64..64, offset, length);
        proptest::collection::vec(part, 1..12).prop_map(move |parts| {
            let mut parts: Vec<(u64, usize)> = parts
                .into_iter()
                .map(|(page, offset, length)| (0x10_0000 + page * 0x8000 + offset, length))
                .collect();
            let total: usize = parts.iter().map(|(_, length)| length).sum();
            parts.push((0x400_0000, total.next_multiple_of(sector) - total + sector));
            parts
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_byte_is_reached_once_and_in_order(parts in any_parts(512), limit in 1usize..64) {
            cut(&parts, 512, limit * 4096);
        }

        #[test]
        fn large_sectors_stay_whole(parts in any_parts(4096), limit in 1usize..64) {
            cut(&parts, 4096, limit * 4096);
        }
    }
}
