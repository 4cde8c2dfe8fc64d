//! The card and its channels.

use super::control::{Control, MAX_LARGE_SEND};
use super::deliver::Receiving;
use super::link::Link;
use super::pool::Pool;
use super::queue::{Answer, Incoming, Queue};
use super::setup::{Change, Reply, SEND_PART, Setup};
use super::steer::Steering;
use super::transmit::Outgoing;
use super::wire::Wire;
use crate::buffer::Buffer;
use crate::switch::frame::HEADER_BYTES;
use crate::switch::port::PortId;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::cell::Cell;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use spin::{Mutex, MutexGuard};
use vmbus::protocol::network::nvsp::{self, MessageType, NO_PART, RndisChannel, Status};
use vmbus::protocol::network::rndis::{self, Message};
use vmbus::protocol::network::scale::MAX_CHANNELS;
use vmbus::protocol::network::{ETHERNET_HEADER, Mac};
use vmbus::ring::{self, Packet, PacketType, RingError};
use zerocopy::FromBytes;

/// Messages for the guest that wait for room, at most; a guest that asks without listening gets no more answers.
const MAX_WAITING: usize = 64;
/// Bytes of guest pages.
const PAGE: u64 = 4096;
/// Bytes of a message in guest pages at most.
const MAX_MESSAGE: usize = MAX_LARGE_SEND as usize + 8192;

/// How a card is made.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its address.
    pub address: Mac,
    /// What a person calls it.
    pub name: String,
    /// Channels at most.
    pub queues: u16,
}

/// How it goes on with a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Nothing is left to do: wait for the guest's signal.
    Idle,
    /// There is more to do.
    More,
    /// The port is over its cap: nothing is to be done before this tick.
    Until(u64),
    /// The channel is not open.
    Closed,
    /// The guest has broken the ring: the channel is of no more use.
    Broken(RingError),
}

/// What a card counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames from the guest.
    pub sent: AtomicU64,
    /// Frames to the guest.
    pub received: AtomicU64,
    /// Frames to the guest for which it had no room.
    pub no_room: AtomicU64,
    /// What made no sense: packets, completions, frames.
    pub refused: AtomicU64,
}

/// What frames of the guest need, as it was when the card's state was at `change`; so that not each of them takes the lock.
struct Sending {
    change: u32,
    plug: Option<(Arc<Wire>, PortId)>,
    send_buffer: Option<Arc<Buffer>>,
    /// The largest frame that is not to be cut; `None` if none is to be sent.
    largest: Option<usize>,
    /// When the port may send again, if not now.
    until: Cell<Option<u64>>,
}

/// Packets that a guest has completed in a row, and whose parts are given back together.
type Completed = ArrayVec<u64, 32>;

struct State {
    setup: Setup,
    steering: Steering,
    send_buffer: Option<Arc<Buffer>>,
    plug: Option<(Arc<Wire>, PortId)>,
    link_up: bool,
    /// Control messages that have not gone yet.
    messages: VecDeque<Message>,
}

/// A card.
pub struct Nic {
    settings: Settings,
    state: Mutex<State>,
    /// Changes of the state, counted: who has a copy of some of it can tell whether it is old.
    changes: AtomicU32,
    pub(super) pool: Mutex<Option<Pool>>,
    queues: Mutex<Vec<Option<Arc<Queue>>>>,
    /// What went through.
    pub counters: Counters,
}

impl Nic {
    /// A card without a cable.
    pub fn new(settings: Settings) -> Self {
        let setup = Setup::new(settings.address);
        let queues = settings.queues.clamp(1, MAX_CHANNELS);
        Self {
            settings: Settings { queues, ..settings },
            state: Mutex::new(State {
                setup,
                steering: Steering::new(),
                send_buffer: None,
                plug: None,
                link_up: true,
                messages: VecDeque::new(),
            }),
            changes: AtomicU32::new(0),
            pool: Mutex::new(None),
            queues: Mutex::new(Vec::new()),
            counters: Counters::default(),
        }
    }

