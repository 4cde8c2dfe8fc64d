//! Pages in a row, of the guest system's.
#![allow(unsafe_code)]

use super::PAGE;
use crate::hal::Hal;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

/// Pages in a row for the processor and for the host, given back when dropped.
pub struct Pages<H: Hal> {
    hal: Arc<H>,
    start: NonNull<u8>,
    count: usize,
}

// SAFETY: the pages are the value's own, and what is shared with the host is reached by raw copies and atomics only.
unsafe impl<H: Hal> Send for Pages<H> {}
// SAFETY: as above.
unsafe impl<H: Hal> Sync for Pages<H> {}

impl<H: Hal> Pages<H> {
    /// `count` zeroed pages; `None` where the system has not so many.
    pub fn allocate(hal: &Arc<H>, count: usize) -> Option<Self> {
        let start = hal.allocate_pages(count)?;
        let hal = hal.clone();
        Some(Self { hal, start, count })
    }

    /// The first byte.
    pub const fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Pages.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Sets bit `bit`, counted from byte `offset` on, for whoever looks at it; `false` where that is not in the pages.
    #[must_use]
    pub fn set_bit(&self, offset: usize, bit: u32) -> bool {
        let word = offset / 4 + bit as usize / 32;
        if word >= self.count * PAGE / 4 {
            return false;
        }
        // SAFETY: the word is inside the pages, which are aligned and reached by atomics only where others may write.
        let word = unsafe { AtomicU32::from_ptr(self.start.as_ptr().cast::<u32>().add(word)) };
        word.fetch_or(1 << (bit % 32), Ordering::SeqCst);
        true
    }

    /// The pages' numbers.
    pub fn numbers(&self) -> Vec<u64> {
        let first = self.hal.physical(self.start).0 / PAGE as u64;
        (first..).take(self.count).collect()
    }
}

impl<H: Hal> Drop for Pages<H> {
    fn drop(&mut self) {
        // SAFETY: they were allocated by this system, and whoever tells the host of them keeps the value until the host has let go.
        unsafe { self.hal.free_pages(self.start, self.count) };
    }
}

impl<H: Hal> fmt::Debug for Pages<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages")
            .field("start", &self.start)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}
