//! Frames into a guest's receive buffer, and the packets that tell it of them.

use super::frame::Frame;
use super::nic::Nic;
use super::pool::{First, Lease, Pool};
use super::queue::Queue;
use super::segment::{self, Content};
use super::setup::{Offloads, Setup};
use super::steer::Steering;
use super::wire::{Endpoint, NoRoom};
use crate::buffer::Buffer;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use spin::Mutex;
use vmbus::protocol::network::nvsp::{self, NO_PART, RECEIVE_BUFFER_ID, RndisChannel};
use vmbus::protocol::network::oid::PacketFilter;
use vmbus::protocol::network::packet_info::{Fragment, Info, InfoType, VlanTag};
use vmbus::protocol::network::rndis::PacketStart;
use vmbus::protocol::network::{ETHERNET_HEADER, Mac, rndis};
use vmbus::ring::gpa::TransferRange;
use vmbus::ring::{PacketFlags, RingError, Signal};

/// Parts of one packet at most: what Linux puts together.
const MAX_FRAGMENTS: usize = 562;

/// How a guest takes frames; made anew whenever any of it changes.
pub(super) struct Receiving {
    filter: PacketFilter,
    address: Mac,
    offloads: Offloads,
    largest: usize,
    steering: Steering,
    queues: Vec<Option<Arc<Queue>>>,
    pool: Arc<Mutex<Pool>>,
    buffer: Arc<Buffer>,
    part_size: usize,
}

impl Receiving {
    pub(super) fn new(
        setup: &Setup,
        steering: Steering,
        pool: Arc<Mutex<Pool>>,
        queues: Vec<Option<Arc<Queue>>>,
    ) -> Self {
        let (buffer, part_size) = {
            let pool = pool.lock();
            (pool.buffer().clone(), pool.part_size())
        };
        Self {
            filter: setup.filter,
            address: setup.address,
            offloads: setup.offloads,
            largest: setup.mtu as usize + ETHERNET_HEADER,
            steering,
            queues,
            pool,
            buffer,
            part_size,
        }
    }

    #[inline]
    fn wants(&self, destination: Mac) -> bool {
        let wanted = match destination {
            own if own == self.address => PacketFilter::DIRECTED,
            Mac::BROADCAST => PacketFilter::BROADCAST,
            group if group.is_group() => PacketFilter::MULTICAST | PacketFilter::ALL_MULTICAST,
            _ => PacketFilter::empty(),
        };
        self.filter.intersects(wanted | PacketFilter::PROMISCUOUS)
    }

    /// The channel for a frame that begins with `head`, and the frame's hash.
    #[inline]
    fn queue(&self, head: &[u8]) -> Option<(&Queue, Option<u32>)> {
        let (index, hash) = self.steering.channel(head);
        let queue = |index: usize| self.queues.get(index)?.as_deref();
        Some((queue(usize::from(index)).or_else(|| queue(0))?, hash))
    }
}

impl Endpoint for Nic {
    fn deliver(&self, frame: &Frame<'_>, tag: Option<u16>, cut_tag: bool) -> Result<(), NoRoom> {
        let Some(destination) = frame.head.first_chunk().map(|bytes| Mac(*bytes)) else {
            return Ok(());
        };
        let Some(receiving) = self.receiving() else {
            return Ok(());
        };
        if !receiving.wants(destination) {
            return Ok(());
        }
        let Some((queue, hash)) = receiving.queue(frame.head) else {
            return Ok(());
        };
        let delivery = Delivery {
            receiving: &receiving,
            queue,
            frame,
            tag,
            hash,
        };
        let result = match Content::of_plain(frame).filter(|_| !cut_tag) {
            Some(content) if content.length() > receiving.largest => {
                self.refuse();
                return Ok(());
            }
            Some(content) => delivery.place(content),
            None => self.deliver_pieces(delivery, cut_tag),
        };
        let counter = match result {
            Ok(()) => &self.counters.received,
            Err(NoRoom) => &self.counters.no_room,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        result
    }
}

impl Nic {
    /// Delivers a frame on which there is work to be done.
    #[inline(never)]
    fn deliver_pieces(&self, delivery: Delivery<'_>, cut_tag: bool) -> Result<(), NoRoom> {
        let (frame, receiving) = (delivery.frame, delivery.receiving);
        let keep_large = frame.large.is_some_and(|large| match large.is_ipv6() {
            true => receiving.offloads.coalesce_6,
            false => receiving.offloads.coalesce_4,
        });
        let mut result = Ok(());
        let done = segment::pieces(frame, cut_tag, keep_large, |piece| {
            let unchecked = !receiving.offloads.checksum.1 && piece.fill_checksum(frame).is_err();
            if unchecked || piece.length() > receiving.largest && !keep_large {
                self.refuse();
                return true;
            }
            result = delivery.place_piece(piece.content());
            result.is_ok()
        });
        if done.is_err() {
            self.refuse();
        }
        result
    }

