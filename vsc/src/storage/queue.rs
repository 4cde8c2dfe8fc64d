//! One channel: requests that wait for their completions. The host may complete in any order, twice, or what was never asked.

use super::error::StorageError;
use super::request::{Data, Ticket, Transaction};
use crate::bus::{Doorbell, Interrupt};
use crate::memory::Buffer;
use crate::wait::Waiting;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::fmt;
use core::future::poll_fn;
use core::sync::atomic::{AtomicU32, Ordering};
use core::task::{Context, Poll, Waker};
use spin::{Mutex, MutexGuard};
use vmbus::protocol::storage::{Operation, Packet};
use vmbus::ring::gpa::GpaRange;
use vmbus::ring::{self, PacketFlags, PacketType, RingError, Signal};
use zerocopy::{FromZeros, IntoBytes};

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
    /// What the host has answered, once it has.
    answer: Packet,
}

enum Progress {
    Free,
    Waiting(Option<Waker>),
    /// Nobody waits any more.
    Abandoned,
    /// The answer is in the slot.
    Answered,
    Failed(StorageError),
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
            answer: Packet::new_zeroed(),
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
    pub(super) const fn transact<'a>(&'a self, message: Packet, data: Option<Data<'a>>) -> Transaction<'a> {
        Transaction::new(self, message, data)
    }

