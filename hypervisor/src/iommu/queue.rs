//! The invalidation queue: descriptors of 16 bytes in one frame, and behind it a word that the unit writes when it has come to
//! the end of a batch (VT-d, 6.5.2). Units read queues through the caches, whatever ECAP.C says.
#![allow(unsafe_code)]

use super::capability::Capability;
use super::unit::Invalidation;
use crate::memory::address::{FRAME_SIZE, Frame};
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};

/// Frames that a queue takes: the descriptors' and the word's.
pub const QUEUE_FRAMES: u64 = 2;
/// Descriptors that fit the frame.
const PLACES: usize = (FRAME_SIZE / 16) as usize;

/// A descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptor(pub [u64; 2]);

impl Descriptor {
    /// The descriptor for an invalidation, which drains what is under way where the unit can.
    pub fn new(what: Invalidation, capability: Capability) -> Self {
        const CONTEXT: u64 = 1;
        const IOTLB: u64 = 2;
        const INTERRUPT: u64 = 4;
        let (writes, reads) = capability.drains();
        let iotlb = IOTLB | u64::from(writes) << 6 | u64::from(reads) << 7;
        Self(match what {
            Invalidation::AllContexts => [CONTEXT | 1 << 4, 0],
            Invalidation::Context { domain, rid } => [
                CONTEXT | 3 << 4 | u64::from(domain) << 16 | u64::from(rid) << 32,
                0,
            ],
            Invalidation::AllTranslations => [iotlb | 1 << 4, 0],
            Invalidation::Domain(domain) => [iotlb | 2 << 4 | u64::from(domain) << 16, 0],
            Invalidation::Pages {
                domain,
                address,
                order,
            } => [
                iotlb | 3 << 4 | u64::from(domain) << 16,
                address | u64::from(order),
            ],
            Invalidation::AllInterrupts => [INTERRUPT, 0],
            Invalidation::Interrupt(index) => [INTERRUPT | 1 << 4 | u64::from(index) << 32, 0],
        })
    }

    /// Waits for all before it, and then has `value` written to the word at `address`.
    fn wait(address: u64, value: u32) -> Self {
        const WAIT: u64 = 5;
        const WRITE: u64 = 1 << 5;
        const FENCE: u64 = 1 << 6;
        Self([WAIT | WRITE | FENCE | u64::from(value) << 32, address])
    }
}

/// The queue of one unit. It is empty but while [`Unit::invalidate`](super::unit::Unit::invalidate) waits.
pub struct Queue {
    frame: Frame,
    tail: usize,
    /// Number of the last batch.
    number: u32,
}

impl Queue {
    /// Descriptors that may be pushed before [`push_wait`](Self::push_wait): a queue that is full would look empty.
    pub const BATCH: usize = PLACES - 2;

    /// A queue in [`QUEUE_FRAMES`] zeroed frames.
    ///
    /// # Safety
    /// The frames, from `frame` on, are the queue's alone and stay mapped.
    pub unsafe fn new(frame: Frame) -> Self {
        Self {
            frame,
            tail: 0,
            number: 0,
        }
    }

    /// The descriptors' frame.
    pub fn frame(&self) -> Frame {
        self.frame
    }

    fn place(&self, index: usize) -> *mut [u64; 2] {
        (self.frame.start().0 as *mut [u64; 2]).wrapping_add(index % PLACES)
    }

    /// Adds a descriptor.
    pub fn push(&mut self, descriptor: Descriptor) {
        // SAFETY: the place lies in the queue's own frame, and the unit does not read it before the tail has passed it.
        unsafe { ptr::write_volatile(self.place(self.tail), descriptor.0) };
        self.tail = (self.tail + 1) % PLACES;
    }

    /// The word that the unit writes.
    fn word(&self) -> &AtomicU32 {
        // SAFETY: the word is at the start of the second frame that `new` was given.
        unsafe { &*((self.frame.start().0 + FRAME_SIZE) as *const AtomicU32) }
    }

    /// Ends the batch. Returns what to write to the tail register.
    pub fn push_wait(&mut self) -> u64 {
        self.number = self.number.wrapping_add(1);
        self.push(Descriptor::wait(self.frame.start().0 + FRAME_SIZE, self.number));
        self.tail as u64 * 16
    }

    /// Whether the unit has come to the end of the last batch.
    pub fn is_answered(&self) -> bool {
        self.word().load(Ordering::Acquire) == self.number
    }
}
