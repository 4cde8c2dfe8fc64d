//! GPADLs in a row.
#![allow(unsafe_code)]

use super::calls::{BusCalls, Row};
use super::memory::{ChildMemory, User};
use crate::vm::signal::Signal;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vmbus::protocol::gpadl::{GpaRange, PAGE};
use vmbus::ring::channel::Rings;
use vmbus::ring::memory::BadSize;
use vsp::buffer::{Buffer, Segment};

/// Mappings that there are, of all machines.
static MAPPED: AtomicU64 = AtomicU64::new(0);

/// How many lists of guests' pages are mapped, of all machines.
pub fn count() -> u64 {
    MAPPED.load(Ordering::Relaxed)
}

/// A list of the guest's pages, mapped in a row as long as somebody has it. The guest may read and write them at any moment.
pub struct Mapping {
    row: Box<dyn Row>,
    _user: User,
    // Dropped last: nothing of it is left then.
    _end: End,
}

/// Tells that a mapping is no more.
struct End {
    ended: Arc<AtomicBool>,
    signal: Arc<Signal>,
}

impl Drop for End {
    fn drop(&mut self) {
        MAPPED.fetch_sub(1, Ordering::Relaxed);
        self.ended.store(true, Ordering::Release);
        self.signal.raise();
    }
}

impl Mapping {
    /// Maps `ranges` of `memory`, one behind the other. `signal` is raised when `ended` becomes true, which is when the mapping is
    /// no more.
    pub fn new(
        calls: &impl BusCalls,
        memory: &ChildMemory,
        ranges: &[GpaRange],
        ended: Arc<AtomicBool>,
        signal: Arc<Signal>,
    ) -> Option<Self> {
        let pages: Vec<u64> = ranges
            .iter()
            .flat_map(|range| range.pages.iter().copied())
            .collect();
        let user = memory.user();
        let row = calls.map_row(&memory.frames(&pages)?)?;
        MAPPED.fetch_add(1, Ordering::Relaxed);
        Some(Self {
            row,
            _user: user,
            _end: End { ended, signal },
        })
    }

    /// Its first byte.
    pub fn start(&self) -> NonNull<u8> {
        self.row.start()
    }

    /// Bytes, whole pages.
    pub fn size(&self) -> usize {
        self.row.size()
    }

    /// Whole pages.
    pub fn pages(&self) -> usize {
        self.size() / PAGE as usize
    }

    /// Its bytes as memory of requests, for copies only: a device would not find them in a row.
    pub fn buffer(self: &Arc<Self>) -> Arc<Buffer> {
        // SAFETY: all bytes of the row are readable and writable as long as the mapping lives, which is the buffer's owner. Nobody
        // makes references to them.
        let segment = unsafe { Segment::new(self.start(), u64::MAX, self.size()) };
        Arc::new(Buffer::new(alloc::vec![segment], self.clone()))
    }

    /// Its pages as the two rings of a channel, of which the one to the guest begins at page `downstream`.
    pub fn rings(self: &Arc<Self>, downstream: u32) -> Result<Rings, BadSize> {
        // SAFETY: the row is aligned to a page, and all its bytes are readable and writable as long as the mapping lives, which is
        // the rings' owner. Nobody makes references to them.
        unsafe { Rings::new(self.start(), self.pages(), downstream as usize, self.clone()) }
    }
}
