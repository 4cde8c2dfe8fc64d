//! The memory of frames on their way to the host, a slot each: small ones in parts of the send buffer, large ones in pages of their own.
//! The host may complete in any order, twice, or what was never sent.

use super::error::NetworkError;
use crate::memory::Buffer;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

/// Set in the transaction of a message that has no slot.
pub(super) const NO_SLOT: u64 = 1 << 63;

/// The send buffer, as the host has divided it.
#[derive(Clone, Debug)]
pub(super) struct SendBuffer {
    pub(super) buffer: Arc<Buffer>,
    pub(super) part_size: usize,
    /// The parts that are this queue's.
    pub(super) parts: Range<u32>,
}

/// The slots of one channel.
#[derive(Debug)]
pub(super) struct Slots {
    large: Vec<Arc<Buffer>>,
    small: Option<SendBuffer>,
    slots: Vec<Slot>,
    free_large: Vec<u16>,
    free_small: Vec<u16>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Tells a late completion from that of the slot's next frame.
    generation: u32,
    busy: bool,
}

/// A slot for a small message, as it was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Small<'a> {
    /// The memory.
    pub(super) buffer: &'a Buffer,
    /// Where the message begins in it.
    pub(super) offset: usize,
    /// The part of the send buffer.
    pub(super) part: u32,
    /// The transaction of the message.
    pub(super) transaction: u64,
}

impl Slots {
    /// Slots for large messages only.
    pub(super) fn new(large: Vec<Arc<Buffer>>) -> Self {
        let count = large.len().min(usize::from(u16::MAX / 2)) as u16;
        Self {
            large,
            small: None,
            slots: (0..count).map(|_| Slot::default()).collect(),
            free_large: (0..count).rev().collect(),
            free_small: Vec::new(),
        }
    }

    /// Adds slots for small messages. To be called once.
    pub(super) fn add_small(&mut self, small: SendBuffer) {
        let first = self.slots.len() as u16;
        let count = small.parts.len().min(usize::from(u16::MAX / 2)) as u16;
        self.slots.extend((0..count).map(|_| Slot::default()));
        self.free_small = (first..first + count).rev().collect();
        self.small = Some(small);
    }

    /// Whether a message of `length` bytes is a small one, and finds no slot for such.
    #[inline]
    pub(super) fn is_short(&self, length: usize) -> bool {
        self.free_small.is_empty() && self.small.as_ref().is_some_and(|small| length <= small.part_size)
    }

