//! Both ends of a channel in ordinary memory, for tests, fuzzers and benchmarks.
#![allow(unsafe_code)]

use super::Channel;
use super::channel::{ChannelError, Rings};
use super::memory::PAGE;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::ptr::NonNull;

#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; PAGE]>);

struct Pages(Box<[Page]>);
// SAFETY: the pages are reached by `RingMemory` and by `Hand`, both of which allow for others that write.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

/// A channel with rings of `pages` data pages each: the guest's side, the host's, and a hand in their memory.
pub fn channel(pages: usize) -> Result<(Channel, Channel, Hand), ChannelError> {
    let ring = pages + 1;
    let memory: Vec<_> = (0..2 * ring).map(|_| Page(UnsafeCell::new([0; PAGE]))).collect();
    let memory = Arc::new(Pages(memory.into_boxed_slice()));
    let base = NonNull::from(&*memory.0).cast::<u8>();
    // SAFETY: the pages are aligned, live as long as their owner, and are behind cells.
    let [guest, host] = unsafe {
        [
            Rings::new(base, 2 * ring, ring, memory.clone())?,
            Rings::new(base, 2 * ring, ring, memory.clone())?,
        ]
    };
    let hand = Hand { memory, ring };
    Ok((Channel::guest(guest)?, Channel::host(host)?, hand))
}

/// A hand in the rings' memory, to do what an evil peer does.
#[derive(Clone)]
pub struct Hand {
    memory: Arc<Pages>,
    /// Pages of a ring.
    ring: usize,
}

/// Which ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// The one that the guest writes.
    FromGuest,
    /// The one that the host writes.
    FromHost,
}

impl Hand {
    /// Bytes of a ring, its control page included.
    pub const fn ring_size(&self) -> usize {
        self.ring * PAGE
    }

    /// Changes a byte of a ring; positions beyond its end begin anew.
    pub fn poke(&self, ring: Which, offset: usize, value: u8) {
        // SAFETY: the address is inside the pages; byte writes race with nothing that would mind.
        unsafe { self.byte(ring, offset).write_volatile(value) };
    }

    /// Reads a byte of a ring.
    pub fn peek(&self, ring: Which, offset: usize) -> u8 {
        // SAFETY: the address is inside the pages.
        unsafe { self.byte(ring, offset).read_volatile() }
    }

    /// Changes a word of a ring.
    pub fn poke_u32(&self, ring: Which, offset: usize, value: u32) {
        for (at, byte) in value.to_le_bytes().into_iter().enumerate() {
            self.poke(ring, offset + at, byte);
        }
    }

    fn byte(&self, ring: Which, offset: usize) -> *mut u8 {
        let start = match ring {
            Which::FromGuest => 0,
            Which::FromHost => self.ring_size(),
        };
        let at = start + offset % self.ring_size();
        let page = self
            .memory
            .0
            .get(at / PAGE)
            .map_or(core::ptr::null_mut(), |page| page.0.get());
        page.cast::<u8>().wrapping_add(at % PAGE)
    }
}
