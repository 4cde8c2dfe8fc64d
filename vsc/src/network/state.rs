//! What a channel's lock guards: its rings, frames on their way, and what waits.

use super::arrived::{self, Received};
use super::card::Counters;
use super::error::NetworkError;
use super::requests::{ANSWER, Question, Requests};
use super::slots::{NO_SLOT, Slots};
use crate::memory::Buffer;
use crate::wait::Waiting;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use vmbus::protocol::network::nvsp::{self, MessageType, NO_PART, RECEIVE_BUFFER_ID, RndisChannel, Status};
use vmbus::protocol::network::rndis::{self, PacketStart};
use vmbus::ring::gpa::{GpaRange, TransferRange};
use vmbus::ring::{self, Packet, PacketFlags, PacketType, RingError, WriteBatch};
use zerocopy::FromBytes;

/// Packets that are taken at once, so that a host that sends without end leaves time for others.
const AT_ONCE: usize = 256;
/// Packets that are taken out of the ring together, whose room the host gets back at once.
const TOGETHER: usize = 32;
/// Packets that were taken out of the ring and whose frames nobody has fetched, at most.
const MAX_PENDING: usize = 4096;
/// Messages of one packet at most.
const MAX_RANGES: usize = 1024;
/// Free bytes of a ring that suffice for a large frame and completions before it.
const RING_ROOM: u32 = 2048;

/// What all channels of a card share.
#[derive(Debug, Default)]
pub(super) struct Line {
    link: AtomicBool,
    /// How often the host has said something of the link.
    pub(super) changes: AtomicU32,
    pub(super) counters: Counters,
}

impl Line {
    pub(super) fn has_link(&self) -> bool {
        self.link.load(Ordering::Acquire)
    }

    pub(super) fn set_link(&self, up: bool) {
        self.link.store(up, Ordering::Release);
    }
}

pub(super) struct State {
    pub(super) rings: ring::Channel,
    /// The host does not signal what comes.
    pub(super) masked: bool,
    pub(super) slots: Slots,
    pub(super) receive: Option<ReceiveBuffer>,
    /// Packets whose frames are to be fetched, the one that is being fetched first.
    pub(super) arrived: VecDeque<Arrived>,
    /// Packets that were fetched, and the host was not told.
    pub(super) owed: Vec<u64>,
    /// Their parts.
    pub(super) owed_parts: usize,
    pub(super) requests: Requests,
    pub(super) waiting: Waiting,
    /// Those who wait are to be woken.
    pub(super) wake: bool,
    /// Doorbells are put off.
    pub(super) held: u32,
    /// The host is to be signalled.
    pub(super) ring: bool,
    pub(super) closed: Option<NetworkError>,
}

/// Where the host puts what comes.
pub(super) struct ReceiveBuffer {
    pub(super) buffer: Arc<Buffer>,
    /// Parts that may be owed.
    pub(super) most_owed: usize,
}

/// A packet with frames.
pub(super) struct Arrived {
    /// `None` if no completion is wanted.
    transaction: Option<u64>,
    ranges: Ranges,
}

/// Where the messages of a packet are.
enum Ranges {
    /// Mostly there is one.
    One(TransferRange),
    Several(Box<Several>),
}

struct Several {
    ranges: Box<[TransferRange]>,
    /// How many of them were taken.
    taken: usize,
}

impl Ranges {
    fn for_each(self, mut each: impl FnMut(TransferRange)) {
        match self {
            Self::One(range) => each(range),
            Self::Several(several) => several.for_each(each),
        }
    }
}

impl Iterator for Several {
    type Item = TransferRange;

    fn next(&mut self) -> Option<TransferRange> {
        let next = self.ranges.get(self.taken)?;
        self.taken += 1;
        Some(*next)
    }
}

impl State {
    pub(super) fn is_writable(&self) -> bool {
        let free = self.rings.outgoing.free().unwrap_or(0);
        self.closed.is_none() && self.slots.has_room() && free > RING_ROOM
    }

    /// Whether the ring has room now, after all; otherwise the host is asked to signal when it has.
    pub(super) fn room_came(&mut self) -> bool {
        match self.rings.outgoing.free() {
            Ok(free) if free > RING_ROOM => false,
            Ok(_) => self.rings.outgoing.request_space(RING_ROOM) == Ok(true),
            Err(_) => false,
        }
    }