    /// The slot for small messages that one of `length` bytes would take; `None` if it is none, or finds none.
    #[inline]
    pub(super) fn find_small(&self, length: usize) -> Option<Small<'_>> {
        let small = self.small.as_ref().filter(|small| length <= small.part_size)?;
        let index = *self.free_small.last()?;
        let number = usize::from(index).saturating_sub(self.large.len());
        let part = small.parts.start + number as u32;
        Some(Small {
            buffer: &small.buffer,
            offset: part as usize * small.part_size,
            part,
            transaction: self.transaction(index),
        })
    }

    /// The slot that a message of `length` bytes would take among those for large ones, and its memory.
    pub(super) fn find_large(&self, length: usize) -> Result<(u16, &Buffer), NetworkError> {
        if length > self.largest() {
            return Err(NetworkError::FrameSize(length));
        }
        let index = *self.free_large.last().ok_or(NetworkError::Full)?;
        let buffer = self.large.get(usize::from(index)).ok_or(NetworkError::Full)?;
        Ok((index, buffer))
    }

    /// Bytes of the largest message that there is a slot for.
    pub(super) fn largest(&self) -> usize {
        let small = self.small.as_ref().map_or(0, |small| small.part_size);
        self.large
            .iter()
            .map(|buffer| buffer.size())
            .max()
            .unwrap_or(0)
            .max(small)
    }

    /// Whether any message would find a slot.
    pub(super) fn has_room(&self) -> bool {
        !self.free_large.is_empty()
    }

    /// The transaction of the next message in slot `index`.
    pub(super) fn transaction(&self, index: u16) -> u64 {
        let generation = self
            .slots
            .get(usize::from(index))
            .map_or(0, |slot| slot.generation);
        u64::from(generation) << 16 | (u64::from(index) + 1)
    }

    /// Makes the slot that [`find_small`](Self::find_small) found that of a message that was sent.
    #[inline]
    pub(super) fn take_small(&mut self) {
        let index = self.free_small.pop();
        self.take(index);
    }

    /// The same of [`find_large`](Self::find_large).
    pub(super) fn take_large(&mut self) {
        let index = self.free_large.pop();
        self.take(index);
    }

    #[inline]
    fn take(&mut self, index: Option<u16>) {
        if let Some(slot) = index.and_then(|index| self.slots.get_mut(usize::from(index))) {
            slot.busy = true;
        }
    }

    /// Frees the slot of a message that was completed; `false` if none was.
    #[inline]
    pub(super) fn complete(&mut self, transaction: u64) -> bool {
        let Some(index) = (transaction as u16).checked_sub(1) else {
            return false;
        };
        let Some(slot) = self.slots.get_mut(usize::from(index)) else {
            return false;
        };
        if !slot.busy || u64::from(slot.generation) != transaction >> 16 {
            return false;
        }
        // Bit 63 is that of messages without a slot.
        slot.generation = (slot.generation + 1) & 0x7fff_ffff;
        slot.busy = false;
        match usize::from(index) < self.large.len() {
            true => self.free_large.push(index),
            false => self.free_small.push(index),
        }
        true
    }

    /// Messages that the host has not completed.
    pub(super) fn busy(&self) -> usize {
        self.slots.iter().filter(|slot| slot.busy).count()
    }

    /// The memory that the host may still use and that is not shared as a whole.
    pub(super) fn take_busy_memory(&mut self) -> Vec<Arc<Buffer>> {
        let busy = self.large.iter().zip(&self.slots).filter(|(_, slot)| slot.busy);
        busy.map(|(buffer, _)| buffer.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::of_heap;

    fn slots() -> Slots {
        let mut slots = Slots::new([1, 2].map(|_| Arc::new(of_heap(8192))).into());
        slots.add_small(SendBuffer {
            buffer: Arc::new(of_heap(3 * 1024)),
            part_size: 1024,
            parts: 1..3,
        });
        slots
    }

    #[test]
    fn a_slot_is_free_again_when_its_message_is_completed_and_only_then() {
        let mut slots = slots();
        let found = slots.find_small(1024).unwrap();
        assert_eq!((found.part, found.offset), (1, 1024));
        let transaction = found.transaction;
        slots.take_small();
        let next = slots.find_small(1024).unwrap();
        assert_eq!(next.part, 2);
        for wrong in [
            0,
            transaction + 1,
            transaction | 1 << 16,
            u64::MAX,
            NO_SLOT | transaction,
        ] {
            assert!(!slots.complete(wrong), "{wrong:#x}");
        }
        assert!(slots.complete(transaction) && !slots.complete(transaction));
        let again = slots.find_small(1024).unwrap();
        assert_eq!(again.part, 1);
        assert_ne!(again.transaction, transaction);
    }

    #[test]
    fn each_kind_of_message_has_slots_of_its_own_and_no_more() {
        let mut slots = slots();
        for part in [1, 2] {
            assert_eq!(slots.find_small(10).unwrap().part, part);
            slots.take_small();
        }
        assert!(slots.find_small(10).is_none() && slots.is_short(10));
        for _ in 0..2 {
            assert!(slots.has_room() && slots.find_large(10).is_ok());
            slots.take_large();
        }
        assert!(matches!(slots.find_large(10), Err(NetworkError::Full)));
        assert!(matches!(
            slots.find_large(9000),
            Err(NetworkError::FrameSize(9000))
        ));
        assert_eq!((slots.busy(), slots.take_busy_memory().len()), (4, 2));
    }
}
