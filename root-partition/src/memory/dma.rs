//! Memory that devices read and write.
//!
//! The root sees all RAM at its physical address, and devices see it there too: [`device_address`] is the one place that
//! knows. Devices change the bytes at any moment, so they are copied in and out and never referred to.
#![allow(unsafe_code)]

use alloc::sync::Arc;
use alloc::vec;
use core::ptr::NonNull;
use vsp::buffer::{Buffer, Segment};

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// The address by which a device reaches what the memory bus has at `physical`.
pub const fn device_address(physical: u64) -> u64 {
    physical
}

/// Zeroed pages in a row.
#[derive(Debug)]
pub struct DmaMemory {
    base: NonNull<u8>,
    size: usize,
}

// SAFETY: the memory is the value's own, and is reached by single volatile accesses that tolerate other writers.
unsafe impl Send for DmaMemory {}
// SAFETY: as above.
unsafe impl Sync for DmaMemory {}

impl DmaMemory {
    /// At least `bytes` bytes, at most 2 MiB, aligned to a page; `None` where there is no such memory.
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

    /// The address of the byte at `offset` for a device.
    pub fn address(&self, offset: usize) -> u64 {
        device_address(self.base.as_ptr() as u64 + offset as u64)
    }

    /// The 32-bit word at `offset`.
    ///
    /// # Panics
    /// Where `offset` is not aligned or outside.
    pub fn read_u32(&self, offset: usize) -> u32 {
        // SAFETY: `at` checked that the word is inside the value's own memory and aligned.
        unsafe { self.at::<u32>(offset).read_volatile() }
    }

    /// Writes the 64-bit word at `offset`.
    ///
    /// # Panics
    /// Where `offset` is not aligned or outside.
    pub fn write_u64(&self, offset: usize, value: u64) {
        // SAFETY: as for `read_u32`.
        unsafe { self.at::<u64>(offset).write_volatile(value) };
    }

    /// Makes all bytes zero.
    pub fn clear(&self) {
        for offset in (0..self.size).step_by(8) {
            self.write_u64(offset, 0);
        }
    }

    fn at<T>(&self, offset: usize) -> *mut T {
        let inside = offset.is_multiple_of(size_of::<T>())
            && offset
                .checked_add(size_of::<T>())
                .is_some_and(|end| end <= self.size);
        assert!(inside, "{offset:#x} of {:#x} bytes", self.size);
        // SAFETY: the offset is inside the memory.
        unsafe { self.base.as_ptr().add(offset).cast() }
    }
}

impl Drop for DmaMemory {
    fn drop(&mut self) {
        // SAFETY: the pages came from `allocate`, and whoever gave them to a device kept the value until that was done.
        unsafe { frames::release(self.base, self.size / PAGE) };
    }
}

/// A buffer of `size` bytes in memory of its own, at most 2 MiB, aligned to a page, zeroed.
pub fn buffer(size: usize) -> Option<Arc<Buffer>> {
    let memory = DmaMemory::allocate(size)?;
    // SAFETY: the memory is the buffer's, which owns it, and nobody has a reference to its bytes.
    let segment = unsafe { Segment::new(memory.base, memory.base.as_ptr() as u64, size) };
    Some(Arc::new(Buffer::new(vec![segment], Arc::new(memory))))
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
    fn memory_is_zeroed_and_aligned() {
        let memory = DmaMemory::allocate(5000).unwrap();
        assert_eq!((memory.size(), memory.address(0) % 4096), (8192, 0));
        memory.write_u64(8184, 0x1_0000_0002);
        assert_eq!(
            (memory.read_u32(8184), memory.read_u32(8188), memory.read_u32(0)),
            (2, 1, 0)
        );
        memory.clear();
        assert_eq!(memory.read_u32(8184), 0);
        assert!(DmaMemory::allocate(3 << 20).is_none());
    }

    #[test]
    fn a_buffer_is_one_segment_of_the_size_that_was_asked_for() {
        let buffer = buffer(6000).unwrap();
        assert_eq!((buffer.size(), buffer.segments().len()), (6000, 1));
        assert_eq!(buffer.segments()[0].physical() % 4096, 0);
        buffer.copy_from(5996, &[1, 2, 3, 4]).unwrap();
    }
}
