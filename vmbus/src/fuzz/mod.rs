//! Entries for fuzzers. Each takes the fuzzer's bytes; `tests/fuzz` has the table of all entries and the targets.
//!
//! | file | what it is |
//! |---|---|
//! | [`bus`] | both ends of the bus against a peer that sends what it likes |
//! | [`ring`] | both ends of a ring against a peer that writes to it at any moment |
//! | [`parsers`] | any bytes, against the parsers |

pub mod bus;
pub mod parsers;
pub mod ring;

use alloc::vec::Vec;

/// Bytes as a fuzzer gives them at first, always the same ones for a seed (xorshift): for tests that try an entry as it is.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| byte()).collect()
}

/// The bytes of a fuzzer, taken from the front; zeroes when they are used up.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of `data`.
    pub const fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// Whether they are used up.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    /// The next bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    /// The next four bytes.
    pub fn word(&mut self) -> u32 {
        u32::from_le_bytes(core::array::from_fn(|_| self.byte()))
    }

    /// A small number, so that what names something often names something that exists.
    pub fn small(&mut self, below: u32) -> u32 {
        u32::from(self.byte()) % below.max(1)
    }

    /// A place in something that has so many.
    pub fn index(&mut self, length: usize) -> usize {
        usize::from(self.byte()) % length.max(1)
    }
}
