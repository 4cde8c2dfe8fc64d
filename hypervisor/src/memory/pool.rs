//! A partition's memory pool: the frames that its parent has deposited for it and that nothing uses now.
#![allow(unsafe_code)]

use super::address::{Frame, Spa};
use super::frames::FrameSource;
use hypercall_api::address::PAGE_SIZE;

/// Free frames, chained through their own first words. Deposited frames are in nobody's address space but the
/// hypervisor's.
#[derive(Default)]
pub struct Pool {
    head: Option<Frame>,
    free: u64,
}

impl Pool {
    /// An empty pool.
    pub const fn new() -> Self {
        Self { head: None, free: 0 }
    }

    /// Number of free frames.
    pub fn free_frames(&self) -> u64 {
        self.free
    }

    /// Adds a frame.
    ///
    /// # Safety
    /// The frame must be RAM that nobody else uses or can reach.
    pub unsafe fn deposit(&mut self, frame: Frame) {
        let next = self.head.map_or(0, |head| head.start().0);
        // SAFETY: the frame is ours now, mapped and aligned.
        unsafe { (frame.start().0 as *mut u64).write(next) };
        self.head = Some(frame);
        self.free += 1;
    }

    /// Takes back `count` frames from `first` on, as [`FrameSource::free`] does each.
    pub fn free_run(&mut self, first: Frame, count: u64) {
        let mut next = self.head.map_or(0, |head| head.start().0);
        let start = first.start().0;
        for address in (start..start + count * PAGE_SIZE).step_by(PAGE_SIZE as usize) {
            // SAFETY: as in `free`: the frames are ours, mapped and aligned.
            unsafe { (address as *mut u64).write(next) };
            next = address;
        }
        self.head = (next != 0).then(|| Frame::containing(Spa(next)));
        self.free += count;
    }

    /// Takes a frame out, zeroed: it leaves the hypervisor.
    pub fn withdraw(&mut self) -> Option<Frame> {
        let frame = self.head?;
        let start = frame.start().0;
        // SAFETY: free frames are the pool's own, and their first word is the chain's.
        let next = unsafe {
            let next = (start as *const u64).read();
            (start as *mut u8).write_bytes(0, PAGE_SIZE as usize);
            next
        };
        self.head = (next != 0).then(|| Frame::containing(Spa(next)));
        self.free -= 1;
        Some(frame)
    }
}

// SAFETY: `withdraw` gives zeroed frames that are in no chain any more, and frames come in only by `deposit` and `free`.
unsafe impl FrameSource for Pool {
    fn allocate(&mut self) -> Option<Frame> {
        self.withdraw()
    }

    fn free(&mut self, frame: Frame) {
        // SAFETY: `allocate` gave the frame, and nothing refers to it any more.
        unsafe { self.deposit(frame) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frames::tests::TestFrames;
    use super::*;

    #[test]
    fn frames_come_back_zeroed_and_none_twice() {
        let mut test = TestFrames::new(8);
        let mut pool = Pool::new();
        let frames: Vec<_> = core::iter::from_fn(|| test.allocator.allocate())
            .take(4)
            .collect();
        for &frame in &frames[..2] {
            // SAFETY: the frames are the test's own.
            unsafe { pool.deposit(frame) };
        }
        // The allocator of the test gives them one after the other.
        pool.free_run(frames[2], 2);
        assert_eq!(pool.free_frames(), 4);
        let mut back: Vec<_> = core::iter::from_fn(|| pool.withdraw()).collect();
        for frame in &back {
            // SAFETY: as above.
            let bytes = unsafe { core::slice::from_raw_parts(frame.start().0 as *const u8, 4096) };
            assert!(bytes.iter().all(|&byte| byte == 0));
        }
        back.sort_by_key(|frame| frame.start().0);
        let mut given = frames;
        given.sort_by_key(|frame| frame.start().0);
        assert_eq!(back, given);
        assert_eq!((pool.free_frames(), pool.withdraw()), (0, None));
    }
}
