//! A queue pair: rings, slots, and the requests that wait for a slot.

use super::command::{Command, Range};
use super::hardware::Hardware;
use super::prp::{self, LIST, Position};
use super::registers::Capabilities;
use super::rings::Rings;
use super::slots::{Failure, MOST_SLOTS, Outcome, Released, Slots, Ticket};
use crate::memory::dma::{DmaMemory, PAGE, device_address};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use core::task::{Context, Poll, Waker};
use spin::{Mutex, MutexGuard};
use vsp::buffer::Buffer;

/// Completions taken under one lock.
const BATCH: usize = 16;
/// Lists in one piece of memory.
const LISTS_A_PIECE: usize = (64 << 10) / LIST;

/// What a command reads or writes.
#[derive(Clone, Copy)]
pub enum Data<'a> {
    /// Nothing.
    None,
    /// `length` bytes of a buffer, which the device can reach as they lie.
    Buffer {
        /// The buffer, kept until the device is done.
        buffer: &'a Arc<Buffer>,
        /// Where in it.
        start: Position,
        /// Bytes.
        length: usize,
    },
    /// One range of sectors, of dataset management.
    Range(Range),
}

/// Whether commands are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gate {
    /// They wait: the controller is not ready.
    Closed,
    /// They are submitted.
    Open,
    /// They fail: the controller does not come back.
    Dead(Failure),
}

struct State {
    rings: Rings,
    slots: Slots,
    gate: Gate,
    /// Requests that wait for a slot, or for the gate: their numbers and wakers.
    waiting: VecDeque<(u64, Waker)>,
    next_number: u64,
}

/// A submission queue and its completion queue.
pub struct Pair {
    /// Number of both queues; 0 is the admin pair.
    pub id: u16,
    submission_doorbell: u64,
    completion_doorbell: u64,
    /// For each slot room for a list of pages.
    lists: Vec<DmaMemory>,
    /// The watchdog's clock.
    clock: AtomicU32,
    /// Completions that named no command.
    strays: AtomicU64,
    state: Mutex<State>,
}

impl Pair {
    /// Pair `id` of `entries` entries, at least 2; `None` where memory is short. It takes nothing before it is
    /// [opened](Self::open).
    pub fn new(id: u16, entries: u16, capabilities: Capabilities) -> Option<Self> {
        let entries = entries.max(2);
        // One entry stays empty, so that a full queue and an empty one differ.
        let slots = (entries - 1).min(MOST_SLOTS);
        let pieces = usize::from(slots).div_ceil(LISTS_A_PIECE);
        let (submission_doorbell, completion_doorbell) = capabilities.doorbells(id);
        Some(Self {
            id,
            submission_doorbell,
            completion_doorbell,
            lists: (0..pieces)
                .map(|_| DmaMemory::allocate(LISTS_A_PIECE.min(slots.into()) * LIST))
                .collect::<Option<_>>()?,
            clock: AtomicU32::new(0),
            strays: AtomicU64::new(0),
            state: Mutex::new(State {
                rings: Rings::new(entries)?,
                slots: Slots::new(slots),
                gate: Gate::Closed,
                waiting: VecDeque::new(),
                next_number: 0,
            }),
        })
    }

    /// Entries of each queue, and the addresses of the submission and of the completion queue.
    pub fn layout(&self) -> (u16, u64, u64) {
        let state = self.state.lock();
        let (submission, completion) = state.rings.addresses();
        (state.rings.entries(), submission, completion)
    }

