//! The parts of a guest's receive buffer: free, or lent to the guest with packets until it completes the packet.

use crate::buffer::Buffer;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

/// Parts at most; a guest that shares more memory than that keeps the rest.
const MAX_PARTS: usize = 32 << 10;
/// No further part.
const END: u32 = u32::MAX;

/// What a part is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Use {
    Free,
    /// The first of a packet's parts.
    First,
    Further,
}

/// A part, and the next one of the same packet.
#[derive(Clone, Copy, Debug)]
struct Part {
    used: Use,
    next: u32,
}

impl Part {
    const FREE: Self = Self {
        used: Use::Free,
        next: END,
    };
}

/// The parts.
pub struct Pool {
    buffer: Arc<Buffer>,
    part_size: usize,
    free: Vec<u32>,
    parts: Vec<Part>,
}

/// A part that was taken for a packet, or the first of several.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct First {
    part: u32,
    part_size: usize,
}

impl First {
    /// The packet's transaction id; never zero.
    #[inline]
    pub const fn transaction(self) -> u64 {
        self.part as u64 + 1
    }

    /// Where it begins in the buffer.
    #[inline]
    pub const fn offset(self) -> usize {
        self.part as usize * self.part_size
    }
}

/// Parts that were taken for one packet, the first one first.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The first.
    pub first: First,
    further: Vec<u32>,
}

impl Lease {
    /// How many there are.
    pub fn parts(&self) -> usize {
        1 + self.further.len()
    }

    /// Where each part begins in the buffer.
    pub fn offsets(&self) -> impl Iterator<Item = usize> {
        let parts = core::iter::once(&self.first.part).chain(&self.further);
        parts.map(|&part| part as usize * self.first.part_size)
    }
}

impl Pool {
    /// The parts of `buffer`, of `part_size` bytes each. `None` if there is not even one.
    pub fn new(buffer: Arc<Buffer>, part_size: usize) -> Option<Self> {
        let count = buffer.size().checked_div(part_size)?.min(MAX_PARTS);
        (count > 0).then(|| Self {
            buffer,
            part_size,
            free: (0..count as u32).rev().collect(),
            parts: vec![Part::FREE; count],
        })
    }

    /// The memory.
    pub const fn buffer(&self) -> &Arc<Buffer> {
        &self.buffer
    }

    /// Bytes of a part.
    pub const fn part_size(&self) -> usize {
        self.part_size
    }

    /// Parts, free or not.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Parts that are free.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Takes one part for a packet; `None` if none is free.
    #[inline(always)]
    pub fn take_one(&mut self) -> Option<First> {
        let part = self.free.pop()?;
        self.set(part, Use::First, END);
        Some(First {
            part,
            part_size: self.part_size,
        })
    }

    /// Takes `count` parts for one packet; `None` if so many are not free.
    pub fn take(&mut self, count: usize) -> Option<Lease> {
        let left = self.free.len().checked_sub(count).filter(|_| count > 0)?;
        let further = self.free.split_off(left + 1);
        let first = self.take_one()?;
        let mut next = END;
        for &part in further.iter().rev() {
            self.set(part, Use::Further, next);
            next = part;
        }
        self.set(first.part, Use::First, next);
        Some(Lease { first, further })
    }

    /// As [`give_back`](Self::give_back), of several packets; returns how many were nothing that the guest had.
    pub fn give_all_back(&mut self, transactions: &[u64]) -> u64 {
        let refused = transactions
            .iter()
            .filter(|&&transaction| !self.give_back(transaction));
        refused.count() as u64
    }

    /// Takes the parts of the packet back that the guest has completed; `false` if it completed nothing that it had.
    #[inline]
    pub fn give_back(&mut self, transaction: u64) -> bool {
        let first = transaction
            .checked_sub(1)
            .and_then(|part| u32::try_from(part).ok());
        let Some(part) = first else { return false };
        let slot = self.parts.get_mut(part as usize);
        let Some(slot) = slot.filter(|slot| slot.used == Use::First) else {
            return false;
        };
        let mut next = core::mem::replace(slot, Part::FREE).next;
        self.free.push(part);
        // A chain is ours, not the guest's; it has an end.
        while next != END
            && let Some(slot) = self.parts.get_mut(next as usize)
        {
            self.free.push(next);
            next = core::mem::replace(slot, Part::FREE).next;
        }
        true
    }

    #[inline]
    fn set(&mut self, part: u32, used: Use, next: u32) {
        if let Some(slot) = self.parts.get_mut(part as usize) {
            *slot = Part { used, next };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer;
    use proptest::prelude::*;

    #[test]
    fn parts_are_lent_until_their_packet_is_completed_once() {
        let mut pool = Pool::new(buffer::owned(1000), 100).unwrap();
        let one = pool.take(1).unwrap();
        let four = pool.take(4).unwrap();
        assert_eq!(pool.free(), 5);
        assert!(pool.take(6).is_none());
        assert!(pool.give_back(four.first.transaction()));
        assert!(!pool.give_back(four.first.transaction()));
        assert_eq!(pool.free(), 9);
        for wrong in [0, 11, u64::MAX] {
            assert!(!pool.give_back(wrong));
        }
        assert!(pool.give_back(one.first.transaction()));
        assert_eq!(pool.free(), 10);
    }

    proptest! {
        #[test]
        fn no_part_is_lent_twice_whatever_is_completed(steps in prop::collection::vec((0..5usize, 0..12u64), 0..200)) {
            let mut pool = Pool::new(buffer::owned(1000), 100).unwrap();
            let mut lent: Vec<Lease> = Vec::new();
            for (count, transaction) in steps {
                if count > 0 {
                    lent.extend(pool.take(count));
                } else {
                    let had = lent.iter().position(|lease| lease.first.transaction() == transaction);
                    prop_assert_eq!(pool.give_back(transaction), had.is_some());
                    had.map(|index| lent.remove(index));
                }
                let mut offsets: Vec<_> = lent.iter().flat_map(Lease::offsets).collect();
                prop_assert_eq!(offsets.len() + pool.free(), 10);
                offsets.sort_unstable();
                offsets.dedup();
                prop_assert_eq!(offsets.len() + pool.free(), 10);
            }
        }
    }
}
