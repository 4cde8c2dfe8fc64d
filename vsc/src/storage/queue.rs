//! One channel: requests that wait for their completions. The host may complete in any order, twice, or what was never asked.

use super::error::StorageError;
use crate::bus::{Doorbell, Interrupt};
use crate::memory::Buffer;
use crate::wait::Waiting;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::fmt;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::sync::atomic::{AtomicU32, Ordering};
use core::task::{Context, Poll, Waker, ready};
use spin::Mutex;
use vmbus::protocol::storage::{Operation, Packet};
use vmbus::ring::gpa::GpaRange;
use vmbus::ring::{self, PacketFlags, PacketType, RingError, Signal};
use zerocopy::IntoBytes;

/// Requests of one channel that may be under way.
const SLOTS: u16 = 256;
/// Completions that are taken under one lock.
const AT_ONCE: usize = 32;
/// Such rounds of one interrupt, so that a host that completes without end leaves time for others.
const ROUNDS: usize = 64;

/// What the host says of itself.
#[derive(Debug)]
pub(super) struct Notices {
    count: AtomicU32,
    waiting: Mutex<Waiting>,
}

impl Notices {
    pub(super) const fn new() -> Self {
        Self {
            count: AtomicU32::new(0),
            waiting: Mutex::new(Waiting::new()),
        }
    }

    fn add(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
        let waiting = self.waiting.lock().take();
        waiting.wake();
    }

