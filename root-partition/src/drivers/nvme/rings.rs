//! One submission and one completion queue in memory: positions, phase, doorbells (NVM Express Base 2.0, 3.3.1).
//!
//! The controller writes the completion queue, and is not trusted: an entry is copied once, and what it says of the
//! submission queue is not used. The submission queue cannot overflow, as there are never more commands under way than it
//! has room for.

use super::command::{COMMAND, COMPLETION, Command, Completion, Status};
use crate::memory::dma::DmaMemory;
use core::sync::atomic::{Ordering, fence};
use zerocopy::IntoBytes;

/// A queue pair's memory, and where both sides are in it.
#[derive(Debug)]
pub struct Rings {
    submission: DmaMemory,
    completion: DmaMemory,
    entries: u16,
    tail: u16,
    head: u16,
    /// What the phase bit of a new entry is.
    phase: bool,
}

impl Rings {
    /// Empty queues of `entries` entries, at least 2.
    pub fn new(entries: u16) -> Option<Self> {
        Some(Self {
            submission: DmaMemory::allocate(usize::from(entries) * COMMAND)?,
            completion: DmaMemory::allocate(usize::from(entries) * COMPLETION)?,
            entries,
            tail: 0,
            head: 0,
            phase: true,
        })
    }

    /// Empties the queues, for a controller that was reset.
    pub fn reset(&mut self) {
        self.completion.clear();
        self.submission.clear();
        (self.tail, self.head, self.phase) = (0, 0, true);
    }

    /// Entries of each queue.
    pub const fn entries(&self) -> u16 {
        self.entries
    }

    /// Addresses of the submission and of the completion queue, for the controller.
    pub fn addresses(&self) -> (u64, u64) {
        (self.submission.address(0), self.completion.address(0))
    }

    /// Puts a command into the submission queue; returns what the doorbell is to say.
    pub fn submit(&mut self, command: &Command) -> u16 {
        let at = usize::from(self.tail) * COMMAND;
        let (words, _) = command.as_bytes().as_chunks::<8>();
        for (index, word) in words.iter().enumerate() {
            self.submission
                .write_u64(at + 8 * index, u64::from_le_bytes(*word));
        }
        self.tail = self.following(self.tail);
        // The controller may look as soon as the doorbell is rung: all that was written before is in memory then.
        fence(Ordering::Release);
        self.tail
    }

    /// Takes the next completion, if there is one.
    pub fn complete(&mut self) -> Option<Completion> {
        let at = usize::from(self.head) * COMPLETION;
        let last = self.completion.read_u32(at + 12);
        if (last >> 16 & 1 != 0) != self.phase {
            return None;
        }
        // The controller writes the phase last, so the rest is read after it.
        fence(Ordering::Acquire);
        let result = self.completion.read_u32(at);
        self.head = self.following(self.head);
        self.phase ^= self.head == 0;
        Some(Completion {
            result,
            id: last as u16,
            status: Status((last >> 17) as u16),
        })
    }

    /// What the completion queue's doorbell is to say.
    pub const fn head(&self) -> u16 {
        self.head
    }

    const fn following(&self, index: u16) -> u16 {
        if index + 1 >= self.entries { 0 } else { index + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Writes a completion as a controller does.
    fn write(rings: &Rings, index: u16, id: u16, phase: bool) {
        let at = usize::from(index) * COMPLETION;
        rings
            .completion
            .write_u64(at + 8, u64::from(id) << 32 | u64::from(phase) << 48);
    }

    #[test]
    fn the_phase_turns_with_each_round() {
        let mut rings = Rings::new(3).unwrap();
        for round in 0..7u16 {
            for index in 0..3 {
                assert_eq!(rings.complete(), None);
                write(&rings, index, round * 3 + index, round % 2 == 0);
                let completion = rings.complete().unwrap();
                assert_eq!(
                    (completion.id, rings.head()),
                    (round * 3 + index, (index + 1) % 3)
                );
            }
        }
    }

    #[test]
    fn a_reset_forgets_completions_and_positions() {
        let mut rings = Rings::new(2).unwrap();
        rings.submit(&Command::flush(1));
        write(&rings, 0, 1, true);
        rings.reset();
        assert_eq!(
            (rings.complete(), rings.head(), rings.submit(&Command::flush(1))),
            (None, 0, 1)
        );
    }

    #[test]
    fn the_doorbell_wraps() {
        let mut rings = Rings::new(3).unwrap();
        let tails: Vec<u16> = (0..4).map(|_| rings.submit(&Command::flush(1))).collect();
        assert_eq!(tails, [1, 2, 0, 1]);
    }

    proptest! {
        /// Whatever a controller writes, taking completions ends, as phases run out, and positions stay inside.
        #[test]
        fn a_hostile_completion_queue_gives_at_most_two_rounds(
            entries in 2u16..20, words in proptest::collection::vec(any::<u64>(), 40),
        ) {
            let mut rings = Rings::new(entries).unwrap();
            for (index, word) in words.iter().take(usize::from(entries) * 2).enumerate() {
                rings.completion.write_u64(8 * index, *word);
            }
            let taken = core::iter::from_fn(|| rings.complete()).take(1000).count();
            prop_assert!(taken <= 2 * usize::from(entries));
            prop_assert!(rings.head() < entries);
        }
    }
}
