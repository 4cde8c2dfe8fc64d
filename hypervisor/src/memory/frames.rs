//! The hypervisor's own frames: an allocator over one contiguous range.
//!
//! The start of the range holds a table with one [`Link`] a frame, which chains the free frames in both directions: one
//! frame is taken or given back in constant time, and a run is cut out of the middle of the chain. Free frames
//! themselves are never written to.
#![allow(unsafe_code)]

use core::{mem, ptr, slice};

use super::address::{FRAME_SIZE, Frame, Spa, SpaRange};

/// Gives out frames for page tables and the like.
///
/// # Safety
/// A frame from `allocate` is zeroed, mapped writable at its own address, and nobody else's until it is passed to
/// `free`.
pub unsafe trait FrameSource {
    /// One zeroed frame, or `None` when there is none left.
    fn allocate(&mut self) -> Option<Frame>;

    /// Takes back a frame that `allocate` of this source gave and that nothing refers to any more.
    fn free(&mut self, frame: Frame);
}

/// Why frames were not taken back, or an allocator not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// The range is smaller than the allocator's own table and one frame, or larger than the table can count.
    #[error("{0} cannot hold a frame allocator")]
    UnusableRange(SpaRange),
    /// The frame was never the allocator's to give.
    #[error("{0:?} is not of this allocator")]
    Foreign(Frame),
    /// The frame is free already.
    #[error("{0:?} is freed twice")]
    FreedTwice(Frame),
}

/// Neighbours of a free frame in the chain, or [`ALLOCATED`] in both.
#[derive(Clone, Copy)]
#[repr(C)]
struct Link {
    next: u32,
    previous: u32,
}

/// End of the chain.
const NONE: u32 = u32::MAX;
/// Marks a frame that is given out.
const ALLOCATED: u32 = u32::MAX - 1;

/// Frames of one contiguous physical range. Not locked: the owner does that.
pub struct FrameAllocator {
    links: &'static mut [Link],
    first: Frame,
    head: u32,
    free: u32,
    refused: u64,
}

impl FrameAllocator {
    /// Takes over the whole frames of `range`; the first of them hold the allocator's table.
    ///
    /// # Safety
    /// `range` is RAM, mapped writable at its own address for good, and nobody else's.
    pub unsafe fn new(range: SpaRange) -> Result<Self, FrameError> {
        let range = range.shrink_to_frames();
        let frames = range.size() / FRAME_SIZE;
        let table = (frames * mem::size_of::<Link>() as u64).div_ceil(FRAME_SIZE);
        let first = Spa(range.start().0 + table * FRAME_SIZE);
        let (Some(first), Ok(count)) = (
            Frame::starting_at(first),
            u32::try_from(frames.saturating_sub(table)),
        ) else {
            return Err(FrameError::UnusableRange(range));
        };
        if count == 0 || count >= ALLOCATED || range.start().0 == 0 {
            return Err(FrameError::UnusableRange(range));
        }
        let links = range.start().0 as *mut Link;
        for index in 0..count {
            let next = if index + 1 == count { NONE } else { index + 1 };
            let previous = if index == 0 { NONE } else { index - 1 };
            // SAFETY: `table` frames from the start of the range, which the caller gave us, hold at least `count` links.
            unsafe { links.add(index as usize).write(Link { next, previous }) };
        }
        // SAFETY: the `count` links were just written, and the caller gave us the range for good.
        let links = unsafe { slice::from_raw_parts_mut(links, count as usize) };
        Ok(Self {
            links,
            first,
            head: 0,
            free: count,
            refused: 0,
        })
    }

    /// Frames that can be given out in all.
    pub fn total_frames(&self) -> u64 {
        self.links.len() as u64
    }

    /// Frames that are free.
    pub fn free_frames(&self) -> u64 {
        self.free.into()
    }

    /// Times that something was given back which was not given out.
    pub fn refused_frees(&self) -> u64 {
        self.refused
    }