    /// The address in use.
    pub fn address(&self) -> Mac {
        self.state.lock().setup.address
    }

    /// Whether the guest sees a link.
    pub fn has_link(&self) -> bool {
        self.state.lock().has_link()
    }

    /// Channels that the guest has opened.
    pub fn open_channels(&self) -> usize {
        self.queues.lock().iter().flatten().count()
    }

    /// Largest payload of a frame, as the guest has set it.
    pub fn mtu(&self) -> u32 {
        self.state.lock().setup.mtu
    }

    /// Channels at most.
    pub const fn max_queues(&self) -> u16 {
        self.settings.queues
    }

    /// Plugs the cable into a port, or pulls it. The guest is told.
    pub fn plug(&self, port: Option<(Arc<Wire>, PortId)>) {
        let mut state = self.state.lock();
        let before = state.has_link();
        state.plug = port;
        state.tell_link(before);
        self.changed(state);
        self.send_waiting();
    }

    /// Whether nothing is under way between the guest and its card: nothing waits in a ring, and no part of the receive buffer is lent.
    /// A guest that has broken a ring does not count.
    ///
    /// A card is to be taken off the bus in such a moment: Linux stops listening to a channel that is rescinded, and its driver then
    /// waits for ever for the completions that it has missed.
    pub fn is_quiet(&self) -> bool {
        let told = self.state.lock().messages.is_empty();
        let given_back = self
            .pool
            .lock()
            .as_ref()
            .is_none_or(|pool| pool.free() == pool.parts());
        let queues = self.queues.lock().clone();
        let mut queues = queues.iter().flatten();
        queues.all(|queue| queue.is_quiet().unwrap_or(true)) && told && given_back
    }

    /// Takes the link down, or up again. The guest is told.
    pub fn set_link(&self, up: bool) {
        let mut state = self.state.lock();
        let before = state.has_link();
        state.link_up = up;
        state.tell_link(before);
        drop(state);
        self.send_waiting();
    }

    /// A channel was opened: 0 is the first, others are sub-channels.
    pub fn open(&self, index: u16, rings: ring::Channel, link: Arc<dyn Link>) {
        if index == 0 {
            self.reset();
        }
        let queue = Queue::new(rings, link);
        let mut queues = self.queues.lock();
        let index = usize::from(index);
        if index < usize::from(self.settings.queues) {
            if queues.len() <= index {
                queues.resize_with(index + 1, || None);
            }
            if let Some(slot) = queues.get_mut(index) {
                *slot = Some(Arc::new(queue));
            }
        }
    }

    /// A channel was closed: nothing of it is used any more when this returns, but by a frame that is just being delivered.
    pub fn close(&self, index: u16) {
        let queue = self
            .queues
            .lock()
            .get_mut(usize::from(index))
            .and_then(Option::take);
        if index == 0 {
            self.reset();
        }
        drop(queue);
    }

    /// Forgets what was agreed, and lets go of the guest's memory.
    fn reset(&self) {
        let mut state = self.state.lock();
        state.setup = Setup::new(self.settings.address);
        state.steering = Steering::new();
        state.send_buffer = None;
        state.messages.clear();
        self.changed(state);
        let pool = self.pool.lock().take();
        drop(pool);
    }

    /// Lets the state go, and has those see that it was changed who have copies.
    fn changed(&self, state: MutexGuard<'_, State>) {
        self.changes.fetch_add(1, Ordering::Release);
        drop(state);
    }

    /// What frames of the guest need now.
    fn sending(&self, now: u64) -> Sending {
        let state = self.state.lock();
        let mtu = state.setup.mtu as usize;
        let sending = Sending {
            // Counted under the lock, so that it belongs to the rest.
            change: self.changes.load(Ordering::Acquire),
            plug: state.plug.clone(),
            send_buffer: state.send_buffer.clone(),
            largest: state.setup.initialized.then_some(mtu + ETHERNET_HEADER + 4),
            until: Cell::new(None),
        };
        drop(state);
        if let Some((wire, port)) = &sending.plug {
            sending.until.set(wire.admit(*port, 0, now).err());
        }
        sending
    }

