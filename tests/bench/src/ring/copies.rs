//! Two copies of memory and nothing else: no ring can be faster.
#![allow(unsafe_code)]

use crate::contender::Contender;
use crate::ours;
use std::cell::UnsafeCell;
use std::sync::Arc;

pub(crate) struct Copies;

/// Memory that is gone through as a ring is, so that caches have the same work. Both ends share it; only one thread may have them.
pub(crate) struct Between {
    memory: Arc<Memory>,
    position: usize,
}

pub(crate) struct Memory(UnsafeCell<[u8; ours::SIZE]>);

// SAFETY: the benchmark of copies runs in one thread.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Between {
    /// Where the next message is.
    #[inline(always)]
    fn next<const SIZE: usize>(&mut self) -> *mut u8 {
        let start = self.position;
        self.position += SIZE + ours::AROUND;
        if self.position + SIZE > ours::SIZE {
            self.position = 0;
        }
        // SAFETY: `SIZE` bytes from there on are inside the memory.
        unsafe { self.memory.0.get().cast::<u8>().add(start) }
    }
}

impl Contender for Copies {
    type Writer = Between;
    type Reader = Between;

    fn new() -> (Between, Between) {
        let memory = Arc::new(Memory(UnsafeCell::new([0; ours::SIZE])));
        let end = |memory| Between { memory, position: 0 };
        (end(memory.clone()), end(memory))
    }

    #[inline(always)]
    fn write<const SIZE: usize, const COUNT: usize>(writer: &mut Between, from: &[u8; SIZE]) -> bool {
        for _ in 0..COUNT {
            // SAFETY: so many bytes are there, and nobody has a reference to them.
            unsafe {
                writer
                    .next::<SIZE>()
                    .copy_from_nonoverlapping(from.as_ptr(), SIZE)
            };
        }
        true
    }

    #[inline(always)]
    fn read<const SIZE: usize, const MOST: usize>(reader: &mut Between, into: &mut [u8; SIZE]) -> usize {
        // SAFETY: as in `write`.
        unsafe {
            reader
                .next::<SIZE>()
                .copy_to_nonoverlapping(into.as_mut_ptr(), SIZE)
        };
        1
    }
}