    /// Sends a frame with `start` before it.
    #[inline(always)]
    pub(super) fn send_frame(&mut self, start: &PacketStart, frame: &[u8]) -> Result<(), NetworkError> {
        if let Some(error) = self.closed {
            return Err(error);
        }
        let length = start.length() + frame.len();
        let Some(slot) = self.slots.find_small(length) else {
            return self.send_large(start, frame);
        };
        write(slot.buffer, slot.offset, start, frame)?;
        let message = message(RndisChannel::DATA, slot.part, length as u32);
        let flags = PacketFlags::COMPLETION_REQUESTED;
        let mut batch = self.rings.outgoing.batch()?;
        pay(&mut batch, (&mut self.owed, &mut self.owed_parts));
        let pushed = batch.push_value(PacketType::IN_BAND, slot.transaction, flags, &message);
        // What was owed is told, even if the message finds no room.
        self.ring |= batch.commit().is_needed();
        pushed.map_err(full)?;
        self.slots.take_small();
        Ok(())
    }

    /// The same, once what has come was taken.
    #[inline(never)]
    pub(super) fn send_again(
        &mut self,
        start: &PacketStart,
        frame: &[u8],
        line: &Line,
    ) -> Result<(), NetworkError> {
        self.pump(line);
        self.send_frame(start, frame)
    }

    #[inline(never)]
    fn send_large(&mut self, start: &PacketStart, frame: &[u8]) -> Result<(), NetworkError> {
        let length = start.length() + frame.len();
        let write = |buffer: &Buffer| write(buffer, 0, start, frame);
        self.send_pages(length, RndisChannel::DATA, write)
    }

    /// Sends a control message, which hosts look for in pages only.
    pub(super) fn send_control(&mut self, message: &[u8]) -> Result<(), NetworkError> {
        let write = |buffer: &Buffer| buffer.copy_from(0, message).map_err(|_| NetworkError::Protocol);
        self.send_pages(message.len(), RndisChannel::CONTROL, write)
    }

    /// Has `write` write a message into pages of its own, and puts what names them into the ring.
    fn send_pages(
        &mut self,
        length: usize,
        channel: RndisChannel,
        write: impl FnOnce(&Buffer) -> Result<(), NetworkError>,
    ) -> Result<(), NetworkError> {
        if let Some(error) = self.closed {
            return Err(error);
        }
        let (index, buffer) = self.slots.find_large(length)?;
        write(buffer)?;
        let transaction = self.slots.transaction(index);
        let (offset, pages) = buffer.pages(0, length).map_err(|_| NetworkError::Protocol)?;
        let range = GpaRange {
            byte_count: length as u32,
            byte_offset: offset as u32,
            pages,
        };
        let message = message(channel, NO_PART, 0);
        let flags = PacketFlags::COMPLETION_REQUESTED;
        let owed = (&mut self.owed, &mut self.owed_parts);
        let out = (&mut self.rings.outgoing, &mut self.ring);
        push(out, owed, transaction, flags, &message, Some(range))?;
        self.slots.take_large();
        Ok(())
    }

    /// Puts a message into the ring, and what is owed before it.
    pub(super) fn push(
        &mut self,
        transaction: u64,
        flags: PacketFlags,
        message: &[u8],
        range: Option<GpaRange<'_>>,
    ) -> Result<(), NetworkError> {
        if let Some(error) = self.closed {
            return Err(error);
        }
        let owed = (&mut self.owed, &mut self.owed_parts);
        let out = (&mut self.rings.outgoing, &mut self.ring);
        push(out, owed, transaction, flags, message, range)
    }