    /// Waits until there are others than `seen`, or the queue is closed.
    async fn changed(
        &self,
        seen: u32,
        closed: impl Fn() -> Option<StorageError>,
    ) -> Result<u32, StorageError> {
        poll_fn(|context| {
            let mut waiting = self.waiting.lock();
            let count = self.count.load(Ordering::Acquire);
            match closed() {
                _ if count != seen => Poll::Ready(Ok(count)),
                Some(error) => Poll::Ready(Err(error)),
                None => {
                    waiting.add(context.waker());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// One channel of a controller.
pub struct Queue {
    state: Mutex<State>,
    doorbell: Box<dyn Doorbell>,
    notices: Notices,
}

struct State {
    rings: ring::Channel,
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// Tasks that wait for a slot or for room in the ring.
    waiting: Waiting,
    closed: Option<StorageError>,
}

struct Slot {
    /// Tells a late completion from that of the slot's next request.
    generation: u32,
    progress: Progress,
    /// The memory that the host may use until it has completed.
    buffer: Option<Arc<Buffer>>,
}

enum Progress {
    Free,
    Waiting(Option<Waker>),
    /// Nobody waits any more.
    Abandoned,
    Done(Result<Packet, StorageError>),
}

/// The part of a buffer that a request is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Data<'a> {
    pub(super) buffer: &'a Arc<Buffer>,
    pub(super) offset: usize,
    pub(super) length: usize,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl Queue {
    /// A queue over the rings of an open channel.
    pub fn new(rings: ring::Channel, doorbell: Box<dyn Doorbell>) -> Self {
        let slot = |_| Slot {
            generation: 0,
            progress: Progress::Free,
            buffer: None,
        };
        let state = State {
            rings,
            slots: (0..SLOTS).map(slot).collect(),
            free: (0..SLOTS).rev().collect(),
            waiting: Waiting::new(),
            closed: None,
        };
        Self {
            state: Mutex::new(state),
            doorbell,
            notices: Notices::new(),
        }
    }

    /// Waits until the host has said that there are other units, more often than `seen` says; returns how often.
    pub(super) async fn changed(&self, seen: u32) -> Result<u32, StorageError> {
        self.notices.changed(seen, || self.state.lock().closed).await
    }

    /// Sends a request, once the future is polled, and waits for its completion.
    #[inline]
    pub(super) const fn transact<'a>(&'a self, message: Packet, data: Option<Data<'a>>) -> Transaction<'a> {
        Transaction {
            queue: self,
            message,
            data,
            ticket: None,
        }
    }

    /// Sends a request as soon as there is a slot and room for it; its task is woken when it is completed.
    #[inline]
    fn submit(
        &self,
        context: &Context<'_>,
        message: &Packet,
        data: Option<Data<'_>>,
    ) -> Poll<Result<Ticket<'_>, StorageError>> {
        let mut state = self.state.lock();
        if let Some(error) = state.closed {
            return Poll::Ready(Err(error));
        }
        let Some(&index) = state.free.last() else {
            state.waiting.add(context.waker());
            return Poll::Pending;
        };
        match state.send(index, message, data) {
            Ok(signal) => {
                let generation = state.begin(index, data, context.waker());
                drop(state);
                if signal.is_needed() {
                    self.doorbell.ring();
                }
                Poll::Ready(Ok(Ticket {
                    queue: self,
                    index,
                    generation,
                    ended: false,
                }))
            }
            Err(StorageError::Ring(RingError::Full { needed })) => {
                state.waiting.add(context.waker());
                let room = state.rings.outgoing.request_space(needed);
                drop(state);
                match room {
                    // Room came meanwhile, and nobody will say so.
                    Ok(true) => context.waker().wake_by_ref(),
                    Ok(false) => {}
                    Err(error) => return Poll::Ready(Err(error.into())),
                }
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Takes what has come, as far as it is not too much at once; returns whether there is more.
    fn take_all(&self) -> bool {
        for _ in 0..ROUNDS {
            let mut wakers = ArrayVec::<_, AT_ONCE>::new();
            let mut state = self.state.lock();
            if state.closed.is_some() {
                return false;
            }
            state.rings.incoming.mask();
            let taken = state.take(&mut wakers);
            // Completions free slots, and an interrupt without any may be for room in the ring.
            let waiting = state.waiting.take();
            let more = match taken {
                Ok(_) => wakers.is_full() || state.rings.incoming.unmask(),
                Err(_) => false,
            };
            drop(state);
            wakers.drain(..).for_each(Waker::wake);
            waiting.wake();
            match taken {
                Ok(Taken { signal, notices }) => {
                    if signal.is_needed() {
                        self.doorbell.ring();
                    }
                    (0..notices).for_each(|_| self.notices.add());
                }
                Err(error) => {
                    log::warn!("a storage channel is given up: {error}");
                    self.close(error.into());
                }
            }
            if !more {
                return false;
            }
        }
        true
    }

    fn close(&self, error: StorageError) {
        let mut state = self.state.lock();
        state.closed.get_or_insert(error);
        let mut waiting = state.waiting.take();
        for slot in &mut state.slots {
            if let Progress::Waiting(waker) = &mut slot.progress {
                // The host may use the memory as long as it has the channel.
                if let Some(waker) = waker.take() {
                    waiting.add(&waker);
                }
                slot.progress = Progress::Done(Err(error));
            }
        }
        drop(state);
        waiting.wake();
        self.notices.waiting.lock().take().wake();
    }
}

impl Interrupt for Queue {
    fn interrupt(&self) -> bool {
        self.take_all()
    }

    fn gone(&self) {
        self.close(StorageError::ControllerGone);
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let slots = core::mem::take(&mut self.state.get_mut().slots);
        let buffers: Vec<_> = slots.into_iter().filter_map(|slot| slot.buffer).collect();
        if !buffers.is_empty() {
            self.doorbell.keep(buffers);
        }
    }
}

struct Taken {
    signal: Signal,
    notices: u32,
}

impl State {
    /// Writes the request of slot `index` to the ring.
    #[inline]
    fn send(&mut self, index: u16, message: &Packet, data: Option<Data<'_>>) -> Result<Signal, StorageError> {
        let generation = self.slots[usize::from(index)].generation;
        let transaction = u64::from(generation) << 16 | u64::from(index + 1);
        let flags = PacketFlags::COMPLETION_REQUESTED;
        let mut batch = self.rings.outgoing.batch()?;
        match data {
            Some(data) => {
                let (offset, pages) = data
                    .buffer
                    .pages(data.offset, data.length)
                    .map_err(|_| StorageError::OutOfRange)?;
                let range = GpaRange {
                    byte_count: data.length as u32,
                    byte_offset: offset as u32,
                    pages,
                };
                batch.push_gpa_direct(transaction, flags, &[range], message.as_bytes())?;
            }
            None => batch.push(PacketType::IN_BAND, transaction, flags, &[message.as_bytes()])?,
        }
        Ok(batch.commit())
    }

    /// Makes slot `index`, the last of the free ones, that of a request that was sent.
    fn begin(&mut self, index: u16, data: Option<Data<'_>>, waker: &Waker) -> u32 {
        self.free.pop();
        let slot = &mut self.slots[usize::from(index)];
        slot.progress = Progress::Waiting(Some(waker.clone()));
        slot.buffer = data.map(|data| data.buffer.clone());
        slot.generation
    }

    /// Makes a slot free whose request has ended. Of a closed queue, the memory is kept until the queue goes.
    fn free(&mut self, index: u16) {
        if let Some(slot) = self
            .slots
            .get_mut(usize::from(index))
            .filter(|_| self.closed.is_none())
        {
            slot.release();
            self.free.push(index);
        }
    }

    fn take(&mut self, wakers: &mut ArrayVec<Waker, AT_ONCE>) -> Result<Taken, RingError> {
        let Self {
            rings, slots, free, ..
        } = self;
        let mut notices = 0;
        let mut batch = rings.incoming.batch();
        for _ in 0..AT_ONCE {
            let Some(packet) = batch.next()? else {
                break;
            };
            match packet.kind() {
                PacketType::COMPLETION => wakers.extend(complete(slots, free, &packet)),
                PacketType::IN_BAND => notices += u32::from(is_notice(&packet)),
                other => log::debug!("the host sends a packet of type {}", other.0),
            }
        }
        let signal = batch.finish();
        Ok(Taken { signal, notices })
    }
}

/// Whether the host says that there are other units.
fn is_notice(packet: &ring::Packet<'_>) -> bool {
    let operation = packet.read::<u32>(0).map(Operation);
    matches!(operation, Ok(Operation::ENUMERATE_BUS | Operation::REMOVE_DEVICE))
}

/// Ends the request that a completion is for, if there is one.
fn complete(slots: &mut [Slot], free: &mut Vec<u16>, packet: &ring::Packet<'_>) -> Option<Waker> {
    let transaction = packet.transaction();
    let index = (transaction as u16).checked_sub(1)?;
    let slot = slots.get_mut(usize::from(index))?;
    if u64::from(slot.generation) != transaction >> 16 {
        return None;
    }
    let waker = match &mut slot.progress {
        Progress::Waiting(waker) => waker.take(),
        Progress::Abandoned => {
            slot.release();
            free.push(index);
            return None;
        }
        Progress::Free | Progress::Done(_) => return None,
    };
    slot.progress = Progress::Done(match packet.read::<Packet>(0) {
        Ok(answer) if answer.operation == Operation::COMPLETE_IO => Ok(answer),
        _ => Err(StorageError::Protocol),
    });
    slot.buffer = None;
    waker
}

impl Slot {
    fn release(&mut self) {
        self.progress = Progress::Free;
        self.buffer = None;
        self.generation = self.generation.wrapping_add(1);
    }
}

/// A request and its completion. One future and no nest of them, as each read and write goes through it.
pub(super) struct Transaction<'a> {
    queue: &'a Queue,
    message: Packet,
    data: Option<Data<'a>>,
    /// Once it was sent.
    ticket: Option<Ticket<'a>>,
}

impl Future for Transaction<'_> {
    type Output = Result<Packet, StorageError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(ticket) = &mut self.ticket {
            return ticket.poll(context);
        }
        let ticket = ready!(self.queue.submit(context, &self.message, self.data))?;
        self.ticket = Some(ticket);
        // Whoever takes its completion finds the task's waker.
        Poll::Pending
    }
}

/// A request that was sent.
struct Ticket<'a> {
    queue: &'a Queue,
    index: u16,
    generation: u32,
    /// Its result was taken, and the slot is another's.
    ended: bool,
}

impl Ticket<'_> {
    #[inline]
    fn poll(&mut self, context: &Context<'_>) -> Poll<Result<Packet, StorageError>> {
        let mut state = self.queue.state.lock();
        let Some(slot) = state
            .slots
            .get_mut(usize::from(self.index))
            .filter(|slot| slot.generation == self.generation)
        else {
            // The result was taken already.
            return Poll::Ready(Err(StorageError::Protocol));
        };
        match &mut slot.progress {
            Progress::Done(result) => {
                let result = *result;
                self.ended = true;
                state.free(self.index);
                let waiting = state.waiting.take();
                drop(state);
                waiting.wake();
                Poll::Ready(result)
            }
            Progress::Waiting(waker) => {
                match waker {
                    Some(known) => known.clone_from(context.waker()),
                    None => *waker = Some(context.waker().clone()),
                }
                Poll::Pending
            }
            Progress::Free | Progress::Abandoned => Poll::Ready(Err(StorageError::Protocol)),
        }
    }
}

impl Drop for Ticket<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut state = self.queue.state.lock();
        let Some(slot) = state
            .slots
            .get_mut(usize::from(self.index))
            .filter(|slot| slot.generation == self.generation)
        else {
            return;
        };
        match slot.progress {
            Progress::Waiting(_) => slot.progress = Progress::Abandoned,
            Progress::Done(_) => {
                state.free(self.index);
                let waiting = state.waiting.take();
                drop(state);
                waiting.wake();
            }
            Progress::Free | Progress::Abandoned => {}
        }
    }
}
