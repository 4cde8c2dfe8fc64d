//! Which of the RAM the hypervisor gave becomes the first heap, and which goes to the frame allocator.

use arrayvec::ArrayVec;
use core::ops::Range;

/// RAM below this belongs to the firmware in practice, whatever the map says.
const LOW_MEMORY: u64 = 1 << 20;
/// The boot stub maps no address from here on.
const BOOT_MAP_END: u64 = 4 << 30;
/// Smallest heap to start with.
const MIN_HEAP: u64 = 8 << 20;
/// Largest heap to start with; it grows when it has to.
const MAX_HEAP: u64 = 256 << 20;
/// Most separate ranges of free RAM.
const MAX_RANGES: usize = 300;

/// Free RAM, page-aligned, in ascending order.
pub type FreeRam = ArrayVec<Range<u64>, MAX_RANGES>;

/// The free RAM: `ram` without low memory and without the pages that `used` touches.
pub fn free_ram(ram: impl Iterator<Item = Range<u64>>, used: &[Range<u64>]) -> FreeRam {
    let mut free: FreeRam = ram
        .map(|range| range.start.next_multiple_of(4096).max(LOW_MEMORY)..range.end & !4095)
        .filter(|range| range.start < range.end)
        .take(MAX_RANGES)
        .collect();
    for hole in used {
        let hole = hole.start & !4095..hole.end.next_multiple_of(4096);
        let mut rest = FreeRam::new();
        for range in &free {
            let below = range.start..range.end.min(hole.start);
            let above = range.start.max(hole.end)..range.end;
            for part in [below, above] {
                if part.start < part.end {
                    // A range too many is lost, which only costs memory.
                    let _ = rest.try_push(part);
                }
            }
        }
        free = rest;
    }
    free.sort_unstable_by_key(|range| range.start);
    free
}

/// The first heap: a sixteenth of the free RAM within limits, at the end of the largest range that the boot stub maps.
pub fn first_heap(free: &[Range<u64>]) -> Option<Range<u64>> {
    let total: u64 = free.iter().map(|range| range.end - range.start).sum();
    let size = (total / 16).clamp(MIN_HEAP, MAX_HEAP) & !0x1f_ffff;
    let largest = free
        .iter()
        .map(|range| range.start..range.end.min(BOOT_MAP_END))
        .filter(|range| range.end > range.start)
        .max_by_key(|range| range.end - range.start)?;
    let end = largest.end & !0x1f_ffff;
    let start = end.checked_sub(size)?;
    (start >= largest.start).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn used_pages_and_low_memory_are_left_out() {
        let free = free_ram(
            [0..0x9_fc00, MIB..64 * MIB].into_iter(),
            &[16 * MIB..17 * MIB + 1, 63 * MIB..80 * MIB],
        );
        assert_eq!(free.as_slice(), [MIB..16 * MIB, 17 * MIB + 4096..63 * MIB]);
    }

    #[test]
    fn the_heap_is_a_sixteenth_of_the_largest_mapped_range() {
        let free = [MIB..16 * MIB, 20 * MIB..2048 * MIB, 4096 * MIB..8192 * MIB];
        let heap = first_heap(&free).unwrap();
        assert_eq!(heap.end, 2048 * MIB);
        assert_eq!(heap.end - heap.start, 256 * MIB);
        assert_eq!(first_heap(&free[..1]), Some(8 * MIB..16 * MIB));
    }

    #[test]
    fn memory_that_the_stub_does_not_map_cannot_be_the_first_heap() {
        for range in [4096 * MIB..8192 * MIB, MIB..4 * MIB] {
            assert_eq!(first_heap(core::slice::from_ref(&range)), None);
        }
    }
}
