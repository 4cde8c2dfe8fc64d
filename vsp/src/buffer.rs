//! Memory of one request: pieces of a guest's RAM, where they lie for the processor and for a device.
//!
//! The guest may change the bytes at any moment, so they are copied in and out and never referred to. A [`Buffer`] keeps
//! its memory from being freed for as long as it lives: whoever has started a transfer holds a clone of its `Arc` until the
//! device is done with it, even if nobody waits for the result any more.
#![allow(unsafe_code)]

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::ptr::NonNull;

/// Bytes in a row, in the provider's address space and on the memory bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    pointer: NonNull<u8>,
    physical: u64,
    length: usize,
}

impl Segment {
    /// The `length` bytes at `pointer`, which a device finds at `physical`.
    ///
    /// # Safety
    /// The bytes are readable and writable by anyone for as long as the [`Buffer`] that the segment becomes part of keeps
    /// its owner, and nobody has a reference to them.
    pub const unsafe fn new(pointer: NonNull<u8>, physical: u64, length: usize) -> Self {
        Self {
            pointer,
            physical,
            length,
        }
    }

    /// The address for a device.
    pub const fn physical(&self) -> u64 {
        self.physical
    }

    /// Bytes.
    pub const fn length(&self) -> usize {
        self.length
    }
}

// SAFETY: a segment is an address; reading and writing through it goes by raw copies that tolerate other writers.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

/// A position or length beyond a buffer's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{length} bytes at {offset} are not inside a buffer of {size} bytes")]
pub struct OutsideBuffer {
    /// First byte.
    pub offset: usize,
    /// Bytes.
    pub length: usize,
    /// What the buffer holds.
    pub size: usize,
}

/// The memory of one request, and what keeps it from being freed.
pub struct Buffer {
    segments: Vec<Segment>,
    size: usize,
    _owner: Arc<dyn Any + Send + Sync>,
}

impl Buffer {
    /// The memory of `segments`, in their order, which is not freed before `owner` is dropped.
    pub fn new(segments: Vec<Segment>, owner: Arc<dyn Any + Send + Sync>) -> Self {
        let size = segments.iter().map(Segment::length).sum();
        Self {
            segments,
            size,
            _owner: owner,
        }
    }

    /// Bytes.
    pub const fn size(&self) -> usize {
        self.size
    }

    /// The pieces, in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Copies the bytes from `offset` on to `into`, all of it or nothing.
    pub fn copy_to(&self, offset: usize, into: &mut [u8]) -> Result<(), OutsideBuffer> {
        let mut done = 0;
        self.pieces(offset, into.len(), |pointer, length| {
            // SAFETY: `pieces` gives parts of segments, which are readable while the owner lives, and `length` bytes are left.
            unsafe { core::ptr::copy_nonoverlapping(pointer, into.as_mut_ptr().add(done), length) };
            done += length;
        })
    }

    /// Copies `from` to the bytes from `offset` on, all of it or nothing.
    pub fn copy_from(&self, offset: usize, from: &[u8]) -> Result<(), OutsideBuffer> {
        let mut done = 0;
        self.pieces(offset, from.len(), |pointer, length| {
            // SAFETY: as in `copy_to`, the other way round.
            unsafe { core::ptr::copy_nonoverlapping(from.as_ptr().add(done), pointer, length) };
            done += length;
        })
    }

    /// Pieces of it, offsets with their lengths, as a buffer of their own; `None` where one is not inside it.
    pub fn parts(self: &Arc<Self>, pieces: impl IntoIterator<Item = (usize, usize)>) -> Option<Self> {
        let mut segments = Vec::new();
        for (offset, length) in pieces {
            self.cut(offset, length, |segment, from, length| {
                segments.push(Segment {
                    // SAFETY: `from` lies inside the segment.
                    pointer: unsafe { segment.pointer.add(from) },
                    physical: segment.physical + from as u64,
                    length,
                });
            })
            .ok()?;
        }
        Some(Self::new(segments, self.clone()))
    }

    fn pieces(
        &self,
        offset: usize,
        length: usize,
        mut each: impl FnMut(*mut u8, usize),
    ) -> Result<(), OutsideBuffer> {
        self.cut(offset, length, |segment, from, length| {
            // SAFETY: `from` lies inside the segment.
            each(unsafe { segment.pointer.as_ptr().add(from) }, length);
        })
    }

    /// Calls `each` with the segments that a range crosses, and the offset and length inside each.
    fn cut(
        &self,
        offset: usize,
        length: usize,
        mut each: impl FnMut(&Segment, usize, usize),
    ) -> Result<(), OutsideBuffer> {
        let outside = OutsideBuffer {
            offset,
            length,
            size: self.size,
        };
        let end = offset
            .checked_add(length)
            .filter(|&end| end <= self.size)
            .ok_or(outside)?;
        let mut start = 0;
        for segment in &self.segments {
            let from = offset.max(start);
            let to = end.min(start + segment.length);
            if from < to {
                each(segment, from - start, to - from);
            }
            start += segment.length;
            if start >= end {
                break;
            }
        }
        Ok(())
    }
}

/// A buffer over memory of its own, zeroed; for tests, and for requests that providers make themselves on the host.
/// Its physical address is its address.
pub fn owned(size: usize) -> Arc<Buffer> {
    let words = size.div_ceil(8);
    let memory: Arc<Owned> = Arc::new(Owned(
        (0..words).map(|_| core::cell::UnsafeCell::new(0)).collect(),
    ));
    let address = memory.0.as_ptr() as *mut u8;
    let pointer = NonNull::new(address).unwrap_or(NonNull::dangling());
    // SAFETY: the memory is in cells, which allow writing by anyone, and lives as long as `memory`, the buffer's owner.
    let segment = unsafe { Segment::new(pointer, address as u64, size) };
    Arc::new(Buffer::new(alloc::vec![segment], memory))
}

struct Owned(Vec<core::cell::UnsafeCell<u64>>);
// SAFETY: the cells are reached by the raw copies of `Buffer` only.
unsafe impl Send for Owned {}
// SAFETY: as above.
unsafe impl Sync for Owned {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_cross_segments_and_stay_inside() {
        let whole = owned(32);
        let buffer = Arc::new(whole.parts([(20, 4), (0, 8)]).unwrap());
        buffer.copy_from(2, &[1, 2, 3, 4]).unwrap();
        let mut seen = [0; 32];
        whole.copy_to(0, &mut seen).unwrap();
        assert_eq!(
            (&seen[20..24], &seen[0..4]),
            (&[0, 0, 1, 2][..], &[3, 4, 0, 0][..])
        );
        assert!(buffer.copy_to(9, &mut [0; 4]).is_err());
        assert!(buffer.copy_to(usize::MAX, &mut [0; 4]).is_err());
        let across = buffer.parts([(3, 3)]).unwrap();
        let mut seen = [0; 3];
        across.copy_to(0, &mut seen).unwrap();
        assert_eq!((across.segments().len(), seen), (2, [2, 3, 4]));
        assert!(buffer.parts([(0, 4), (9, 4)]).is_none());
    }
}
