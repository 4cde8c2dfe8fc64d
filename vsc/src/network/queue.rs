//! One channel of a card: what comes is taken, what goes is put into the ring.

use super::arrived::Received;
use super::error::NetworkError;
use super::open::Settings;
use super::requests::{Question, Requests};
use super::slots::{NO_SLOT, SendBuffer, Slots};
use super::state::{Line, ReceiveBuffer, State};
use crate::bus::{Doorbell, Interrupt};
use crate::memory::Buffer;
use crate::wait::Waiting;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::future::poll_fn;
use core::sync::atomic::Ordering;
use core::task::{Context, Poll};
use spin::{Mutex, MutexGuard};
use vmbus::protocol::network::nvsp::{self, MessageType};
use vmbus::protocol::network::packet_info::Info;
use vmbus::protocol::network::rndis::PacketStart;
use vmbus::protocol::network::{ETHERNET_HEADER, rndis};
use vmbus::ring::{self, PacketFlags};
use zerocopy::{Immutable, IntoBytes};

/// Bytes of a frame at most: the largest IP packet, with a tagged header.
pub(super) const MAX_FRAME: usize = 0xffff + ETHERNET_HEADER + 4;
/// Bytes of what is written before a frame at most.
pub(super) const MAX_HEAD: usize = rndis::PACKET_HEADER + MAX_BESIDE * size_of::<Info>();
/// Values beside a frame at most.
pub(super) const MAX_BESIDE: usize = 3;