    /// 2^`order` contiguous frames, aligned to their size, zeroed; from the top of the range. Takes a time proportional
    /// to the range, so it is for start-up and for creating partitions.
    pub fn allocate_run(&mut self, order: u32) -> Option<Frame> {
        let frames = 1u64
            .checked_shl(order)
            .filter(|frames| *frames <= self.total_frames())?;
        let base = self.first.number();
        let mut number = (base + self.total_frames() - frames) & !(frames - 1);
        while number >= base {
            let start = (number - base) as usize;
            let run = start..start + frames as usize;
            if self.links[run.clone()].iter().all(|link| link.next != ALLOCATED) {
                run.for_each(|index| self.take(index as u32));
                return Some(self.zeroed(start as u32, frames));
            }
            number = number.checked_sub(frames)?;
        }
        None
    }

    /// Takes back one frame.
    pub fn free_frame(&mut self, frame: Frame) -> Result<(), FrameError> {
        self.free_run(frame, 0)
    }

    /// Takes back 2^`order` frames from `start` on; they need not have come as one run. On an error, which is counted,
    /// none is taken.
    pub fn free_run(&mut self, start: Frame, order: u32) -> Result<(), FrameError> {
        let run = self.given_out(start, order).inspect_err(|_| self.refused += 1)?;
        for index in run.rev() {
            self.give(index);
        }
        Ok(())
    }

    /// The indexes of 2^`order` frames from `start`, if all of them are given out.
    fn given_out(&self, start: Frame, order: u32) -> Result<core::ops::Range<u32>, FrameError> {
        let foreign = FrameError::Foreign(start);
        let frames = 1u64.checked_shl(order).ok_or(foreign)?;
        let first = start.number().checked_sub(self.first.number()).ok_or(foreign)?;
        let end = first
            .checked_add(frames)
            .filter(|end| *end <= self.total_frames())
            .ok_or(foreign)?;
        for index in first..end {
            if self.links[index as usize].next != ALLOCATED {
                return Err(FrameError::FreedTwice(self.frame(index as u32)));
            }
        }
        Ok(first as u32..end as u32)
    }

    fn frame(&self, index: u32) -> Frame {
        Frame::containing(Spa(self.first.start().0 + u64::from(index) * FRAME_SIZE))
    }

    /// Unchains a free frame.
    fn take(&mut self, index: u32) {
        let Link { next, previous } = self.links[index as usize];
        match self.links.get_mut(previous as usize) {
            Some(link) => link.next = next,
            None => self.head = next,
        }
        if let Some(link) = self.links.get_mut(next as usize) {
            link.previous = previous;
        }
        self.links[index as usize] = Link {
            next: ALLOCATED,
            previous: ALLOCATED,
        };
        self.free -= 1;
    }

    /// Chains a frame in before all others.
    fn give(&mut self, index: u32) {
        self.links[index as usize] = Link {
            next: self.head,
            previous: NONE,
        };
        if let Some(link) = self.links.get_mut(self.head as usize) {
            link.previous = index;
        }
        self.head = index;
        self.free += 1;
    }

    /// Zeroes `frames` frames that were just taken, and returns the first.
    fn zeroed(&self, index: u32, frames: u64) -> Frame {
        let frame = self.frame(index);
        // SAFETY: the frames lie in the range that `new` was given, behind the table, and are nobody's yet.
        unsafe { ptr::write_bytes(frame.start().0 as *mut u8, 0, (frames * FRAME_SIZE) as usize) };
        frame
    }
}

// SAFETY: `allocate` zeroes the frame and marks it, and no frame that is marked is given out again; `new`'s caller
// vouches for the mapping.
unsafe impl FrameSource for FrameAllocator {
    fn allocate(&mut self) -> Option<Frame> {
        let index = self.head;
        if index == NONE {
            return None;
        }
        self.take(index);
        Some(self.zeroed(index, 1))
    }

    fn free(&mut self, frame: Frame) {
        if let Err(error) = self.free_frame(frame) {
            log::error!("{error}");
            debug_assert!(false, "{error}");
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
