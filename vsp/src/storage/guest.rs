//! The bus of a guest that has some pages from address 0 on: what tests and fuzzers serve a controller on.

use super::channel::Link;
use crate::buffer::{self, Buffer};
use alloc::sync::Arc;
use core::future::{Future, poll_fn};
use core::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use core::task::Poll;

/// Bytes of a page.
pub(super) const PAGE: usize = 4096;

/// The bus.
pub(super) struct Bus {
    /// The guest's memory.
    pub(super) ram: Arc<Buffer>,
    signalled: AtomicBool,
    /// Sub-channels that the host has offered.
    pub(super) sub_channels: AtomicU16,
}

impl Bus {
    /// That of a guest with so many pages.
    pub(super) fn new(pages: usize) -> Self {
        Self {
            ram: buffer::owned(pages * PAGE),
            signalled: AtomicBool::new(false),
            sub_channels: AtomicU16::new(0),
        }
    }

    /// The guest signals the host.
    pub(super) fn ring(&self) {
        self.signalled.store(true, Ordering::Relaxed);
    }
}

impl Link for Bus {
    fn wait(&self) -> impl Future<Output = ()> + Send {
        poll_fn(|_| match self.signalled.swap(false, Ordering::Relaxed) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
    }

    fn signal(&self) {}

    fn buffer(&self, pieces: impl IntoIterator<Item = (u64, usize)>) -> Option<Buffer> {
        let pieces = pieces.into_iter().map(|(gpa, length)| (gpa as usize, length));
        self.ram.parts(pieces)
    }

    fn offer_sub_channels(&self, count: u16) -> u16 {
        self.sub_channels.store(count, Ordering::Relaxed);
        count
    }
}