    /// Takes commands from now on: the controller knows the queues, which are empty.
    pub fn open(&self) {
        let waiting = {
            let mut state = self.state.lock();
            state.gate = Gate::Open;
            core::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Takes no more commands; new ones wait. Those under way go on.
    pub fn close(&self) {
        self.state.lock().gate = Gate::Closed;
    }

    /// Ends all commands under way and empties the queues. To be called only when the controller has stopped, so that it
    /// reaches no memory any more. With a `failure` that lasts, commands that come later fail too.
    pub fn abandon_all(&self, failure: Failure) {
        let (released, waiting) = {
            let mut state = self.state.lock();
            state.rings.reset();
            let released = state.slots.end_all(failure);
            let waiting = match failure {
                Failure::Dead(_) => {
                    state.gate = Gate::Dead(failure);
                    core::mem::take(&mut state.waiting)
                }
                Failure::Reset | Failure::Refused(_) => VecDeque::new(),
            };
            (released, waiting)
        };
        released.into_iter().for_each(Released::wake);
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Takes all completions that are there, and wakes their requests. Returns how many there were.
    pub fn process<H: Hardware>(&self, hardware: &H) -> usize {
        let mut total = 0;
        // A device that writes completions for ever keeps nobody here: there are so many commands and no more.
        let rounds = usize::from(MOST_SLOTS) / BATCH + 1;
        for _ in 0..rounds {
            let mut ended = ArrayVec::<Released, BATCH>::new();
            let (taken, next) = {
                let mut state = self.state.lock();
                let taken = self.take_completions(hardware, &mut state, &mut ended);
                (taken, next_in_turn(&mut state))
            };
            ended.into_iter().for_each(Released::wake);
            if let Some(waker) = next {
                waker.wake();
            }
            total += taken;
            if taken < BATCH {
                break;
            }
        }
        total
    }

    fn take_completions<H: Hardware>(
        &self,
        hardware: &H,
        state: &mut State,
        ended: &mut ArrayVec<Released, BATCH>,
    ) -> usize {
        if state.gate == Gate::Closed && state.slots.under_way() == 0 {
            return 0;
        }
        let mut taken = 0;
        while taken < BATCH
            && let Some(completion) = state.rings.complete()
        {
            taken += 1;
            match state.slots.complete(&completion) {
                Some(released) => ended.push(released),
                None => self.stray(completion.id),
            }
        }
        if taken > 0 {
            hardware.write(self.completion_doorbell, state.rings.head().into());
        }
        taken
    }

    /// A completion that names no command: the first few are told of.
    fn stray(&self, id: u16) {
        if self.strays.fetch_add(1, Ordering::Relaxed) < 4 {
            log::warn!(
                "NVMe queue {}: a completion of command {id:#x}, which there is not",
                self.id
            );
        }
    }

    /// Completions that named no command.
    pub fn strays(&self) -> u64 {
        self.strays.load(Ordering::Relaxed)
    }

    /// How many commands are under way.
    pub fn under_way(&self) -> usize {
        self.state.lock().slots.under_way()
    }

    /// Sets the clock by which commands grow old.
    pub fn set_clock(&self, now: u32) {
        self.clock.store(now, Ordering::Relaxed);
    }

    /// See [`Slots::overdue`].
    pub fn overdue(&self, now: u32, limit: u32, patience: u32) -> Result<Option<Ticket>, Ticket> {
        self.state.lock().slots.overdue(now, limit, patience)
    }

    /// A command, submitted when the request is first polled and there is room. Its id and pointers are filled in.
    pub fn request<'a, H: Hardware>(
        &'a self,
        hardware: &'a H,
        command: Command,
        data: Data<'a>,
    ) -> Request<'a, H> {
        Request {
            pair: self,
            hardware,
            command,
            data,
            stage: Stage::New,
        }
    }

    /// Memory and offset of the list of `slot`.
    fn list(&self, slot: usize) -> Option<(&DmaMemory, usize)> {
        let memory = self.lists.get(slot / LISTS_A_PIECE)?;
        Some((memory, slot % LISTS_A_PIECE * LIST))
    }

    fn submit<H: Hardware>(
        &self,
        hardware: &H,
        state: &mut State,
        command: &Command,
        data: Data<'_>,
        waker: &Waker,
    ) -> Option<Ticket> {
        let buffer = match data {
            Data::Buffer { buffer, .. } => Some(buffer),
            Data::None | Data::Range(_) => None,
        };
        let ticket = state
            .slots
            .take(buffer, waker, self.clock.load(Ordering::Relaxed))?;
        let mut command = *command;
        command.id = ticket.id();
        let (list, offset) = self.list(ticket.slot())?;
        match data {
            Data::None => {}
            Data::Buffer {
                buffer,
                start,
                length,
            } => {
                let pointers = match single_page(buffer, start, length) {
                    Some(address) => (address, 0),
                    None => prp::write(buffer.segments(), start, length, list, offset),
                };
                (command.prp1, command.prp2) = pointers;
            }
            Data::Range(range) => {
                list.write_u64(
                    offset,
                    u64::from(range.sectors) << 32 | u64::from(range.attributes),
                );
                list.write_u64(offset + 8, range.first);
                command.prp1 = list.address(offset);
            }
        }
        let tail = state.rings.submit(&command);
        hardware.write(self.submission_doorbell, tail.into());
        Some(ticket)
    }
}

/// The commonest case: all of it in the page that a buffer's one segment begins in.
fn single_page(buffer: &Buffer, start: Position, length: usize) -> Option<u64> {
    match buffer.segments() {
        [segment] if start == Position::default() => {
            let address = device_address(segment.physical());
            (address as usize % PAGE + length <= PAGE).then_some(address)
        }
        _ => None,
    }
}

#[derive(Clone, Copy)]
enum Stage {
    New,
    Waiting(u64),
    UnderWay(Ticket),
    Done,
}

/// A command, as a future. Dropping it gives up the outcome, not the command.
pub struct Request<'a, H: Hardware> {
    pair: &'a Pair,
    hardware: &'a H,
    command: Command,
    data: Data<'a>,
    stage: Stage,
}

