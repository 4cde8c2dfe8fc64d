//! Pages from the frame allocator, as a value: they go back there when it is dropped, which memory of the heap does not.
#![allow(unsafe_code)]

use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// Pages in a row, in physical memory too.
#[derive(Debug)]
pub struct Pages {
    base: NonNull<u8>,
    size: usize,
}

// SAFETY: the memory is the value's own.
unsafe impl Send for Pages {}

impl Pages {
    /// At least `bytes` bytes, at most 2 MiB, zeroed and aligned to a page; `None` where there is no such memory.
    pub fn allocate(bytes: usize) -> Option<Self> {
        let size = bytes.max(1).checked_next_multiple_of(PAGE)?;
        let base = frames::allocate(size / PAGE)?;
        // SAFETY: the pages were just allocated for this value alone.
        unsafe { base.as_ptr().write_bytes(0, size) };
        Some(Self { base, size })
    }

    /// Bytes.
    pub const fn size(&self) -> usize {
        self.size
    }

    /// The first byte.
    pub const fn pointer(&self) -> NonNull<u8> {
        self.base
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes are the value's own and were initialised; who writes them by `pointer` shares no reference.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr(), self.size) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the reference is the only one.
        unsafe { core::slice::from_raw_parts_mut(self.base.as_ptr(), self.size) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the pages came from `allocate`, and whoever gave them to a device kept the value until that was done.
        unsafe { frames::release(self.base, self.size / PAGE) };
    }
}

#[cfg(not(test))]
mod frames {
    use super::PAGE;
    use crate::memory::address_space;
    use core::ptr::NonNull;

    pub(super) fn allocate(pages: usize) -> Option<NonNull<u8>> {
        NonNull::new(address_space::allocate_run(pages)? as *mut u8)
    }

    /// # Safety
    /// The pages came from [`allocate`], and nothing uses them.
    pub(super) unsafe fn release(base: NonNull<u8>, pages: usize) {
        let start = base.as_ptr() as u64;
        // SAFETY: the caller vouches for the pages.
        unsafe { address_space::release(start..start + (pages * PAGE) as u64) };
    }
}

#[cfg(test)]
mod frames {
    use super::PAGE;
    use core::ptr::NonNull;
    use std::alloc::{Layout, alloc, dealloc};

    const MOST: usize = 512;

    fn layout(pages: usize) -> Option<Layout> {
        Layout::from_size_align(pages * PAGE, PAGE).ok()
    }

    pub(super) fn allocate(pages: usize) -> Option<NonNull<u8>> {
        let layout = layout(pages).filter(|_| (1..=MOST).contains(&pages))?;
        // SAFETY: the layout is not empty.
        NonNull::new(unsafe { alloc(layout) })
    }

    /// # Safety
    /// The pages came from [`allocate`], and nothing uses them.
    pub(super) unsafe fn release(base: NonNull<u8>, pages: usize) {
        if let Some(layout) = layout(pages) {
            // SAFETY: the caller vouches for the pages, and the layout is the one that they came by.
            unsafe { dealloc(base.as_ptr(), layout) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_zeroed_whole_and_at_most_2_mib() {
        let mut pages = Pages::allocate(5000).unwrap();
        assert_eq!((pages.len(), pages.as_ptr() as usize % PAGE), (8192, 0));
        assert!(pages.iter().all(|&byte| byte == 0));
        pages[8191] = 7;
        assert_eq!(pages[8191], 7);
        assert!(Pages::allocate(3 << 20).is_none() && Pages::allocate(usize::MAX).is_none());
    }
}
