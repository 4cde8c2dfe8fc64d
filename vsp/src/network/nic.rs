//! The card and its channels.

use super::control::{Control, MAX_LARGE_SEND};
use super::deliver::Receiving;
use super::link::Link;
use super::pool::Pool;
use super::setup::{Change, Reply, SEND_PART, Setup};
use super::steer::Steering;
use super::transmit::Outgoing;
use super::wire::Wire;
use crate::buffer::Buffer;
use crate::switch::port::PortId;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use spin::Mutex;
use vmbus::protocol::network::nvsp::{self, MessageType, NO_PART, RndisChannel, Status};
use vmbus::protocol::network::rndis::{self, Message};
use vmbus::protocol::network::scale::MAX_CHANNELS;
use vmbus::protocol::network::{ETHERNET_HEADER, Mac};
use vmbus::ring::{self, Packet, PacketFlags, PacketType, RingError};
use zerocopy::{FromBytes, IntoBytes};

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

pub(super) struct Queue {
    pub(super) link: Arc<dyn Link>,
    pub(super) outgoing: Mutex<ring::Writer>,
    incoming: Mutex<Incoming>,
}

struct Incoming {
    reader: ring::Reader,
    /// Completions that found no room: transaction and message.
    answers: VecDeque<(u64, Answer)>,
}

enum Answer {
    Message([u8; nvsp::MESSAGE_SIZE]),
    Empty,
}

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
        drop(state);
        self.send_waiting();
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
        let queue = Queue {
            link,
            outgoing: Mutex::new(rings.outgoing),
            incoming: Mutex::new(Incoming {
                reader: rings.incoming,
                answers: VecDeque::new(),
            }),
        };
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
        drop(state);
        let pool = self.pool.lock().take();
        drop(pool);
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
            let mut taken = 0;
            loop {
                if taken == budget {
                    progress = Progress::More;
                    break;
                }
                let plug = self.state.lock().plug.clone();
                if let Some((wire, port)) = &plug
                    && let Err(until) = wire.admit(*port, 0, now)
                {
                    progress = Progress::Until(until);
                    break;
                }
                let Some(packet) = batch.next()? else {
                    break;
                };
                taken += 1;
                if let Some(answer) = self.packet(queue, &packet, index, plug.as_ref(), now) {
                    incoming.answers.push_back((packet.transaction(), answer));
                }
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
        plug: Option<&(Arc<Wire>, PortId)>,
        now: u64,
    ) -> Option<Answer> {
        if packet.kind() == PacketType::COMPLETION {
            self.give_back(packet.transaction());
            return None;
        }
        let mut bytes = [0; nvsp::MESSAGE_SIZE];
        let length = packet.copy_most(&mut bytes);
        let (message_type, body) = nvsp::split(bytes.get(..length)?)?;
        let answer = match message_type {
            MessageType::SEND_RNDIS_PACKET => {
                let status = match self.rndis(queue, packet, body, plug, now) {
                    Some(()) => Status::SUCCESS,
                    None => {
                        self.counters.refused.fetch_add(1, Ordering::Relaxed);
                        Status::INVALID_RNDIS_PACKET
                    }
                };
                let answer = nvsp::RndisPacketComplete { status };
                Answer::Message(nvsp::message(MessageType::SEND_RNDIS_PACKET_COMPLETE, &answer))
            }
            // The rest is for the first channel only.
            _ if index != 0 => Answer::Empty,
            MessageType::SUBCHANNEL => Answer::Message(self.sub_channels(queue, body)),
            _ => self.agree(queue, message_type, body),
        };
        // Answers that are messages are waited for, whatever the flag says.
        match answer {
            Answer::Empty if !packet.wants_completion() => None,
            Answer::Message(_)
                if message_type == MessageType::SEND_RNDIS_PACKET && !packet.wants_completion() =>
            {
                None
            }
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
            (reply, change)
        };
        match change {
            Change::None => {}
            Change::ReceiveBuffer(pool) => *self.pool.lock() = pool,
            Change::SendBuffer(buffer) => self.state.lock().send_buffer = buffer,
        }
        match reply {
            Reply::Message(message) => Answer::Message(message),
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
        body: &[u8],
        plug: Option<&(Arc<Wire>, PortId)>,
        now: u64,
    ) -> Option<()> {
        let (asked, _) = nvsp::RndisPacket::read_from_prefix(body).ok()?;
        let (buffer, start, length) = match asked.part {
            NO_PART => {
                let buffer = pages(queue, packet)?;
                let length = buffer.size();
                (buffer, 0, length)
            }
            part => {
                let buffer = self.state.lock().send_buffer.clone()?;
                let start = (part as usize).checked_mul(SEND_PART as usize)?;
                let end = start
                    .checked_add(SEND_PART as usize)
                    .filter(|&end| end <= buffer.size());
                end.filter(|_| asked.part_length <= SEND_PART)?;
                (buffer, start, asked.part_length as usize)
            }
        };
        match asked.channel {
            RndisChannel::CONTROL => self.control(queue, &buffer, start, length),
            _ => self.data(&buffer, start, length, plug, now),
        }
    }

    fn control(&self, queue: &Queue, buffer: &Buffer, start: usize, length: usize) -> Option<()> {
        let mut bytes = [0; rndis::MAX_CONTROL];
        let bytes = bytes.get_mut(..length)?;
        buffer.copy_to(start, bytes).ok()?;
        let mut state = self.state.lock();
        if state.setup.version.is_none() || state.messages.len() >= MAX_WAITING {
            return None;
        }
        let link = state.has_link();
        let state = &mut *state;
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
        Some(())
    }

    /// Sends the frames of one message, or of several in a row.
    fn data(
        &self,
        buffer: &Buffer,
        start: usize,
        length: usize,
        plug: Option<&(Arc<Wire>, PortId)>,
        now: u64,
    ) -> Option<()> {
        let largest = {
            let state = self.state.lock();
            if !state.setup.initialized {
                return None;
            }
            state.setup.mtu as usize + ETHERNET_HEADER + 4
        };
        let (mut at, end) = (start, start.checked_add(length)?);
        // Each message has a header, so this ends.
        loop {
            let outgoing = Outgoing::read(buffer, at, end - at, largest, MAX_LARGE_SEND as usize).ok()?;
            self.counters.sent.fetch_add(1, Ordering::Relaxed);
            if let Some((wire, port)) = plug {
                // What is over the cap is held against the next.
                let _ = wire.admit(*port, outgoing.frame(buffer).length, now);
                wire.transmit(*port, &outgoing.frame(buffer), now);
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

impl Queue {
    /// Sends completions as far as there is room; whether all went.
    fn answer(&self, answers: &mut VecDeque<(u64, Answer)>) -> Result<bool, RingError> {
        if answers.is_empty() {
            return Ok(true);
        }
        let mut outgoing = self.outgoing.lock();
        loop {
            let mut full = None;
            let mut batch = outgoing.batch()?;
            while let Some((transaction, answer)) = answers.front() {
                let parts: &[&[u8]] = match answer {
                    Answer::Message(message) => &[message.as_bytes()],
                    Answer::Empty => &[],
                };
                match batch.push(PacketType::COMPLETION, *transaction, PacketFlags::empty(), parts) {
                    Ok(()) => drop(answers.pop_front()),
                    Err(RingError::Full { needed }) => {
                        full = Some(needed);
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            if batch.commit().is_needed() {
                self.link.signal();
            }
            match full {
                None => return Ok(true),
                Some(needed) if outgoing.request_space(needed)? => {}
                Some(_) => return Ok(false),
            }
        }
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