impl<H: Hardware> Future for Request<'_, H> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let pair = self.pair;
        let mut state = pair.state.lock();
        match self.stage {
            Stage::UnderWay(ticket) => {
                let outcome = state.slots.poll(ticket, context.waker());
                if outcome.is_ready() {
                    self.stage = Stage::Done;
                    wake_next(state);
                }
                return outcome;
            }
            Stage::Done => return Poll::Ready(Err(Failure::Reset)),
            Stage::New | Stage::Waiting(_) => {}
        }
        match state.gate {
            Gate::Dead(failure) => {
                self.leave(&mut state);
                self.stage = Stage::Done;
                return Poll::Ready(Err(failure));
            }
            Gate::Open if state.slots.has_free() => {
                self.leave(&mut state);
                let submitted = pair.submit(
                    self.hardware,
                    &mut state,
                    &self.command,
                    self.data,
                    context.waker(),
                );
                if let Some(ticket) = submitted {
                    self.stage = Stage::UnderWay(ticket);
                    return Poll::Pending;
                }
            }
            Gate::Open | Gate::Closed => {}
        }
        self.wait(&mut state, context.waker());
        Poll::Pending
    }
}

impl<H: Hardware> Request<'_, H> {
    /// Waits for a slot: whoever has waited before keeps its turn.
    fn wait(&mut self, state: &mut State, waker: &Waker) {
        let known = match self.stage {
            Stage::Waiting(number) => Some(number),
            _ => None,
        };
        let entry = state
            .waiting
            .iter_mut()
            .find(|(number, _)| Some(*number) == known);
        match (entry, known) {
            (Some(entry), _) => entry.1.clone_from(waker),
            // It was woken, and somebody else was quicker.
            (None, Some(number)) => state.waiting.push_front((number, waker.clone())),
            (None, None) => {
                let number = state.next_number;
                state.next_number += 1;
                state.waiting.push_back((number, waker.clone()));
                self.stage = Stage::Waiting(number);
            }
        }
    }

    /// Waits no longer.
    fn leave(&self, state: &mut State) -> bool {
        let Stage::Waiting(mine) = self.stage else {
            return false;
        };
        let before = state.waiting.len();
        state.waiting.retain(|(number, _)| *number != mine);
        state.waiting.len() != before
    }
}

/// Who waits longest for a slot, if one is free.
fn next_in_turn(state: &mut State) -> Option<Waker> {
    if state.waiting.is_empty() || !state.slots.has_free() {
        return None;
    }
    state.waiting.pop_front().map(|(_, waker)| waker)
}

fn wake_next(mut state: MutexGuard<'_, State>) {
    let next = next_in_turn(&mut state);
    drop(state);
    if let Some(waker) = next {
        waker.wake();
    }
}

impl<H: Hardware> Drop for Request<'_, H> {
    fn drop(&mut self) {
        match self.stage {
            Stage::New | Stage::Done => {}
            Stage::Waiting(_) => {
                let mut state = self.pair.state.lock();
                if !self.leave(&mut state) {
                    // It was woken for a slot that it does not take.
                    wake_next(state);
                }
            }
            Stage::UnderWay(ticket) => {
                let mut state = self.pair.state.lock();
                if state.slots.abandon(ticket) {
                    wake_next(state);
                }
            }
        }
    }
}