    fn queue(&self, index: u16) -> Option<Arc<Queue>> {
        self.queues.lock().get(usize::from(index)).cloned().flatten()
    }

    /// How the guest takes a frame that begins with `head`, and on which channel.
    pub(super) fn receiving(&self, head: &[u8]) -> Option<(Receiving, Arc<Queue>)> {
        let state = self.state.lock();
        if !state.setup.initialized || !state.has_link() {
            return None;
        }
        let (index, hash) = state.steering.channel(head);
        let receiving = Receiving {
            filter: state.setup.filter,
            address: state.setup.address,
            offloads: state.setup.offloads,
            largest: state.setup.mtu as usize + ETHERNET_HEADER,
            hash,
        };
        drop(state);
        let queue = self.queue(index).or_else(|| self.queue(0))?;
        Some((receiving, queue))
    }

    /// Takes up to `budget` packets of a channel.
    pub fn process(&self, index: u16, budget: usize, now: u64) -> Progress {
        let Some(queue) = self.queue(index) else {
            return Progress::Closed;
        };
        let mut incoming = queue.incoming.lock();
        let incoming = &mut *incoming;
        match self.take(&queue, incoming, index, budget, now) {
            Ok(progress) => progress,
            Err(error) => Progress::Broken(error),
        }
    }

    fn take(
        &self,
        queue: &Queue,
        incoming: &mut Incoming,
        index: u16,
        budget: usize,
        now: u64,
    ) -> Result<Progress, RingError> {
        incoming.reader.mask();
        let mut progress = Progress::Idle;
        self.send_waiting();
        if queue.answer(&mut incoming.answers)? {
            let mut batch = incoming.reader.batch();
            let mut sending = self.sending(now);
            let mut completed = Completed::default();
            let mut taken = 0;
            loop {
                if taken == budget {
                    progress = Progress::More;
                    break;
                }
                if sending.change != self.changes.load(Ordering::Acquire) {
                    sending = self.sending(now);
                }
                if let Some(until) = sending.until.get() {
                    progress = Progress::Until(until);
                    break;
                }
                let Some(packet) = batch.next()? else {
                    break;
                };
                taken += 1;
                if packet.kind() == PacketType::COMPLETION {
                    if completed.is_full() {
                        self.give_all_back(&completed);
                        completed.clear();
                    }
                    completed.push(packet.transaction());
                    continue;
                }
                // Those parts are free for what this packet brings about.
                if !completed.is_empty() {
                    self.give_all_back(&completed);
                    completed.clear();
                }
                if let Some(answer) = self.packet(queue, &packet, index, &sending, now) {
                    incoming.answers.push_back((packet.transaction(), answer));
                }
            }
            if !completed.is_empty() {
                self.give_all_back(&completed);
            }
            if batch.finish().is_needed() {
                queue.link.signal();
            }
            queue.answer(&mut incoming.answers)?;
            self.send_waiting();
        }
        if progress == Progress::Idle && incoming.reader.unmask() && incoming.answers.is_empty() {
            progress = Progress::More;
        }
        Ok(progress)
    }

    /// Takes a packet, and returns what completes it.
    fn packet(
        &self,
        queue: &Queue,
        packet: &Packet<'_>,
        index: u16,
        sending: &Sending,
        now: u64,
    ) -> Option<Answer> {
        if let Ok(message) = packet.read::<nvsp::RndisMessage>(0)
            && message.message_type == MessageType::SEND_RNDIS_PACKET
        {
            let done = self.rndis(queue, packet, &message.packet, sending, now);
            let status = done.map_or(Status::INVALID_RNDIS_PACKET, |()| Status::SUCCESS);
            if done.is_none() {
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
            }
            return packet.wants_completion().then_some(Answer::Sent(status));
        }
        self.other(queue, packet, index)
    }

