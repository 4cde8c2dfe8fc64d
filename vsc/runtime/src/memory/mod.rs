//! Memory: one identity map of the first 4 GiB, pages to take, an optional heap.
//!
//! | module | holds |
//! |---|---|
//! | `heap` | the heap, with the feature `heap` |
//! | [`pages`] | pages to take; none comes back |
//! | [`paging`] | the page tables |

#[cfg(feature = "heap")]
pub mod heap;
pub mod pages;
pub mod paging;

use crate::boot;
use core::ops::Range;
use hypercall_api::pvh::MemoryMapEntry;

/// Where the image lies: `start`, the end of its code, of its constants, of everything.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // the fields are named in the summary
pub struct Image {
    pub start: u64,
    pub text_end: u64,
    pub constants_end: u64,
    pub end: u64,
}

/// End of the RAM that is used.
pub const END: u64 = 4 << 30;
/// Least RAM behind the image.
const LEAST: u64 = 2 << 20;

/// Takes the page tables and the free RAM into use; false where there is too little.
///
/// # Safety
/// To be called once, by the boot processor, with the boot stub's map; RAM must be as `map` says, and nobody's but
/// the image's and those of `used`.
#[allow(unsafe_code)]
pub(crate) unsafe fn init(map: &[MemoryMapEntry], used: &[Range<u64>], image: &Image) -> bool {
    let Some(free) = largest_free(boot::ram(map), used, image.end.max(1 << 20)) else {
        return false;
    };
    if free.end - free.start < LEAST {
        return false;
    }
    let low_page = low_page(boot::ram(map), used);
    pages::init(free, low_page);
    // SAFETY: the caller vouches for image and map, and nothing has been mapped otherwise.
    unsafe { paging::init(map, image, low_page) };
    true
}

/// The largest range of whole pages of `ram` from `from` on that `used` leaves.
fn largest_free(ram: impl Iterator<Item = Range<u64>>, used: &[Range<u64>], from: u64) -> Option<Range<u64>> {
    let mut best: Option<Range<u64>> = None;
    for range in ram {
        let mut start = range.start.max(from);
        let end = range.end.min(END);
        while start < end {
            // Up to the next range that is used, and then from its end on.
            let next = used
                .iter()
                .filter(|used| used.end > start && used.start < end && used.start < used.end)
                .min_by_key(|used| used.start);
            let stop = next.map_or(end, |used| used.start.max(start));
            let piece = start.next_multiple_of(4096)..stop & !0xfff;
            let size = piece.end.saturating_sub(piece.start);
            if size > best.as_ref().map_or(0, |best| best.end - best.start) {
                best = Some(piece);
            }
            start = next.map_or(end, |used| used.end);
        }
    }
    best
}

/// A page of RAM below 640 KiB, not the first, from which processors can start.
fn low_page(ram: impl Iterator<Item = Range<u64>>, used: &[Range<u64>]) -> Option<u64> {
    let mut pages = ram.flat_map(|range| {
        let (start, end) = (
            range.start.max(0x1000).next_multiple_of(4096),
            range.end.min(0xa_0000),
        );
        (start..end & !0xfff).step_by(4096)
    });
    pages.find(|page| {
        used.iter()
            .all(|used| used.end <= *page || used.start >= page + 4096)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAM: [Range<u64>; 2] = [0..0xa_0000, 0x10_0000..0x100_0000];

    fn free(used: &[Range<u64>]) -> Option<Range<u64>> {
        largest_free(RAM.into_iter(), used, 0x30_0000)
    }

    #[test]
    fn the_largest_gap_is_taken() {
        assert_eq!(free(&[]), Some(0x30_0000..0x100_0000));
        assert_eq!(
            free(&[0x40_0000..0x40_0800, 0xf0_0000..0xf8_0001]),
            Some(0x40_1000..0xf0_0000)
        );
        assert_eq!(
            free(&[0x20_0000..0xf0_0000, 0x31_0000..0x32_0000]),
            Some(0xf0_0000..0x100_0000)
        );
        assert_eq!(free(&[0..0x100_0000, 0x100_0000..0x200_0000]), None);
    }

    #[test]
    fn a_low_page_is_neither_the_first_nor_used() {
        assert_eq!(low_page(RAM.into_iter(), &[]), Some(0x1000));
        assert_eq!(
            low_page(RAM.into_iter(), &[0x800..0x3001, 0x5000..0x6000]),
            Some(0x4000)
        );
        assert_eq!(low_page(core::iter::once(0x10_0000..0x20_0000), &[]), None);
    }
}
