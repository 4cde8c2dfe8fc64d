//! What a guest sends: packets are taken from a channel's ring, their frames go to the wire, and they are completed.

use super::control::MAX_LARGE_SEND;
use super::nic::{Nic, Progress};
use super::pool::Pool;
use super::queue::{Answer, Incoming, Queue};
use super::setup::SEND_PART;
use super::transmit::Outgoing;
use super::wire::Wire;
use crate::buffer::Buffer;
use crate::switch::frame::HEADER_BYTES;
use crate::switch::port::PortId;
use alloc::sync::Arc;
use arrayvec::ArrayVec;
use core::cell::Cell;
use core::sync::atomic::Ordering;
use smallvec::SmallVec;
use spin::Mutex;
use vmbus::protocol::network::ETHERNET_HEADER;
use vmbus::protocol::network::nvsp::{self, MessageType, NO_PART, RndisChannel, Status};
use vmbus::protocol::network::rndis;
use vmbus::ring::{Packet, PacketType, ReadBatch, RingError};

/// Bytes of guest pages.
const PAGE: u64 = 4096;
/// Bytes of a message in guest pages at most.
const MAX_MESSAGE: usize = MAX_LARGE_SEND as usize + 8192;

/// What frames of the guest need, as it was when the card's state was at `change`; so that not each of them takes the lock.
struct Sending {
    change: u32,
    plug: Option<(Arc<Wire>, PortId)>,
    send_buffer: Option<Arc<Buffer>>,
    /// The receive buffer's parts, which completions give back.
    pool: Option<Arc<Mutex<Pool>>>,
    /// The largest frame that is not to be cut; `None` if none is to be sent.
    largest: Option<usize>,
    /// When the port may send again, if not now.
    until: Cell<Option<u64>>,
}

/// Packets that a guest has completed in a row, and whose parts are given back together.
type Completed = ArrayVec<u64, 32>;

impl Nic {
    /// What frames of the guest need now.
    fn sending(&self, now: u64) -> Sending {
        let state = self.state.lock();
        let mtu = state.setup.mtu as usize;
        let sending = Sending {
            // Counted under the lock, so that it belongs to the rest.
            change: self.changes.load(Ordering::Acquire),
            plug: state.plug.clone(),
            send_buffer: state.send_buffer.clone(),
            pool: state.pool.clone(),
            largest: state.setup.initialized.then_some(mtu + ETHERNET_HEADER + 4),
            until: Cell::new(None),
        };
        drop(state);
        if let Some((wire, port)) = &sending.plug {
            sending.until.set(wire.admit(*port, 0, now).err());
        }
        sending
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
        if queue.answer(&mut incoming.completions)? {
            let mut batch = incoming.reader.batch();
            let mut sending = self.sending(now);
            let mut left = budget;
            progress = loop {
                if sending.change != self.changes.load(Ordering::Acquire) {
                    sending = self.sending(now);
                }
                if let Some(until) = sending.until.get() {
                    break Progress::Until(until);
                }
                let packet = self.other_than_completion(&mut batch, &sending, &mut left)?;
                let Some(packet) = packet else {
                    break if left == 0 { Progress::More } else { Progress::Idle };
                };
                let transaction = packet.transaction();
                if let Some(answer) = self.packet(queue, packet, index, &sending, now) {
                    incoming.completions.add(transaction, answer);
                }
            };
            if batch.finish().is_needed() {
                queue.link.signal();
            }
            queue.answer(&mut incoming.completions)?;
            self.send_waiting();
        }
        if progress == Progress::Idle && incoming.reader.unmask() && incoming.completions.is_empty() {
            progress = Progress::More;
        }
        Ok(progress)
    }

    /// The next packet that completes none; what others complete is given back before, so that it is free for what that packet brings
    /// about. `None` if there is none, or no more than `left` are to be taken.
    #[inline(always)]
    fn other_than_completion<'a>(
        &self,
        batch: &mut ReadBatch<'a>,
        sending: &Sending,
        left: &mut usize,
    ) -> Result<Option<Packet<'a>>, RingError> {
        let mut completed = Completed::default();
        let mut other = None;
        while *left > 0
            && let Some(packet) = batch.next()?
        {
            *left -= 1;
            if packet.kind() != PacketType::COMPLETION {
                other = Some(packet);
                break;
            }
            completed.push(packet.transaction());
            if completed.is_full() {
                self.give_back(sending, &completed);
                completed.clear();
            }
        }
        if !completed.is_empty() {
            self.give_back(sending, &completed);
        }
        Ok(other)
    }

    /// Takes a packet, and returns what completes it.
    #[inline(always)]
    fn packet(
        &self,
        queue: &Queue,
        packet: Packet<'_>,
        index: u16,
        sending: &Sending,
        now: u64,
    ) -> Option<Answer> {
        if let Ok(message) = packet.read::<nvsp::RndisMessage>(0)
            && message.message_type == MessageType::SEND_RNDIS_PACKET
        {
            let done = self.rndis(queue, packet, message.packet, sending, now);
            let status = done.map_or(Status::INVALID_RNDIS_PACKET, |()| Status::SUCCESS);
            if done.is_none() {
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
            }
            return packet.wants_completion().then_some(Answer::Sent(status));
        }
        self.other(queue, packet, index)
    }

    /// Takes an RNDIS message, from the send buffer or from the packet's pages. `None` if it makes no sense.
    #[inline(always)]
    fn rndis(
        &self,
        queue: &Queue,
        packet: Packet<'_>,
        asked: nvsp::RndisPacket,
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
                let until = wire.transmit_capped(*port, &outgoing.frame, now);
                sending.until.set(until);
            }
            at += outgoing.message_length;
            if end - at < rndis::PACKET_HEADER {
                return Some(());
            }
        }
    }

    /// The guest has completed these packets.
    fn give_back(&self, sending: &Sending, transactions: &[u64]) {
        let Some(pool) = &sending.pool else { return };
        let refused = pool.lock().give_all_back(transactions);
        self.counters.refused.fetch_add(refused, Ordering::Relaxed);
    }
}

/// Guest physical addresses with their lengths; a few of them, as a large packet has, are kept in place.
type Pieces = SmallVec<[(u64, usize); 6]>;

/// Adds a piece, or makes the last one longer where it goes on there: pages of a large packet mostly are neighbours.
fn add(pieces: &mut Pieces, start: u64, length: usize) {
    match pieces.last_mut() {
        Some((before, bytes)) if before.checked_add(*bytes as u64) == Some(start) => *bytes += length,
        _ => pieces.push((start, length)),
    }
}

/// The memory of a packet's pages.
#[inline(never)]
fn pages(queue: &Queue, packet: Packet<'_>) -> Option<Buffer> {
    let mut total = 0_usize;
    let mut broken = false;
    let mut pieces = Pieces::new();
    for range in packet.gpa_ranges().ok()? {
        let range = range.ok()?;
        total = total
            .checked_add(range.byte_count() as usize)
            .filter(|&total| total <= MAX_MESSAGE)?;
        let (mut offset, mut left) = (u64::from(range.byte_offset()), range.byte_count() as usize);
        for page in range.pages() {
            let length = left.min((PAGE - offset) as usize);
            match page.checked_mul(PAGE) {
                Some(start) => add(&mut pieces, start + offset, length),
                None => broken = true,
            }
            (offset, left) = (0, left - length);
        }
    }
    let buffer = queue.link.buffer(&mut pieces.into_iter()).filter(|_| !broken)?;
    (buffer.size() == total).then_some(buffer)
}
