//! The commands under way in a queue pair.
//!
//! A slot keeps the buffer that the device works on until the device has completed the command, or was stopped, whoever
//! still waits for it. A command's id holds its slot and a generation, so that a completion that comes twice, late or out
//! of nowhere names nothing.

use super::command::{Completion, Purpose, Status};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::task::{Poll, Waker};
use vsp::buffer::Buffer;
use vsp::storage::disk::DiskError;

/// Most slots: what is left of an id's 16 bits is the generation.
pub const MOST_SLOTS: u16 = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 6;
/// Generations go from 0 to below this, so that no id is all ones, which means something else.
const GENERATIONS: u16 = (1 << (16 - SLOT_BITS)) - 1;

/// Why a command was not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// The controller says so.
    #[error("{0:?}")]
    Refused(Status),
    /// The controller was reset under it.
    #[error("the controller was reset")]
    Reset,
    /// The controller has failed, or is gone.
    #[error("{0}")]
    Dead(DiskError),
}

impl Failure {
    /// The error that a disk's user sees.
    pub fn error(self, purpose: Purpose) -> DiskError {
        match self {
            Self::Refused(status) => status.error(purpose).unwrap_or(DiskError::Failed),
            Self::Reset => DiskError::Reset,
            Self::Dead(error) => error,
        }
    }
}

/// What a command returned, or why it was not done.
pub type Outcome = Result<u32, Failure>;

/// A command under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket(u16);

impl Ticket {
    /// The command's id.
    pub const fn id(self) -> u16 {
        self.0
    }

    /// Its slot.
    pub const fn slot(self) -> usize {
        (self.0 & (MOST_SLOTS - 1)) as usize
    }
}

/// What a slot lets go of when its command ends: to be woken and dropped outside of all locks.
pub struct Released {
    waker: Option<Waker>,
    _buffer: Option<Arc<Buffer>>,
}

impl Released {
    /// Wakes whoever waits for the command.
    pub fn wake(self) {
        if let Some(waker) = self.waker {
            waker.wake();
        }
    }
}

#[derive(Debug)]
enum State {
    Free,
    UnderWay,
    /// Under way, and nobody waits.
    Abandoned,
    /// Somebody will ask.
    Ended(Outcome),
}

struct Slot {
    generation: u16,
    state: State,
    /// When it was submitted, on the watchdog's clock.
    since: u32,
    abort_sent: bool,
    waker: Option<Waker>,
    buffer: Option<Arc<Buffer>>,
}

/// The slots of a queue pair.
pub struct Slots {
    slots: Vec<Slot>,
    free: Vec<u16>,
}

impl Slots {
    /// `count` free slots, at most [`MOST_SLOTS`].
    pub fn new(count: u16) -> Self {
        let count = count.min(MOST_SLOTS);
        let slot = |_| Slot {
            generation: 0,
            state: State::Free,
            since: 0,
            abort_sent: false,
            waker: None,
            buffer: None,
        };
        Self {
            slots: (0..count).map(slot).collect(),
            free: (0..count).rev().collect(),
        }
    }

    /// Whether a command can be submitted.
    pub fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// Takes a slot for a command that works on `buffer`.
    pub fn take(&mut self, buffer: Option<&Arc<Buffer>>, waker: &Waker, now: u32) -> Option<Ticket> {
        let index = self.free.pop()?;
        let slot = self.slots.get_mut(usize::from(index))?;
        slot.state = State::UnderWay;
        slot.since = now;
        slot.abort_sent = false;
        slot.waker = Some(waker.clone());
        slot.buffer = buffer.cloned();
        Some(Ticket(slot.generation << SLOT_BITS | index))
    }

