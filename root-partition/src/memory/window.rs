//! Frames from anywhere, mapped in a row: how the root sees a child's rings and buffers as the child does.
#![allow(unsafe_code)]

use super::address_space;
use super::frames::{BLOCK_SIZE, FRAME_SIZE};
use super::paging::PagingError;
use alloc::collections::BTreeMap;
use core::ptr::NonNull;
use spin::Mutex;

/// Where windows are: above all that is mapped to itself.
const BASE: u64 = 96 << 40;
/// Blocks of 2 MiB for windows: 1 TiB.
const BLOCKS: u64 = 1 << 19;

static PLACES: Mutex<Places> = Mutex::new(Places(BTreeMap::new()));

/// Which blocks are in use: the first of each row, and how many.
#[derive(Default, Debug)]
struct Places(BTreeMap<u64, u64>);

impl Places {
    /// The lowest row of `count` blocks that is free.
    fn take(&mut self, count: u64) -> Option<u64> {
        let mut start = 0;
        for (used, length) in &self.0 {
            if used - start >= count {
                break;
            }
            start = used + length;
        }
        if count == 0 || BLOCKS - start < count {
            return None;
        }
        self.0.insert(start, count);
        Some(start)
    }

    fn give_back(&mut self, start: u64) {
        self.0.remove(&start);
    }
}

/// Frames in a row, until it is dropped.
#[derive(Debug)]
pub struct Window {
    block: u64,
    pages: usize,
}

impl Window {
    /// A window on `frames`, addresses of whole pages of RAM.
    pub fn new(frames: &[u64]) -> Result<Self, PagingError> {
        let pages = frames.len();
        // Behind the last page there is always one that is not mapped.
        let blocks = (pages as u64 * FRAME_SIZE) / BLOCK_SIZE + 1;
        let block = PLACES.lock().take(blocks).ok_or(PagingError::OutOfMemory)?;
        let window = Self { block, pages };
        match address_space::map_row(window.base(), frames) {
            Ok(()) => Ok(window),
            Err(error) => {
                PLACES.lock().give_back(block);
                core::mem::forget(window);
                Err(error)
            }
        }
    }

    const fn base(&self) -> u64 {
        BASE + self.block * BLOCK_SIZE
    }

    /// Its first byte.
    pub fn start(&self) -> NonNull<u8> {
        NonNull::new(self.base() as *mut u8).unwrap_or(NonNull::dangling())
    }

    /// Bytes.
    pub const fn size(&self) -> usize {
        self.pages * FRAME_SIZE as usize
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let base = self.base();
        // SAFETY: who uses the window's bytes keeps the window.
        unsafe { address_space::unmap_row(base..base + self.size() as u64) };
        PLACES.lock().give_back(self.block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_do_not_overlap_and_come_again() {
        let mut places = Places::default();
        let taken: Vec<_> = [2, 1, 3].map(|count| places.take(count).unwrap()).to_vec();
        assert_eq!(taken, [0, 2, 3]);
        places.give_back(2);
        assert_eq!(places.take(2), Some(6));
        assert_eq!(places.take(1), Some(2));
        assert_eq!(places.take(BLOCKS), None);
        assert_eq!(places.take(BLOCKS - 8), Some(8));
        assert_eq!(places.take(1), None);
    }
}