    fn refuse(&self) {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Puts a control message into the buffer, and a packet into the ring of the first channel.
    pub(super) fn place_control(&self, queue: &Queue, message: &[u8]) -> Result<(), NoRoom> {
        let pool = self.state.lock().pool.clone().ok_or(NoRoom)?;
        let (buffer, first) = {
            let mut pool = pool.lock();
            if message.len() > pool.part_size() {
                return Err(NoRoom);
            }
            (pool.buffer().clone(), pool.take_one().ok_or(NoRoom)?)
        };
        let range = TransferRange {
            byte_count: message.len() as u32,
            byte_offset: first.offset() as u32,
        };
        let written = buffer.copy_from(first.offset(), message);
        let sent = written.is_ok() && queue.tell(first, range, RndisChannel::CONTROL).is_ok();
        if !sent {
            pool.lock().give_back(first.transaction());
            return Err(NoRoom);
        }
        Ok(())
    }
}

/// A frame on its way into a guest's buffer.
#[derive(Clone, Copy)]
struct Delivery<'a> {
    receiving: &'a Receiving,
    queue: &'a Queue,
    frame: &'a Frame<'a>,
    /// Beside the frame: its tag, and its hash.
    tag: Option<u16>,
    hash: Option<u32>,
}

impl Delivery<'_> {
    #[inline(never)]
    fn place_piece(self, content: Content<'_>) -> Result<(), NoRoom> {
        self.place(content)
    }

    /// Puts a frame or a segment into the buffer, and a packet into the ring.
    #[inline(always)]
    fn place(self, content: Content<'_>) -> Result<(), NoRoom> {
        let receiving = self.receiving;
        let mut start = PacketStart::new();
        let known = content.known.0;
        if known != 0 && receiving.offloads.checksum.1 {
            start.add(InfoType::CHECKSUM, known);
        }
        if let Some(tag) = self.tag {
            start.add(InfoType::VLAN, VlanTag::from_tci(tag).0);
        }
        if let Some(hash) = self.hash {
            start.add(InfoType::HASH_VALUE, hash);
        }
        if start.length() + content.length() > receiving.part_size {
            return self.place_parts(content, start);
        }
        let first = receiving.pool.lock().take_one().ok_or(NoRoom)?;
        let range = self.write_whole(first.offset(), content, &start);
        let sent = range.and_then(|range| self.queue.tell(first, range, RndisChannel::DATA).ok());
        if sent.is_none() {
            receiving.pool.lock().give_back(first.transaction());
            return Err(NoRoom);
        }
        Ok(())
    }

    /// Writes what fits into one part; says where it is.
    #[inline(always)]
    fn write_whole(self, offset: usize, content: Content<'_>, start: &PacketStart) -> Option<TransferRange> {
        let buffer = &*self.receiving.buffer;
        let head = offset + start.length();
        let body = head + content.head.len();
        let header = start.header(content.length());
        buffer.write(offset, &header).ok()?;
        if let Some(beside) = start.beside() {
            buffer.copy_from(offset + rndis::PACKET_HEADER, beside).ok()?;
        }
        buffer.copy_from(head, content.head).ok()?;
        if content.body_length > 0 {
            let (from, length) = (content.body_offset, content.body_length);
            self.frame.copy_into(from, buffer, body, length).ok()?;
        }
        Some(TransferRange {
            byte_count: (start.length() + content.length()) as u32,
            byte_offset: offset as u32,
        })
    }

    /// The same as [`place`](Self::place), into several parts.
    #[inline(never)]
    fn place_parts(self, content: Content<'_>, start: PacketStart) -> Result<(), NoRoom> {
        let receiving = self.receiving;
        // Each part says which it is.
        let header = rndis::PACKET_HEADER + (start.count() + 1) * size_of::<Info>();
        let room = receiving.part_size.saturating_sub(header);
        let parts = content.length().div_ceil(room.max(1));
        if parts > MAX_FRAGMENTS {
            return Err(NoRoom);
        }
        let lease = receiving.pool.lock().take(parts).ok_or(NoRoom)?;
        let transaction = lease.first.transaction();
        let mut writer = PartWriter {
            buffer: &receiving.buffer,
            frame: self.frame,
            content: &content,
            start,
            part_size: receiving.part_size,
            fragment_id: transaction as u16,
        };
        let sent = writer
            .write(&lease)
            .and_then(|ranges| self.queue.tell_of_parts(transaction, &ranges).ok());
        if sent.is_none() {
            receiving.pool.lock().give_back(transaction);
            return Err(NoRoom);
        }
        Ok(())
    }
}

