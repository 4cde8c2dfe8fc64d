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
use smallvec::SmallVec;
use zerocopy::{Immutable, IntoBytes};

/// The pieces of a buffer, in order; a few of them, as most requests have, are kept in place.
pub type Segments = SmallVec<[Segment; 2]>;

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

    /// The `length` bytes from `offset` on; `None` where they are not all in the segment.
    pub fn part(&self, offset: usize, length: usize) -> Option<Self> {
        offset.checked_add(length).filter(|&end| end <= self.length)?;
        Some(Self {
            // SAFETY: `offset` is at most the segment's length.
            pointer: unsafe { self.pointer.add(offset) },
            physical: self.physical + offset as u64,
            length,
        })
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
    segments: Segments,
    size: usize,
    /// All of it, if it lies in a row.
    row: Option<Segment>,
    _owner: Arc<dyn Any + Send + Sync>,
}

impl Buffer {
    /// The memory of `segments`, in their order, which is not freed before `owner` is dropped.
    pub fn new(segments: impl Into<Segments>, owner: Arc<dyn Any + Send + Sync>) -> Self {
        let segments = segments.into();
        let size = segments.iter().map(Segment::length).sum();
        let row = match segments.as_slice() {
            [segment] => Some(*segment),
            _ => None,
        };
        Self {
            segments,
            size,
            row,
            _owner: owner,
        }
    }

    /// As [`new`](Self::new), of one segment.
    #[inline]
    pub fn of_one(segment: Segment, owner: Arc<dyn Any + Send + Sync>) -> Self {
        Self {
            size: segment.length,
            row: Some(segment),
            segments: Segments::from_buf_and_len([segment; 2], 1),
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

    /// Where `length` bytes from `offset` on begin, if they lie in a row because all of the buffer does.
    #[inline(always)]
    fn in_a_row(&self, offset: usize, length: usize) -> Option<*mut u8> {
        let row = self.row.as_ref()?;
        offset.checked_add(length).filter(|&end| end <= row.length)?;
        // SAFETY: the offset is at most the segment's length.
        Some(unsafe { row.pointer.as_ptr().add(offset) })
    }

    /// Copies the bytes from `offset` on to `into`, all of it or nothing.
    #[inline(always)]
    pub fn copy_to(&self, offset: usize, into: &mut [u8]) -> Result<(), OutsideBuffer> {
        if let Some(pointer) = self.in_a_row(offset, into.len()) {
            // SAFETY: so many bytes of a segment, which is readable while the owner lives, and of `into`, which is ours.
            unsafe { core::ptr::copy_nonoverlapping(pointer, into.as_mut_ptr(), into.len()) };
            return Ok(());
        }
        self.gather(offset, into)
    }

    #[inline(never)]
    fn gather(&self, offset: usize, into: &mut [u8]) -> Result<(), OutsideBuffer> {
        let mut done = 0;
        self.pieces(offset, into.len(), |pointer, length| {
            // SAFETY: `pieces` gives parts of segments, which are readable while the owner lives, and `length` bytes are left.
            unsafe { core::ptr::copy_nonoverlapping(pointer, into.as_mut_ptr().add(done), length) };
            done += length;
        })
    }

    /// Copies `from` to the bytes from `offset` on, all of it or nothing.
    #[inline(always)]
    pub fn copy_from(&self, offset: usize, from: &[u8]) -> Result<(), OutsideBuffer> {
        if let Some(pointer) = self.in_a_row(offset, from.len()) {
            // SAFETY: as in `copy_to`, the other way round.
            unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), pointer, from.len()) };
            return Ok(());
        }
        self.scatter(offset, from)
    }

    /// Copies a structure to the bytes from `offset` on, all of it or nothing.
    #[inline(always)]
    pub fn write<T: IntoBytes + Immutable + Copy>(
        &self,
        offset: usize,
        value: &T,
    ) -> Result<(), OutsideBuffer> {
        if let Some(pointer) = self.in_a_row(offset, size_of::<T>()) {
            // SAFETY: as in `copy_from`.
            unsafe { pointer.cast::<T>().write_unaligned(*value) };
            return Ok(());
        }
        // A copy, so that the other way needs no memory for it.
        let value = *value;
        self.scatter(offset, value.as_bytes())
    }

    #[inline(never)]
    fn scatter(&self, offset: usize, from: &[u8]) -> Result<(), OutsideBuffer> {
        let mut done = 0;
        self.pieces(offset, from.len(), |pointer, length| {
            // SAFETY: as in `copy_to`, the other way round.
            unsafe { core::ptr::copy_nonoverlapping(from.as_ptr().add(done), pointer, length) };
            done += length;
        })
    }

    /// Pieces of it, offsets with their lengths, as a buffer of their own; `None` where one is not inside it.
    pub fn parts(self: &Arc<Self>, pieces: impl IntoIterator<Item = (usize, usize)>) -> Option<Self> {
        let mut segments = Segments::new();
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

    /// Copies `length` bytes of `from`, from its byte `start` on, to the bytes from `offset` on, all of it or nothing.
    pub fn copy_across(
        &self,
        offset: usize,
        from: &Self,
        start: usize,
        length: usize,
    ) -> Result<(), OutsideBuffer> {
        from.pieces(start, length, |_, _| {})?;
        let mut source = from.segments.iter();
        let mut skip = start;
        let mut current: Option<(*const u8, usize)> = None;
        self.pieces(offset, length, |mut target, mut wanted| {
            while wanted > 0 {
                let (pointer, left) = match current.take() {
                    Some(piece) => piece,
                    None => {
                        // `length` bytes follow `start`, so that the segments do not end before.
                        let Some(segment) = source.next() else { return };
                        let passed = skip.min(segment.length);
                        skip -= passed;
                        // SAFETY: `passed` is at most the segment's length.
                        (
                            unsafe { segment.pointer.as_ptr().add(passed) }.cast_const(),
                            segment.length - passed,
                        )
                    }
                };
                let now = left.min(wanted);
                // SAFETY: both have `now` bytes, readable and writable by anyone while the owners live; they may be the same memory.
                unsafe {
                    core::ptr::copy(pointer, target, now);
                    target = target.add(now);
                    current = (left > now).then(|| (pointer.add(now), left - now));
                }
                wanted -= now;
            }
        })
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
    fn bytes_go_across_from_segments_to_segments() {
        let (whole, other) = (owned(32), owned(32));
        let [from, to] = [&whole, &other].map(|memory| {
            let pointer = memory.segments()[0].pointer;
            // SAFETY: all are parts of the memory of `memory`, which is their owner.
            let parts = unsafe {
                [(20, 4), (0, 8), (30, 2)].map(|(at, size)| Segment::new(pointer.add(at), 0, size))
            };
            Buffer::new(parts.to_vec(), memory.clone())
        });
        from.copy_from(0, &core::array::from_fn::<u8, 14, _>(|byte| byte as u8))
            .unwrap();
        to.copy_across(1, &from, 2, 12).unwrap();
        let mut seen = [0; 14];
        to.copy_to(0, &mut seen).unwrap();
        assert_eq!(seen, [0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0]);
        for (offset, start, length) in [(3, 2, 12), (1, 3, 12), (usize::MAX, 0, 1), (0, usize::MAX, 1)] {
            assert!(to.copy_across(offset, &from, start, length).is_err());
        }
    }

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
