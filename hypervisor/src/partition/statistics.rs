//! What is counted of a VP.

use super::guest_memory;
use crate::memory::address::Frame;
use crate::virtualization::Exit;
use core::sync::atomic::{AtomicU64, Ordering};
use hypercall_api::counter::{COUNTERS, EXIT_BASE};

/// A VP's statistics page: counters that the VP's LP writes and the parent reads.
#[derive(Clone, Copy)]
pub struct Statistics {
    page: Frame,
    counters: &'static [AtomicU64; COUNTERS],
}

impl Statistics {
    /// Counters in `page`, which must be zeroed and stay the hypervisor's.
    pub fn new(page: Frame) -> Self {
        Self {
            page,
            counters: guest_memory::counters(page),
        }
    }

    /// The page.
    pub fn page(&self) -> Frame {
        self.page
    }

    /// Adds to a counter. Only the VP's own LP does, so this need not be one atomic operation.
    #[inline]
    pub fn add(&self, counter: usize, amount: u64) {
        let counter = &self.counters[counter];
        counter.store(
            counter.load(Ordering::Relaxed).wrapping_add(amount),
            Ordering::Relaxed,
        );
    }

    /// Sets a counter. Only the VP's own LP does.
    #[inline]
    pub fn set(&self, counter: usize, value: u64) {
        self.counters[counter].store(value, Ordering::Relaxed);
    }

    /// Counts an exit by its reason.
    #[inline]
    pub fn add_exit(&self, exit: Exit) {
        self.add(EXIT_BASE + exit.counter(), 1);
    }

    /// A counter's value.
    pub fn get(&self, counter: usize) -> u64 {
        self.counters[counter].load(Ordering::Relaxed)
    }
}