    fn slot(&mut self, ticket: Ticket) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(ticket.slot())?;
        (slot.generation == ticket.0 >> SLOT_BITS).then_some(slot)
    }

    fn release(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.state = State::Free;
            slot.generation = (slot.generation + 1) % GENERATIONS;
            self.free.push(index as u16);
        }
    }

    /// Ends the command that a completion names; `None` where it names none.
    pub fn complete(&mut self, completion: &Completion) -> Option<Released> {
        let outcome = match completion.status.is_success() {
            true => Ok(completion.result),
            false => Err(Failure::Refused(completion.status)),
        };
        self.end(Ticket(completion.id), outcome)
    }

    fn end(&mut self, ticket: Ticket, outcome: Outcome) -> Option<Released> {
        let slot = self.slot(ticket)?;
        let abandoned = match slot.state {
            State::UnderWay => false,
            State::Abandoned => true,
            State::Free | State::Ended(_) => return None,
        };
        slot.state = State::Ended(outcome);
        let released = Released {
            waker: slot.waker.take(),
            _buffer: slot.buffer.take(),
        };
        if abandoned {
            self.release(ticket.slot());
        }
        Some(released)
    }

    /// Ends all commands: the controller has stopped, and works on nothing any more.
    pub fn end_all(&mut self, failure: Failure) -> Vec<Released> {
        let tickets: Vec<Ticket> = self.tickets().map(|(ticket, _)| ticket).collect();
        tickets
            .into_iter()
            .filter_map(|ticket| self.end(ticket, Err(failure)))
            .collect()
    }

    /// The commands under way.
    fn tickets(&self) -> impl Iterator<Item = (Ticket, &Slot)> {
        let under_way = |(_, slot): &(usize, &Slot)| matches!(slot.state, State::UnderWay | State::Abandoned);
        self.slots
            .iter()
            .enumerate()
            .filter(under_way)
            .map(|(index, slot)| (Ticket(slot.generation << SLOT_BITS | index as u16), slot))
    }

    /// How many commands are under way.
    pub fn under_way(&self) -> usize {
        self.tickets().count()
    }

    /// The command's outcome, once; its slot is free afterwards.
    pub fn poll(&mut self, ticket: Ticket, waker: &Waker) -> Poll<Outcome> {
        let Some(slot) = self.slot(ticket) else {
            return Poll::Ready(Err(Failure::Reset));
        };
        match slot.state {
            State::Ended(outcome) => {
                self.release(ticket.slot());
                Poll::Ready(outcome)
            }
            _ => {
                if !slot.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
                    slot.waker = Some(waker.clone());
                }
                Poll::Pending
            }
        }
    }

    /// Nobody waits for the command any more. Returns whether its slot is free now; if not, it will be when the command ends.
    pub fn abandon(&mut self, ticket: Ticket) -> bool {
        let Some(slot) = self.slot(ticket) else {
            return false;
        };
        match slot.state {
            State::Ended(_) => {
                self.release(ticket.slot());
                true
            }
            State::UnderWay => {
                slot.state = State::Abandoned;
                slot.waker = None;
                false
            }
            State::Free | State::Abandoned => false,
        }
    }

    /// A command that is older than `limit` at `now` and has not been given up, which it counts as from then on. `Err`
    /// where one was given up and has not ended within `patience`.
    pub fn overdue(&mut self, now: u32, limit: u32, patience: u32) -> Result<Option<Ticket>, Ticket> {
        let age = |slot: &Slot| now.wrapping_sub(slot.since);
        if let Some((ticket, _)) = self
            .tickets()
            .find(|(_, slot)| slot.abort_sent && age(slot) > patience)
        {
            return Err(ticket);
        }
        let late = self
            .tickets()
            .find(|(_, slot)| !slot.abort_sent && age(slot) > limit)
            .map(|(ticket, _)| ticket);
        if let Some(slot) = late.and_then(|ticket| self.slot(ticket)) {
            slot.abort_sent = true;
            slot.since = now;
        }
        Ok(late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use vsp::buffer::owned;

    fn completion(id: u16) -> Completion {
        Completion {
            result: 0,
            id,
            status: Status::SUCCESS,
        }
    }

    fn take(slots: &mut Slots) -> Option<Ticket> {
        slots.take(None, Waker::noop(), 0)
    }

    #[test]
    fn a_completion_counts_once_and_names_its_own_generation_only() {
        let mut slots = Slots::new(1);
        let first = take(&mut slots).unwrap();
        assert!(slots.complete(&completion(first.id())).is_some());
        assert!(slots.complete(&completion(first.id())).is_none());
        assert_eq!(slots.poll(first, Waker::noop()), Poll::Ready(Ok(0)));
        let second = take(&mut slots).unwrap();
        assert_ne!(first.id(), second.id());
        assert!(slots.complete(&completion(first.id())).is_none());
        assert_eq!(slots.poll(second, Waker::noop()), Poll::Pending);
    }

    #[test]
    fn a_buffer_is_kept_until_the_device_is_done_even_if_nobody_waits() {
        let mut slots = Slots::new(1);
        let buffer = owned(512);
        let ticket = slots.take(Some(&buffer), Waker::noop(), 0).unwrap();
        assert!(!slots.abandon(ticket));
        assert_eq!((Arc::strong_count(&buffer), slots.has_free()), (2, false));
        drop(slots.complete(&completion(ticket.id())));
        assert_eq!((Arc::strong_count(&buffer), slots.has_free()), (1, true));
    }

    #[test]
    fn a_reset_ends_every_command() {
        let mut slots = Slots::new(3);
        let (first, second) = (take(&mut slots).unwrap(), take(&mut slots).unwrap());
        slots.abandon(first);
        assert_eq!(slots.end_all(Failure::Reset).len(), 2);
        assert_eq!(
            slots.poll(second, Waker::noop()),
            Poll::Ready(Err(Failure::Reset))
        );
        assert_eq!((slots.under_way(), slots.free.len()), (0, 3));
    }

    #[test]
    fn a_late_command_is_named_once_and_complained_of_later() {
        let mut slots = Slots::new(2);
        let ticket = slots.take(None, Waker::noop(), u32::MAX - 5).unwrap();
        assert_eq!(slots.overdue(4, 10, 5), Ok(None));
        assert_eq!(slots.overdue(5, 10, 5), Ok(Some(ticket)));
        assert_eq!(slots.overdue(10, 10, 5), Ok(None));
        assert_eq!(slots.overdue(11, 10, 5), Err(ticket));
    }

    proptest! {
        /// Ids out of nowhere change nothing: as many slots are free or in use as were taken and given back.
        #[test]
        fn any_ids_from_the_device_leave_the_slots_in_order(
            count in 1u16..8, steps in proptest::collection::vec((0u8..4, any::<u16>()), 0..200),
        ) {
            let mut slots = Slots::new(count);
            let mut waiting: Vec<Ticket> = Vec::new();
            for (step, number) in steps {
                match step {
                    0 => waiting.extend(take(&mut slots)),
                    1 => drop(slots.complete(&completion(number % 512))),
                    2 if !waiting.is_empty() => {
                        let ticket = waiting[usize::from(number) % waiting.len()];
                        if slots.poll(ticket, Waker::noop()).is_ready() {
                            waiting.retain(|other| *other != ticket);
                        }
                    }
                    3 if !waiting.is_empty() => {
                        slots.abandon(waiting.swap_remove(usize::from(number) % waiting.len()));
                    }
                    _ => {}
                }
                let ids: BTreeSet<u16> = waiting.iter().map(|ticket| ticket.id()).collect();
                prop_assert_eq!(ids.len(), waiting.len());
                prop_assert!(slots.free.len() + waiting.len() <= usize::from(count));
                prop_assert!(ids.iter().all(|id| *id != u16::MAX));
            }
            drop(slots.end_all(Failure::Reset));
            waiting.into_iter().for_each(|ticket| { slots.abandon(ticket); });
            prop_assert_eq!(slots.free.len(), usize::from(count));
        }
    }
}