    #[inline]
    pub(super) fn receive(&mut self, into: &mut [u8], line: &Line) -> Result<Option<Received>, NetworkError> {
        if let Some(error) = self.closed {
            return Err(error);
        }
        for _ in 0..AT_ONCE {
            match self.arrived.pop_front() {
                Some(arrived) => {
                    if let Some(received) = self.frame(arrived, into, line) {
                        return Ok(Some(received));
                    }
                }
                None if self.next(line) => {}
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The next frame of a packet; `None` if there is none in it.
    #[inline(always)]
    fn frame(&mut self, arrived: Arrived, into: &mut [u8], line: &Line) -> Option<Received> {
        if let Ranges::One(range) = arrived.ranges
            && let Some(receive) = &self.receive
            && let Some(found) = arrived::whole_frame(&receive.buffer, range, into)
        {
            self.done(arrived.transaction, 1);
            Counters::count(&line.counters.received);
            return Some(found);
        }
        self.other_frame(arrived, into, line)
    }

    /// The same of a packet with several messages, which comes up again if it has more frames, or with what is no whole frame.
    #[inline(never)]
    fn other_frame(&mut self, mut arrived: Arrived, into: &mut [u8], line: &Line) -> Option<Received> {
        let buffer = &self.receive.as_ref()?.buffer;
        let mut bad = 0;
        let (found, parts) = match &mut arrived.ranges {
            Ranges::One(range) => {
                let range = core::iter::once(*range);
                (arrived::next_frame(buffer, range, into, &mut bad), 1)
            }
            Ranges::Several(several) => {
                let found = arrived::next_frame(buffer, several.by_ref(), into, &mut bad);
                let more = several.taken < several.ranges.len();
                (found, if more { 0 } else { several.ranges.len() })
            }
        };
        line.counters.bad_messages.fetch_add(bad, Ordering::Relaxed);
        match parts {
            0 => self.arrived.push_front(arrived),
            parts => self.done(arrived.transaction, parts),
        }
        found.inspect(|_| Counters::count(&line.counters.received))
    }

    /// A packet has no more frames: the host gets its parts back, soon.
    #[inline]
    fn done(&mut self, transaction: Option<u64>, parts: usize) {
        self.owed_parts += parts;
        if let Some(transaction) = transaction {
            self.owed.push(transaction);
        }
        let most = self.receive.as_ref().map_or(0, |receive| receive.most_owed);
        if self.owed_parts >= most {
            self.pay();
        }
    }

    /// Tells the host of the packets that were fetched, as far as there is room.
    #[inline(never)]
    fn pay(&mut self) {
        let owed = (&mut self.owed, &mut self.owed_parts);
        let paid = self.rings.outgoing.batch().map(|mut batch| {
            pay(&mut batch, owed);
            batch.commit()
        });
        self.ring |= paid.is_ok_and(|signal| signal.is_needed());
    }

    /// Takes what has come; frames are left to be fetched. Says whether there may be more.
    pub(super) fn pump(&mut self, line: &Line) -> bool {
        (0..AT_ONCE / TOGETHER).all(|_| self.next(line))
    }

    /// Takes the next packets; `false` if there is none.
    #[inline(never)]
    fn next(&mut self, line: &Line) -> bool {
        match self.take(line) {
            Ok(taken) => taken,
            Err(error) => {
                if self.closed.is_none() {
                    log::warn!("a network channel is given up: {error}");
                    self.closed = Some(error.into());
                    self.wake = true;
                }
                false
            }
        }
    }

    #[inline]
    fn take(&mut self, line: &Line) -> Result<bool, RingError> {
        let Self {
            rings,
            slots,
            receive,
            arrived,
            owed,
            requests,
            wake,
            masked,
            ..
        } = self;
        let mut batch = rings.incoming.batch();
        let mut taken = 0;
        while taken < TOGETHER
            && let Some(packet) = batch.next()?
        {
            taken += 1;
            match packet.kind() {
                PacketType::COMPLETION => {
                    let transaction = packet.transaction();
                    if slots.complete(transaction) {
                        *wake = true;
                    } else if transaction & NO_SLOT != 0 {
                        let mut answer = [0; ANSWER];
                        let length = packet.copy_most(&mut answer);
                        let answer = answer.get(..length).unwrap_or_default();
                        *wake |= requests.answered(Question::Nvsp(transaction), answer);
                    }
                }
                PacketType::TRANSFER_PAGES => {
                    let completion = packet.wants_completion().then(|| packet.transaction());
                    match (receive.as_ref(), ranges(&packet)) {
                        (Some(receive), Some((RndisChannel::CONTROL, ranges))) => {
                            ranges.for_each(|range| {
                                *wake |= control(&receive.buffer, range, requests, line);
                            });
                            owed.extend(completion);
                        }
                        (Some(_), Some((_, ranges))) if arrived.len() < MAX_PENDING => {
                            arrived.push_back(Arrived {
                                transaction: completion,
                                ranges,
                            });
                            *wake = true;
                        }
                        _ => {
                            Counters::count(&line.counters.bad_messages);
                            owed.extend(completion);
                        }
                    }
                }
                // A table of channels to send on, or a virtual function: neither is made use of.
                PacketType::IN_BAND => {}
                other => log::debug!("the host sends a packet of type {}", other.0),
            }
        }
        if taken == 0 {
            if core::mem::take(masked) && rings.incoming.unmask() {
                rings.incoming.mask();
                *masked = true;
                return Ok(true);
            }
            return Ok(false);
        }
        self.ring |= batch.finish().is_needed();
        if self.owed.len() >= AT_ONCE {
            self.pay();
        }
        Ok(true)
    }
}

/// Puts what is owed and a message into the ring, and notes whether the host is to be signalled.
#[inline]
fn push(
    (outgoing, ring): (&mut ring::Writer, &mut bool),
    owed: (&mut Vec<u64>, &mut usize),
    transaction: u64,
    flags: PacketFlags,
    message: &[u8],
    range: Option<GpaRange<'_>>,
) -> Result<(), NetworkError> {
    let mut batch = outgoing.batch()?;
    pay(&mut batch, owed);
    let pushed = match range {
        Some(range) => batch.push_gpa_direct(transaction, flags, &[range], message),
        None => batch.push(PacketType::IN_BAND, transaction, flags, &[message]),
    };
    // What was owed is told, even if the message finds no room.
    *ring |= batch.commit().is_needed();
    pushed.map_err(full)
}

fn full(error: RingError) -> NetworkError {
    match error {
        RingError::Full { .. } => NetworkError::Full,
        error => error.into(),
    }
}

/// Writes a frame to `offset` of a buffer, with `start` before it.
#[inline(always)]
fn write(buffer: &Buffer, offset: usize, start: &PacketStart, frame: &[u8]) -> Result<(), NetworkError> {
    let written = buffer
        .write(offset, &start.header(frame.len()))
        .and_then(|()| match start.beside() {
            Some(beside) => buffer.copy_from(offset + rndis::PACKET_HEADER, beside),
            None => Ok(()),
        })
        .and_then(|()| buffer.copy_from(offset + start.length(), frame));
    written.map_err(|_| NetworkError::Protocol)
}

/// What a packet says that carries an RNDIS message: in a part of the send buffer, or in the pages that it names.
#[inline]
fn message(channel: RndisChannel, part: u32, part_length: u32) -> [u8; nvsp::MESSAGE_SIZE] {
    nvsp::message(
        MessageType::SEND_RNDIS_PACKET,
        &nvsp::RndisPacket {
            channel,
            part,
            part_length,
        },
    )
}

/// Puts what is owed into the ring, as far as there is room.
#[inline]
fn pay(batch: &mut WriteBatch<'_>, (owed, parts): (&mut Vec<u64>, &mut usize)) {
    if owed.is_empty() {
        return;
    }
    let completion: [u32; 2] = [MessageType::SEND_RNDIS_PACKET_COMPLETE.0, Status::SUCCESS.0];
    let mut paid = 0;
    for transaction in owed.iter() {
        let flags = PacketFlags::empty();
        if batch
            .push_value(PacketType::COMPLETION, *transaction, flags, &completion)
            .is_err()
        {
            break;
        }
        paid += 1;
    }
    owed.drain(..paid);
    if owed.is_empty() {
        *parts = 0;
    }
}

/// Which of the two kinds of RNDIS messages a packet holds, and where they are; `None` if it makes no sense.
#[inline(always)]
fn ranges(packet: &Packet<'_>) -> Option<(RndisChannel, Ranges)> {
    let (set, ranges, message) = match packet.only_range::<nvsp::RndisMessage>() {
        Some((set, range, message)) => (set, Ranges::One(range), message),
        None => several(*packet)?,
    };
    if message.message_type != MessageType::SEND_RNDIS_PACKET || set != RECEIVE_BUFFER_ID {
        return None;
    }
    Some((message.packet.channel, ranges))
}

#[inline(never)]
fn several(packet: Packet<'_>) -> Option<(u16, Ranges, nvsp::RndisMessage)> {
    let message = packet.read(0).ok()?;
    let (set, ranges) = packet.transfer_ranges().ok()?;
    let ranges = ranges.take(MAX_RANGES).map_while(Result::ok).collect();
    Some((
        set,
        Ranges::Several(Box::new(Several { ranges, taken: 0 })),
        message,
    ))
}

/// Takes a control message of the host; says whether somebody waits for it.
fn control(buffer: &Buffer, range: TransferRange, requests: &mut Requests, line: &Line) -> bool {
    let mut bytes = [0; rndis::MAX_CONTROL];
    let length = (range.byte_count as usize).min(bytes.len());
    let bytes = bytes.get_mut(..length).unwrap_or_default();
    if buffer.copy_to(range.byte_offset as usize, bytes).is_err() {
        Counters::count(&line.counters.bad_messages);
        return false;
    }
    let Some((message_type, body)) = rndis::split(bytes) else {
        Counters::count(&line.counters.bad_messages);
        return false;
    };
    if message_type == rndis::MessageType::INDICATE_STATUS {
        let status = rndis::IndicateStatus::read_from_prefix(body).map(|(told, _)| told.status);
        match status {
            Ok(rndis::Status::MEDIA_CONNECT) => line.set_link(true),
            Ok(rndis::Status::MEDIA_DISCONNECT) => line.set_link(false),
            // Another network: whoever has an address asks for it anew, as after a link that went and came.
            Ok(rndis::Status::NETWORK_CHANGE) => {}
            _ => return false,
        }
        line.changes.fetch_add(1, Ordering::AcqRel);
        return true;
    }
    let number = u32::read_from_prefix(body).map(|(number, _)| number);
    number.is_ok_and(|number| requests.answered(Question::Rndis(number, message_type), body))
}
