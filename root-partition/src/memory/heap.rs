//! The heap: `talc`, which takes more memory from the frame allocator when it runs out.
#![allow(unsafe_code)]

use super::address_space;
use super::frames::BLOCK_SIZE;
use core::alloc::Layout;
use core::ops::Range;
use talc::base::{Talc, binning::Binning};
use talc::source::Source;
use talc::{DefaultBinning, TalcLock};

/// Smallest piece by which the heap grows, in blocks of 2 MiB.
const GROWTH_BLOCKS: usize = 4;

/// The global allocator's type; an image's `main.rs` holds the one instance.
pub type Heap = TalcLock<spin::Mutex<()>, Growing>;

/// An empty heap.
pub const fn new() -> Heap {
    TalcLock::new(Growing)
}

/// Grows the heap by whole blocks.
#[derive(Debug)]
pub struct Growing;

// SAFETY: `acquire` reaches the frame allocator, which allocates nothing from this heap.
unsafe impl Source for Growing {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        // One block more than asked, so that the heap's own bookkeeping fits beside a large allocation.
        let needed = (layout.size() + layout.align()).div_ceil(BLOCK_SIZE as usize) + 1;
        let (start, size) = address_space::allocate_blocks(needed.max(GROWTH_BLOCKS))
            .or_else(|| address_space::allocate_blocks(needed))
            .ok_or(())?;
        // SAFETY: the frame allocator gave this range to nobody else, and all RAM is mapped.
        unsafe { talc.claim(start as *mut u8, size) }
            .map(|_| ())
            .ok_or(())
    }
}

/// Gives the heap its first memory.
///
/// # Safety
/// `range` must be mapped, writable and used by nothing else from now on.
pub unsafe fn claim(heap: &Heap, range: Range<u64>) -> bool {
    let size = (range.end - range.start) as usize;
    // SAFETY: the caller vouches for the range.
    unsafe { heap.lock().claim(range.start as *mut u8, size) }.is_some()
}

/// Bytes that the heap has, and bytes of them in use.
pub fn usage(heap: &Heap) -> (u64, u64) {
    let heap = heap.lock();
    let counters = heap.counters();
    (counters.claimed_bytes as u64, counters.allocated_bytes as u64)
}

const _: () = assert!(talc::min_first_heap_size::<DefaultBinning>() < BLOCK_SIZE as usize);
