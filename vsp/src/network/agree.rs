//! What is agreed with a guest, and what it asks and sets: all packets that carry no frames.

use super::control::Control;
use super::nic::{MAX_WAITING, Nic};
use super::queue::{Answer, Queue};
use super::setup::{Change, Reply};
use super::steer::Steering;
use crate::buffer::Buffer;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use spin::Mutex;
use vmbus::protocol::network::nvsp::{self, MessageType, Status};
use vmbus::protocol::network::rndis;
use vmbus::ring::Packet;
use zerocopy::FromBytes;

impl Nic {
    /// Takes a packet that carries no RNDIS message.
    #[inline(never)]
    pub(super) fn other(&self, queue: &Queue, packet: Packet<'_>, index: u16) -> Option<Answer> {
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
            Change::ReceiveBuffer(pool) => {
                let mut state = self.state.lock();
                let before = core::mem::replace(&mut state.pool, pool.map(|pool| Arc::new(Mutex::new(pool))));
                self.changed(state);
                drop(before);
            }
            Change::SendBuffer(buffer) => {
                let mut state = self.state.lock();
                let before = core::mem::replace(&mut state.send_buffer, buffer);
                self.changed(state);
                drop(before);
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

    #[inline(never)]
    pub(super) fn control(&self, queue: &Queue, buffer: &Buffer, start: usize, length: usize) -> Option<()> {
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

    /// Sends control messages that wait, as far as there is room.
    pub(super) fn send_waiting(&self) {
        if self.state.lock().messages.is_empty() {
            return;
        }
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