/// One channel of a card.
pub struct Queue {
    state: Mutex<State>,
    doorbell: Box<dyn Doorbell>,
    pub(super) line: Arc<Line>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl Queue {
    /// The queue over the rings of a card's first channel, which is open. `allocate` gives memory in pages of its own.
    pub fn first(
        rings: ring::Channel,
        doorbell: Box<dyn Doorbell>,
        settings: &Settings,
        allocate: &dyn Fn(usize) -> Option<Buffer>,
    ) -> Result<Arc<Self>, NetworkError> {
        Self::on_line(rings, doorbell, settings, allocate, Arc::default())
    }

    /// The same of a sub-channel of this card.
    pub(super) fn further(
        &self,
        rings: ring::Channel,
        doorbell: Box<dyn Doorbell>,
        settings: &Settings,
        allocate: &dyn Fn(usize) -> Option<Buffer>,
    ) -> Result<Arc<Self>, NetworkError> {
        Self::on_line(rings, doorbell, settings, allocate, self.line.clone())
    }

    fn on_line(
        rings: ring::Channel,
        doorbell: Box<dyn Doorbell>,
        settings: &Settings,
        allocate: &dyn Fn(usize) -> Option<Buffer>,
        line: Arc<Line>,
    ) -> Result<Arc<Self>, NetworkError> {
        // One at least, for requests.
        let large = (0..settings.large_sends.max(1)).map(|_| allocate(MAX_FRAME + MAX_HEAD).map(Arc::new));
        let large: Option<Vec<_>> = large.collect();
        let large = large.ok_or(NetworkError::NoMemory)?;
        Ok(Arc::new(Self::new(rings, doorbell, large, line)))
    }

    fn new(
        rings: ring::Channel,
        doorbell: Box<dyn Doorbell>,
        large: Vec<Arc<Buffer>>,
        line: Arc<Line>,
    ) -> Self {
        let state = State {
            rings,
            masked: false,
            slots: Slots::new(large),
            receive: None,
            arrived: VecDeque::new(),
            owed: Vec::new(),
            owed_parts: 0,
            requests: Requests::default(),
            waiting: Waiting::new(),
            wake: false,
            held: 0,
            ring: false,
            closed: None,
        };
        Self {
            state: Mutex::new(state),
            doorbell,
            line,
        }
    }

    /// Where the host puts what comes: `parts` of it may be owed.
    pub(super) fn set_receive_buffer(&self, buffer: Arc<Buffer>, parts: usize) {
        self.state.lock().receive = Some(ReceiveBuffer {
            buffer,
            most_owed: parts.max(1),
        });
    }

    pub(super) fn set_send_buffer(&self, small: SendBuffer) {
        self.state.lock().slots.add_small(small);
    }

    /// Bytes of the largest message that can be sent.
    pub(super) fn largest_message(&self) -> usize {
        self.state.lock().slots.largest()
    }

    /// Frames that were sent and not completed.
    pub(super) fn under_way(&self) -> usize {
        self.state.lock().slots.busy()
    }

    /// Lets the lock go, and then wakes and signals.
    #[inline]
    fn finish(&self, mut state: MutexGuard<'_, State>) {
        let waiting = core::mem::take(&mut state.wake).then(|| state.waiting.take());
        let ring = state.held == 0 && core::mem::take(&mut state.ring);
        drop(state);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
        if ring {
            self.doorbell.ring();
        }
    }

    /// Puts signals to the host off, until [`release`](Self::release) was called as often.
    pub(super) fn hold(&self) {
        self.state.lock().held += 1;
    }

    pub(super) fn release(&self) {
        let mut state = self.state.lock();
        state.held = state.held.saturating_sub(1);
        self.finish(state);
    }

    /// Sends a frame, with `start` before it.
    #[inline]
    pub(super) fn send(&self, frame: &[u8], start: &PacketStart) -> Result<(), NetworkError> {
        let mut state = self.state.lock();
        if state.slots.is_short(start.length() + frame.len()) {
            // Completions may have come that nobody has looked for.
            state.pump(&self.line);
        }
        let mut result = state.send_frame(start, frame);
        if matches!(result, Err(NetworkError::Full)) {
            result = state.send_again(start, frame, &self.line);
        }
        self.finish(state);
        result
    }

    /// Whether a frame of any size can be sent now.
    #[inline]
    pub(super) fn is_writable(&self) -> bool {
        let mut state = self.state.lock();
        let mut writable = state.is_writable();
        if !writable {
            state.pump(&self.line);
            writable = state.is_writable();
        }
        self.finish(state);
        writable
    }

    /// Waits until a frame of any size can be sent.
    pub(super) async fn writable(&self) -> Result<(), NetworkError> {
        self.until(|state| state.is_writable().then_some(())).await
    }

    pub(super) fn poll_writable(&self, context: &Context<'_>) -> Poll<Result<(), NetworkError>> {
        self.poll_until(context, |state| state.is_writable().then_some(()))
    }

    /// Copies the next frame to `into`.
    #[inline]
    pub(super) fn receive(&self, into: &mut [u8]) -> Result<Option<Received>, NetworkError> {
        let mut state = self.state.lock();
        let result = state.receive(into, &self.line);
        self.finish(state);
        result
    }

    /// Whether a packet has come; otherwise `context` is woken when something comes.
    pub(super) fn poll_readable(&self, context: &Context<'_>) -> Poll<Result<(), NetworkError>> {
        self.poll_until(context, |state| (!state.arrived.is_empty()).then_some(()))
    }

    /// Waits until the host has said more of the link than `seen` times; says how often.
    pub(super) async fn link_changed(&self, seen: u32) -> Result<u32, NetworkError> {
        let line = self.line.clone();
        self.until(|_| {
            let changes = line.changes.load(Ordering::Acquire);
            (changes != seen).then_some(changes)
        })
        .await
    }

    /// Sends an NVSP message, and waits for what completes it: type and body.
    pub(super) async fn ask(
        &self,
        message_type: MessageType,
        body: &(impl IntoBytes + Immutable),
    ) -> Result<Vec<u8>, NetworkError> {
        let message = nvsp::message(message_type, body);
        let question = poll_fn(|context| {
            self.try_send(context, |state| {
                let transaction = NO_SLOT | u64::from(state.requests.number());
                state.push(transaction, PacketFlags::COMPLETION_REQUESTED, &message, None)?;
                let question = Question::Nvsp(transaction);
                state.requests.asked(question);
                Ok(question)
            })
        })
        .await?;
        self.answer(question).await
    }

    /// Sends an NVSP message that has no answer.
    pub(super) async fn tell(
        &self,
        message_type: MessageType,
        body: &(impl IntoBytes + Immutable),
    ) -> Result<(), NetworkError> {
        let message = nvsp::message(message_type, body);
        poll_fn(|context| {
            self.try_send(context, |state| {
                state.push(NO_SLOT, PacketFlags::empty(), &message, None)
            })
        })
        .await
    }

    /// As [`tell`](Self::tell), if there is room now; otherwise nothing happens.
    pub(super) fn tell_now(&self, message_type: MessageType, body: &(impl IntoBytes + Immutable)) {
        let message = nvsp::message(message_type, body);
        let mut state = self.state.lock();
        // Nobody is there any more who could do anything about it.
        let _ = state.push(NO_SLOT, PacketFlags::empty(), &message, None);
        self.finish(state);
    }

    /// Sends the RNDIS message that `message` makes of a request's number, and waits for its answer of type `answer`: its body.
    pub(super) async fn request(
        &self,
        answer: rndis::MessageType,
        message: impl Fn(u32) -> Option<rndis::Message>,
    ) -> Result<Vec<u8>, NetworkError> {
        let question = poll_fn(|context| {
            self.try_send(context, |state| {
                let number = state.requests.number();
                let message = message(number).ok_or(NetworkError::Protocol)?;
                state.send_control(message.as_bytes())?;
                let question = Question::Rndis(number, answer);
                state.requests.asked(question);
                Ok(question)
            })
        })
        .await?;
        self.answer(question).await
    }

    async fn answer(&self, question: Question) -> Result<Vec<u8>, NetworkError> {
        let _forgets = Forgets(self, question);
        self.until(|state| state.requests.take(question)).await
    }

    /// Has `send` send; again, once there is room.
    fn try_send<T>(
        &self,
        context: &Context<'_>,
        send: impl Fn(&mut State) -> Result<T, NetworkError>,
    ) -> Poll<Result<T, NetworkError>> {
        let mut state = self.state.lock();
        if let Some(error) = state.closed {
            return Poll::Ready(Err(error));
        }
        let mut result = match state.requests.has_room() {
            true => send(&mut state),
            false => Err(NetworkError::Busy),
        };
        if matches!(result, Err(NetworkError::Full)) {
            state.pump(&self.line);
            result = send(&mut state);
        }
        let poll = match result {
            Err(NetworkError::Full) => {
                state.waiting.add(context.waker());
                if state.room_came() {
                    state.wake = true;
                }
                Poll::Pending
            }
            result => Poll::Ready(result),
        };
        self.finish(state);
        poll
    }

    async fn until<T>(&self, mut check: impl FnMut(&mut State) -> Option<T>) -> Result<T, NetworkError> {
        poll_fn(|context| self.poll_until(context, &mut check)).await
    }

    /// Takes what has come, until `check` has an answer.
    fn poll_until<T>(
        &self,
        context: &Context<'_>,
        mut check: impl FnMut(&mut State) -> Option<T>,
    ) -> Poll<Result<T, NetworkError>> {
        let mut state = self.state.lock();
        let mut found = check(&mut state);
        let mut more = false;
        if found.is_none() {
            more = state.pump(&self.line);
            found = check(&mut state);
        }
        let poll = match (found, state.closed) {
            (Some(value), _) => Poll::Ready(Ok(value)),
            (None, Some(error)) => Poll::Ready(Err(error)),
            (None, None) => {
                state.waiting.add(context.waker());
                // Others are to have their turn, and then this goes on. The same if room has come that nobody would tell of.
                state.wake |= more || state.room_came();
                Poll::Pending
            }
        };
        self.finish(state);
        poll
    }

    fn close(&self, error: NetworkError) {
        let mut state = self.state.lock();
        state.closed.get_or_insert(error);
        state.wake = true;
        self.finish(state);
    }
}

/// Forgets a question that nobody waits for any more.
struct Forgets<'a>(&'a Queue, Question);

impl Drop for Forgets<'_> {
    fn drop(&mut self) {
        self.0.state.lock().requests.forget(self.1);
    }
}

impl Interrupt for Queue {
    fn interrupt(&self) -> bool {
        let mut state = self.state.lock();
        // Whoever is woken takes what has come, and unmasks when there is no more.
        state.rings.incoming.mask();
        state.masked = true;
        state.wake = true;
        self.finish(state);
        false
    }

    fn gone(&self) {
        self.close(NetworkError::Gone);
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let buffers = self.state.get_mut().slots.take_busy_memory();
        if !buffers.is_empty() {
            self.doorbell.keep(buffers);
        }
    }
}