    /// Takes a packet that carries no RNDIS message.
    fn other(&self, queue: &Queue, packet: &Packet<'_>, index: u16) -> Option<Answer> {
        let mut bytes = [0; nvsp::MESSAGE_SIZE];
        let length = packet.copy_most(&mut bytes);
        let (message_type, body) = nvsp::split(bytes.get(..length)?)?;
        let answer = match message_type {
            // It is too short, or was another when its type was looked at.
            MessageType::SEND_RNDIS_PACKET => {
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
                Answer::Sent(Status::INVALID_RNDIS_PACKET)
            }
            // The rest is for the first channel only.
            _ if index != 0 => Answer::Empty,
            MessageType::SUBCHANNEL => Answer::Message(Box::new(self.sub_channels(queue, body))),
            _ => self.agree(queue, message_type, body),
        };
        // Answers that are messages are waited for, whatever the flag says.
        match answer {
            Answer::Empty | Answer::Sent(_) if !packet.wants_completion() => None,
            answer => Some(answer),
        }
    }

    fn agree(&self, queue: &Queue, message_type: MessageType, body: &[u8]) -> Answer {
        // The bus is asked without the card's lock, as it has locks of its own.
        let named = nvsp::SharedBuffer::read_from_prefix(body).ok();
        let shared = match (message_type, named) {
            (MessageType::SEND_RECEIVE_BUFFER | MessageType::SEND_SEND_BUFFER, Some((named, _))) => {
                queue.link.gpadl(named.gpadl)
            }
            _ => None,
        };
        let (reply, change) = {
            let mut state = self.state.lock();
            let (reply, change) = state.setup.receive(message_type, body, |_| shared);
            if message_type == MessageType::INIT {
                state.steering = Steering::new();
            }
            self.changed(state);
            (reply, change)
        };
        match change {
            Change::None => {}
            Change::ReceiveBuffer(pool) => *self.pool.lock() = pool,
            Change::SendBuffer(buffer) => {
                let mut state = self.state.lock();
                state.send_buffer = buffer;
                self.changed(state);
            }
        }
        match reply {
            Reply::Message(message) => Answer::Message(Box::new(message)),
            Reply::Empty => Answer::Empty,
        }
    }

    fn sub_channels(&self, queue: &Queue, body: &[u8]) -> [u8; nvsp::MESSAGE_SIZE] {
        let asked = nvsp::SubchannelRequest::read_from_prefix(body).map(|(asked, _)| asked);
        let has_queues = self
            .state
            .lock()
            .setup
            .version
            .is_some_and(nvsp::Version::has_queues);
        let wanted = asked
            .ok()
            .filter(|asked| has_queues && asked.operation == nvsp::SUBCHANNEL_ALLOCATE);
        let answer = match wanted {
            Some(asked) => {
                let most = self.settings.queues - 1;
                let wanted = u16::try_from(asked.count).unwrap_or(u16::MAX).min(most);
                nvsp::SubchannelComplete {
                    status: Status::SUCCESS,
                    count: queue.link.offer_sub_channels(wanted).into(),
                }
            }
            None => nvsp::SubchannelComplete {
                status: Status::FAIL,
                count: 0,
            },
        };
        nvsp::message(MessageType::SUBCHANNEL, &answer)
    }

    /// Takes an RNDIS message, from the send buffer or from the packet's pages. `None` if it makes no sense.
    fn rndis(
        &self,
        queue: &Queue,
        packet: &Packet<'_>,
        asked: &nvsp::RndisPacket,
        sending: &Sending,
        now: u64,
    ) -> Option<()> {
        let pages;
        let (buffer, start, length): (&Buffer, _, _) = match asked.part {
            NO_PART => {
                pages = self::pages(queue, packet)?;
                (&pages, 0, pages.size())
            }
            part => {
                let buffer = sending.send_buffer.as_deref()?;
                let start = (part as usize).checked_mul(SEND_PART as usize)?;
                let end = start
                    .checked_add(SEND_PART as usize)
                    .filter(|&end| end <= buffer.size());
                end.filter(|_| asked.part_length <= SEND_PART)?;
                (buffer, start, asked.part_length as usize)
            }
        };
        match asked.channel {
            RndisChannel::CONTROL => self.control(queue, buffer, start, length),
            _ => self.data(buffer, start, length, sending, now),
        }
    }

