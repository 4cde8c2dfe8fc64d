//! The last bytes that came out of a console, each with its position since the start.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Keeps the last `capacity` bytes.
#[derive(Debug)]
pub struct Ring {
    bytes: VecDeque<u8>,
    capacity: usize,
    /// Position behind the last byte.
    end: u64,
}

impl Ring {
    /// An empty ring.
    pub const fn new(capacity: usize) -> Self {
        Self {
            bytes: VecDeque::new(),
            capacity,
            end: 0,
        }
    }

    /// Adds a byte; the oldest goes where there is no room.
    pub fn push(&mut self, byte: u8) {
        if self.bytes.len() >= self.capacity {
            self.bytes.pop_front();
        }
        self.bytes.push_back(byte);
        self.end += 1;
    }

    /// Position behind the last byte.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Up to `most` bytes from `position` on, or from the oldest that is kept, and the position of the first of them.
    pub fn read(&self, position: u64, most: usize) -> (u64, Vec<u8>) {
        let start = self.end - self.bytes.len() as u64;
        let position = position.clamp(start, self.end);
        let skip = (position - start) as usize;
        (
            position,
            self.bytes.iter().skip(skip).take(most).copied().collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_are_kept_at_their_positions() {
        let mut ring = Ring::new(4);
        b"abcdef".iter().for_each(|&byte| ring.push(byte));
        assert_eq!(ring.end(), 6);
        assert_eq!(ring.read(0, 10), (2, b"cdef".to_vec()));
        assert_eq!(ring.read(4, 1), (4, b"e".to_vec()));
        assert_eq!(ring.read(9, 1), (6, Vec::new()));
    }
}
