//! The heap: `talc`, which takes pages as it grows. An image that wants one holds it:
//!
//! ```ignore
//! #[global_allocator]
//! static HEAP: vsc_runtime::memory::heap::Heap = vsc_runtime::memory::heap::new();
//! ```
//!
//! Interrupt handlers must not allocate: the heap's lock does not keep interrupts off.
#![allow(unsafe_code)]

use super::pages;
use core::alloc::Layout;
use talc::TalcLock;
use talc::base::{Talc, binning::Binning};
use talc::source::Source;

/// Pages by which the heap grows at least.
const GROWTH: u64 = 64;

/// The global allocator's type.
pub type Heap = TalcLock<spin::Mutex<()>, Growing>;

/// An empty heap.
pub const fn new() -> Heap {
    TalcLock::new(Growing)
}

/// Grows the heap by pages.
#[derive(Debug)]
pub struct Growing;

// SAFETY: `acquire` takes pages, which allocates nothing from this heap.
unsafe impl Source for Growing {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        // A page more than asked, so that the heap's own bookkeeping fits.
        let needed = (layout.size() + layout.align()).div_ceil(pages::SIZE as usize) as u64 + 1;
        let count = needed.max(GROWTH);
        let start = pages::allocate(count).ok_or(())?;
        // SAFETY: the pages were just taken, so they are nobody else's, and all RAM is mapped.
        unsafe { talc.claim(start as *mut u8, (count * pages::SIZE) as usize) }
            .map(|_| ())
            .ok_or(())
    }
}