    /// Sends a request as soon as there is a slot and room for it; its task is woken when it is completed.
    #[inline(always)]
    pub(super) fn submit(
        &self,
        context: &Context<'_>,
        message: &Packet,
        data: Option<Data<'_>>,
    ) -> Poll<Result<Ticket, StorageError>> {
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
                Poll::Ready(Ok(Ticket { index, generation }))
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

    /// Takes the result of a request if it has ended: what `read` makes of the answer. Its ticket is not to be used again then.
    #[inline(always)]
    pub(super) fn result<T>(
        &self,
        context: &Context<'_>,
        Ticket { index, generation }: Ticket,
        read: impl FnOnce(&Packet) -> T,
    ) -> Poll<Result<T, StorageError>> {
        let mut state = self.state.lock();
        let result = match state.slot(index, generation) {
            Some(slot) if matches!(slot.progress, Progress::Answered) => read(&slot.answer),
            _ => return Self::no_answer(state, context, Ticket { index, generation }),
        };
        let waiting = state.free(index);
        drop(state);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
        Poll::Ready(Ok(result))
    }

    /// The result of a request that has no answer, or has none yet.
    #[cold]
    fn no_answer<T>(
        mut state: MutexGuard<'_, State>,
        context: &Context<'_>,
        Ticket { index, generation }: Ticket,
    ) -> Poll<Result<T, StorageError>> {
        let error = match state.slot(index, generation).map(|slot| &mut slot.progress) {
            Some(Progress::Waiting(Some(known))) => {
                known.clone_from(context.waker());
                return Poll::Pending;
            }
            Some(Progress::Waiting(waker)) => {
                *waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            Some(Progress::Failed(error)) => *error,
            _ => return Poll::Ready(Err(StorageError::Protocol)),
        };
        let waiting = state.free(index);
        drop(state);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
        Poll::Ready(Err(error))
    }

    /// Nobody waits for a request any more.
    pub(super) fn abandon(&self, Ticket { index, generation }: Ticket) {
        let mut state = self.state.lock();
        let Some(slot) = state.slot(index, generation) else {
            return;
        };
        match slot.progress {
            Progress::Waiting(_) => slot.progress = Progress::Abandoned,
            Progress::Answered | Progress::Failed(_) => {
                let waiting = state.free(index);
                drop(state);
                if let Some(waiting) = waiting {
                    waiting.wake();
                }
            }
            Progress::Free | Progress::Abandoned => {}
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
            let mut notices = 0;
            let taken = state.take(&mut wakers, &mut notices);
            // Completions free slots, and an interrupt without any may be for room in the ring.
            let waiting = state.waiting.take_any();
            let more = match taken {
                Ok(_) => state.rings.incoming.unmask(),
                Err(_) => false,
            };
            drop(state);
            wakers.drain(..).for_each(Waker::wake);
            if let Some(waiting) = waiting {
                waiting.wake();
            }
            (0..notices).for_each(|_| self.notices.add());
            match taken {
                Ok(signal) if signal.is_needed() => self.doorbell.ring(),
                Ok(_) => {}
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
                slot.progress = Progress::Failed(error);
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

impl State {
    /// Writes the request of slot `index` to the ring.
    #[inline(always)]
    fn send(&mut self, index: u16, message: &Packet, data: Option<Data<'_>>) -> Result<Signal, StorageError> {
        let generation = self.slots[usize::from(index)].generation;
        let transaction = u64::from(generation) << 16 | u64::from(index + 1);
        let flags = PacketFlags::COMPLETION_REQUESTED;
        let mut batch = self.rings.outgoing.batch()?;
        match data {
            Some(data) => {
                let Data {
                    buffer,
                    offset,
                    length,
                } = data;
                if let Some((within, page)) = buffer.only_page(offset, length) {
                    let range = within as u32..(within + length) as u32;
                    batch.push_gpa_page(transaction, flags, page, range, message)?;
                } else {
                    let outside = |_| StorageError::OutOfRange;
                    let (within, pages) = buffer.pages(offset, length).map_err(outside)?;
                    let range = GpaRange {
                        byte_count: length as u32,
                        byte_offset: within as u32,
                        pages,
                    };
                    batch.push_gpa_direct(transaction, flags, &[range], message.as_bytes())?;
                }
            }
            None => batch.push_value(PacketType::IN_BAND, transaction, flags, message)?,
        }
        Ok(batch.commit())
    }

    /// Makes slot `index`, the last of the free ones, that of a request that was sent.
    #[inline(always)]
    fn begin(&mut self, index: u16, data: Option<Data<'_>>, waker: &Waker) -> u32 {
        self.free.pop();
        let slot = &mut self.slots[usize::from(index)];
        slot.progress = Progress::Waiting(Some(waker.clone()));
        slot.buffer = data.map(|data| data.buffer.clone());
        slot.generation
    }

    /// The slot `index`, if it is not that of a later request by now.
    #[inline(always)]
    fn slot(&mut self, index: u16, generation: u32) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(usize::from(index))?;
        (slot.generation == generation).then_some(slot)
    }

    /// Makes a slot free whose request has ended, and gives those who wait for one. Of a closed queue, the memory is kept until the
    /// queue goes.
    #[inline(always)]
    fn free(&mut self, index: u16) -> Option<Waiting> {
        if self.closed.is_none()
            && let Some(slot) = self.slots.get_mut(usize::from(index))
        {
            slot.release();
            self.free.push(index);
        }
        self.waiting.take_any()
    }

    /// Takes what has come, as far as it is not too much at once: the tasks to be woken, and how often the host has said that there are
    /// other units. Says whether the host is to be signalled.
    #[inline(always)]
    fn take(
        &mut self,
        wakers: &mut ArrayVec<Waker, AT_ONCE>,
        notices: &mut u32,
    ) -> Result<Signal, RingError> {
        let Self {
            rings, slots, free, ..
        } = self;
        let mut batch = rings.incoming.batch();
        for _ in 0..AT_ONCE {
            let Some(packet) = batch.next()? else {
                break;
            };
            match packet.kind() {
                PacketType::COMPLETION => {
                    // There is room for as many as are taken.
                    if let Some(waker) = complete(slots, free, &packet) {
                        let _ = wakers.try_push(waker);
                    }
                }
                PacketType::IN_BAND => *notices += u32::from(is_notice(&packet)),
                other => log::debug!("the host sends a packet of type {}", other.0),
            }
        }
        Ok(batch.finish())
    }
}

/// Whether the host says that there are other units.
fn is_notice(packet: &ring::Packet<'_>) -> bool {
    let operation = packet.read::<u32>(0).map(Operation);
    matches!(operation, Ok(Operation::ENUMERATE_BUS | Operation::REMOVE_DEVICE))
}

/// Ends the request that a completion is for, if there is one.
#[inline(always)]
fn complete(slots: &mut [Slot], free: &mut Vec<u16>, packet: &ring::Packet<'_>) -> Option<Waker> {
    let transaction = packet.transaction();
    let index = (transaction as u16).checked_sub(1)?;
    let slot = slots.get_mut(usize::from(index))?;
    if u64::from(slot.generation) != transaction >> 16 {
        return None;
    }
    let Progress::Waiting(waker) = &mut slot.progress else {
        if matches!(slot.progress, Progress::Abandoned) {
            slot.release();
            free.push(index);
        }
        return None;
    };
    let waker = waker.take();
    let copied = packet.copy_payload(0, slot.answer.as_mut_bytes());
    slot.progress = match copied.is_ok() && slot.answer.operation == Operation::COMPLETE_IO {
        true => Progress::Answered,
        false => Progress::Failed(StorageError::Protocol),
    };
    slot.buffer = None;
    waker
}

impl Slot {
    #[inline(always)]
    fn release(&mut self) {
        self.progress = Progress::Free;
        self.buffer = None;
        self.generation = self.generation.wrapping_add(1);
    }
}