/// What a packet says that tells of parts of the receive buffer.
#[inline]
fn message(channel: RndisChannel) -> [u8; nvsp::MESSAGE_SIZE] {
    nvsp::message(
        nvsp::MessageType::SEND_RNDIS_PACKET,
        &nvsp::RndisPacket {
            channel,
            part: NO_PART,
            part_length: 0,
        },
    )
}

impl Queue {
    /// Tells the guest of one part of its receive buffer.
    #[inline(always)]
    fn tell(&self, first: First, range: TransferRange, channel: RndisChannel) -> Result<(), RingError> {
        let message = message(channel);
        let flags = PacketFlags::COMPLETION_REQUESTED;
        let signal = {
            let mut outgoing = self.outgoing.lock();
            let mut batch = outgoing.batch()?;
            batch.push_transfer_range(first.transaction(), flags, RECEIVE_BUFFER_ID, range, &message)?;
            batch.commit()
        };
        self.signal(signal);
        Ok(())
    }

    /// Tells it of the parts of one frame.
    fn tell_of_parts(&self, transaction: u64, ranges: &[TransferRange]) -> Result<(), RingError> {
        let message = message(RndisChannel::DATA);
        let flags = PacketFlags::COMPLETION_REQUESTED;
        let signal = {
            let mut outgoing = self.outgoing.lock();
            let mut batch = outgoing.batch()?;
            batch.push_transfer_pages(transaction, flags, RECEIVE_BUFFER_ID, ranges, &message)?;
            batch.commit()
        };
        self.signal(signal);
        Ok(())
    }

    #[inline]
    fn signal(&self, signal: Signal) {
        if signal.is_needed() {
            self.link.signal();
        }
    }
}

/// Writes a piece into parts.
struct PartWriter<'a> {
    buffer: &'a Buffer,
    frame: &'a Frame<'a>,
    content: &'a Content<'a>,
    start: PacketStart,
    part_size: usize,
    fragment_id: u16,
}

impl PartWriter<'_> {
    /// Writes a piece that takes several parts, each of which says which one it is.
    fn write(&mut self, lease: &Lease) -> Option<Vec<TransferRange>> {
        let total = self.content.length();
        let parts = lease.parts();
        let mut ranges = Vec::with_capacity(parts);
        let beside = self.start.count();
        let mut done = 0;
        for (number, offset) in lease.offsets().enumerate() {
            let first = if number == 0 { Fragment::FIRST } else { 0 };
            let last = if number + 1 == parts { Fragment::LAST } else { 0 };
            let flags = Fragment::SUB_ALLOCATED | first | last;
            self.start.truncate(beside);
            self.start
                .add(InfoType::FRAGMENT, Fragment::new(flags, self.fragment_id).0);
            let room = self.part_size.saturating_sub(self.start.length());
            let length = (total - done).min(room);
            ranges.push(self.part(offset, done, length)?);
            done += length;
        }
        Some(ranges)
    }

    /// Writes `length` bytes of the piece from `from` on, with a header before them; says where all that is.
    #[inline]
    fn part(&mut self, offset: usize, from: usize, length: usize) -> Option<TransferRange> {
        let header = self.start.header(length);
        self.buffer.write(offset, &header).ok()?;
        if let Some(beside) = self.start.beside() {
            self.buffer
                .copy_from(offset + rndis::PACKET_HEADER, beside)
                .ok()?;
        }
        let mut at = offset + self.start.length();
        let content = self.content;
        let head = content.head.get(from..).unwrap_or(&[]);
        let head = head.get(..length).unwrap_or(head);
        if !head.is_empty() {
            self.buffer.copy_from(at, head).ok()?;
            at += head.len();
        }
        let rest = length - head.len();
        if rest > 0 {
            let behind_head = (from + head.len()).checked_sub(content.head.len())?;
            let source = content.body_offset + behind_head;
            self.frame.copy_into(source, self.buffer, at, rest).ok()?;
            at += rest;
        }
        Some(TransferRange {
            byte_count: (at - offset) as u32,
            byte_offset: offset as u32,
        })
    }
}
