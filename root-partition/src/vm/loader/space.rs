//! Where modules and tables go: as high as there is room below 4 GiB, so that the guest finds its low memory untouched.

use super::super::memory::{GuestMemory, LEGACY_HOLE};
use super::LoadError;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::ops::Range;
use hypercall_api::address::{Gpa, PAGE_SIZE};

/// The RAM below 4 GiB and above 1 MiB, and what is taken of it.
#[derive(Debug)]
pub struct Space<'m> {
    memory: &'m GuestMemory,
    ram: Range<u64>,
    taken: Vec<Range<u64>>,
}

impl<'m> Space<'m> {
    /// The space that `taken` leaves below `limit`.
    pub fn new(memory: &'m GuestMemory, taken: Vec<Range<u64>>, limit: u64) -> Self {
        let end = memory.ranges().first().map_or(0, |range| range.end);
        Self {
            memory,
            ram: LEGACY_HOLE.end..end.min(limit),
            taken,
        }
    }

    /// Copies `bytes` to whole pages of their own and returns their address. `what` names them in an error.
    pub fn place(&mut self, what: &str, bytes: &[u8]) -> Result<u64, LoadError> {
        let address = self.reserve(what, bytes.len() as u64)?;
        self.memory.write(Gpa(address), bytes)?;
        Ok(address)
    }

    /// Takes whole pages for `size` bytes.
    pub fn reserve(&mut self, what: &str, size: u64) -> Result<u64, LoadError> {
        let no_room = || LoadError::NoRoom {
            what: what.to_string(),
            size,
        };
        let pages = size
            .max(1)
            .checked_next_multiple_of(PAGE_SIZE)
            .ok_or_else(no_room)?;
        let mut end = self.ram.end & !(PAGE_SIZE - 1);
        loop {
            let start = end.checked_sub(pages).ok_or_else(no_room)?;
            if start < self.ram.start {
                return Err(no_room());
            }
            let obstacles = self
                .taken
                .iter()
                .filter(|taken| taken.start < end && start < taken.end);
            match obstacles.map(|taken| taken.start).min() {
                // Each round ends lower than the one before.
                Some(obstacle) => end = obstacle & !(PAGE_SIZE - 1),
                None => {
                    self.taken.push(start..end);
                    return Ok(start);
                }
            }
        }
    }
}

/// A text as C has it.
pub fn zero_terminated(text: &str) -> Vec<u8> {
    text.bytes().filter(|&byte| byte != 0).chain([0]).collect()
}
