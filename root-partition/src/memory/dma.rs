//! Memory that devices read and write.
//!
//! The root sees all RAM at its physical address, and devices see it there too: [`device_address`] is the one place that
//! knows. Devices change the bytes at any moment, so they are copied in and out and never referred to.
#![allow(unsafe_code)]

use super::pages::Pages;
use alloc::sync::Arc;
use alloc::vec;
use vsp::buffer::{Buffer, Segment};

pub use super::pages::PAGE;

/// The address by which a device reaches what the memory bus has at `physical`.
pub const fn device_address(physical: u64) -> u64 {
    physical
}

/// Pages that the processor and devices share.
#[derive(Debug)]
pub struct DmaMemory(Pages);

// SAFETY: the memory is the value's own, and is reached by single volatile accesses that tolerate other writers.
unsafe impl Sync for DmaMemory {}

impl DmaMemory {
    /// At least `bytes` bytes, at most 2 MiB, zeroed and aligned to a page; `None` where there is no such memory.
    pub fn allocate(bytes: usize) -> Option<Self> {
        Pages::allocate(bytes).map(Self)
    }

    /// Bytes.
    pub const fn size(&self) -> usize {
        self.0.size()
    }

    /// The address of the byte at `offset` for a device.
    pub fn address(&self, offset: usize) -> u64 {
        device_address(self.0.pointer().as_ptr() as u64 + offset as u64)
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
        for offset in (0..self.size()).step_by(8) {
            self.write_u64(offset, 0);
        }
    }

    fn at<T>(&self, offset: usize) -> *mut T {
        let inside = offset.is_multiple_of(size_of::<T>())
            && offset
                .checked_add(size_of::<T>())
                .is_some_and(|end| end <= self.size());
        assert!(inside, "{offset:#x} of {:#x} bytes", self.size());
        // SAFETY: the offset is inside the memory.
        unsafe { self.0.pointer().as_ptr().add(offset).cast() }
    }
}

/// A buffer of `size` bytes in memory of its own, at most 2 MiB, aligned to a page, zeroed.
pub fn buffer(size: usize) -> Option<Arc<Buffer>> {
    let memory = DmaMemory::allocate(size)?;
    // SAFETY: the memory is the buffer's, which owns it, and nobody has a reference to its bytes.
    let segment = unsafe { Segment::new(memory.0.pointer(), memory.0.pointer().as_ptr() as u64, size) };
    Some(Arc::new(Buffer::new(vec![segment], Arc::new(memory))))
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