    fn control(&self, queue: &Queue, buffer: &Buffer, start: usize, length: usize) -> Option<()> {
        let mut bytes = [0; rndis::MAX_CONTROL];
        let bytes = bytes.get_mut(..length)?;
        buffer.copy_to(start, bytes).ok()?;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.setup.version.is_none() || state.messages.len() >= MAX_WAITING {
            return None;
        }
        let link = state.has_link();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut control = Control {
            setup: &mut state.setup,
            steering: &mut state.steering,
            permanent: self.settings.address,
            queues: self.settings.queues,
            link,
            name: &self.settings.name,
            counters: [
                count(&self.counters.sent),
                count(&self.counters.received),
                count(&self.counters.no_room),
            ],
        };
        let answer = control.receive(bytes, |address| queue.link.set_address(address));
        state.messages.extend(answer);
        self.changed(guard);
        Some(())
    }

    /// Sends the frames of one message, or of several in a row.
    fn data(&self, buffer: &Buffer, start: usize, length: usize, sending: &Sending, now: u64) -> Option<()> {
        let largest = sending.largest?;
        let (mut at, end) = (start, start.checked_add(length)?);
        let mut head = [0; HEADER_BYTES];
        // Each message has a header, so this ends.
        loop {
            let most = MAX_LARGE_SEND as usize;
            let outgoing = Outgoing::read(buffer, at, end - at, largest, most, &mut head).ok()?;
            self.counters.sent.fetch_add(1, Ordering::Relaxed);
            if let Some((wire, port)) = &sending.plug {
                let until = wire.transmit_capped(*port, &outgoing.frame(buffer), now);
                sending.until.set(until);
            }
            at += outgoing.message_length;
            if end - at < rndis::PACKET_HEADER {
                return Some(());
            }
        }
    }

    /// Sends control messages that wait, as far as there is room.
    fn send_waiting(&self) {
        let Some(queue) = self.queue(0) else { return };
        loop {
            let Some(message) = self.state.lock().messages.pop_front() else {
                return;
            };
            if self.place_control(&queue, message.as_bytes()).is_err() {
                self.state.lock().messages.push_front(message);
                return;
            }
        }
    }
}

impl State {
    fn has_link(&self) -> bool {
        self.link_up && self.plug.is_some()
    }

    fn tell_link(&mut self, before: bool) {
        let now = self.has_link();
        if now == before || !self.setup.initialized || self.messages.len() >= MAX_WAITING {
            return;
        }
        let told = rndis::IndicateStatus {
            status: if now {
                rndis::Status::MEDIA_CONNECT
            } else {
                rndis::Status::MEDIA_DISCONNECT
            },
            length: 0,
            offset: 0,
        };
        self.messages
            .extend(Message::new(rndis::MessageType::INDICATE_STATUS, &told, &[]));
    }
}

/// The memory of a packet's pages.
fn pages(queue: &Queue, packet: &Packet<'_>) -> Option<Arc<Buffer>> {
    let mut total = 0_usize;
    let mut broken = false;
    let mut pieces = Vec::new();
    for range in packet.gpa_ranges().ok()? {
        let range = range.ok()?;
        total = total
            .checked_add(range.byte_count() as usize)
            .filter(|&total| total <= MAX_MESSAGE)?;
        let (mut offset, mut left) = (u64::from(range.byte_offset()), range.byte_count() as usize);
        for page in range.pages() {
            let length = left.min((PAGE - offset) as usize);
            match page.checked_mul(PAGE) {
                Some(start) => pieces.push((start + offset, length)),
                None => broken = true,
            }
            (offset, left) = (0, left - length);
        }
    }
    let buffer = queue.link.buffer(&mut pieces.into_iter()).filter(|_| !broken)?;
    (buffer.size() == total).then_some(buffer)
}
