//! Frames into a guest's receive buffer, and the packets that tell it of them.

use super::frame::Frame;
use super::nic::Nic;
use super::pool::Lease;
use super::queue::Queue;
use super::segment::{self, Content};
use super::setup::Offloads;
use super::wire::{Endpoint, NoRoom};
use crate::buffer::Buffer;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use vmbus::protocol::network::nvsp::{self, NO_PART, RECEIVE_BUFFER_ID, RndisChannel};
use vmbus::protocol::network::oid::PacketFilter;
use vmbus::protocol::network::packet_info::{Fragment, Info, InfoType, VlanTag};
use vmbus::protocol::network::rndis::PacketStart;
use vmbus::protocol::network::{Mac, rndis};
use vmbus::ring::PacketFlags;
use vmbus::ring::gpa::TransferRange;

/// Parts of one packet at most: what Linux puts together.
const MAX_FRAGMENTS: usize = 562;

/// How a guest takes frames now.
#[derive(Clone, Copy)]
pub(super) struct Receiving {
    pub(super) filter: PacketFilter,
    pub(super) address: Mac,
    pub(super) offloads: Offloads,
    pub(super) largest: usize,
    pub(super) hash: Option<u32>,
}

impl Receiving {
    fn wants(&self, destination: Mac) -> bool {
        let wanted = match destination {
            Mac::BROADCAST => PacketFilter::BROADCAST,
            group if group.is_group() => PacketFilter::MULTICAST | PacketFilter::ALL_MULTICAST,
            own if own == self.address => PacketFilter::DIRECTED,
            _ => PacketFilter::empty(),
        };
        self.filter.intersects(wanted | PacketFilter::PROMISCUOUS)
    }
}

impl Endpoint for Nic {
    fn deliver(&self, frame: &Frame<'_>, tag: Option<u16>, cut_tag: bool) -> Result<(), NoRoom> {
        let Some(destination) = frame.head.first_chunk().map(|bytes| Mac(*bytes)) else {
            return Ok(());
        };
        let Some((receiving, queue)) = self.receiving(frame.head) else {
            return Ok(());
        };
        if !receiving.wants(destination) {
            return Ok(());
        }
        if let Some(content) = Content::of_plain(frame).filter(|_| !cut_tag) {
            if content.length() > receiving.largest {
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            let result = self.place(&queue, frame, &content, tag, &receiving);
            self.count(&result);
            return result;
        }
        let keep_large = frame.large.is_some_and(|large| match large.is_ipv6() {
            true => receiving.offloads.coalesce_6,
            false => receiving.offloads.coalesce_4,
        });
        let mut result = Ok(());
        let done = segment::pieces(frame, cut_tag, keep_large, |piece| {
            let unchecked = !receiving.offloads.checksum.1 && piece.fill_checksum(frame).is_err();
            if unchecked || piece.length() > receiving.largest && !keep_large {
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
                return true;
            }
            result = self.place(&queue, frame, &piece.content(), tag, &receiving);
            result.is_ok()
        });
        if done.is_err() {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
        }
        self.count(&result);
        result
    }
}

impl Nic {
    /// Counts a frame for the guest.
    #[inline]
    fn count(&self, result: &Result<(), NoRoom>) {
        let counter = match result {
            Ok(()) => &self.counters.received,
            Err(NoRoom) => &self.counters.no_room,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Puts a frame or a segment into the buffer, and a packet into the ring.
    fn place(
        &self,
        queue: &Queue,
        frame: &Frame<'_>,
        content: &Content<'_>,
        tag: Option<u16>,
        receiving: &Receiving,
    ) -> Result<(), NoRoom> {
        let mut start = PacketStart::new();
        let known = content.known.0;
        if known != 0 && receiving.offloads.checksum.1 {
            start.add(InfoType::CHECKSUM, known);
        }
        if let Some(tag) = tag {
            start.add(InfoType::VLAN, VlanTag::from_tci(tag).0);
        }
        if let Some(hash) = receiving.hash {
            start.add(InfoType::HASH_VALUE, hash);
        }
        let (buffer, part_size, lease) = self.lease(content.length(), start.count())?;
        let transaction = lease.transaction();
        let mut writer = PartWriter {
            buffer: &buffer,
            frame,
            content,
            start,
            part_size,
            fragment_id: transaction as u16,
        };
        let sent = match lease.only_offset() {
            Some(offset) => writer.part(offset, 0, content.length()).and_then(|range| {
                queue
                    .send_transfer(transaction, &[range], RndisChannel::DATA)
                    .ok()
            }),
            None => writer
                .write(&lease)
                .and_then(|ranges| queue.send_transfer(transaction, &ranges, RndisChannel::DATA).ok()),
        };
        let sent = sent.ok_or(NoRoom);
        if sent.is_err() {
            self.give_back(transaction);
        }
        sent
    }

    /// Parts for a packet of `length` bytes with `infos` values beside it.
    fn lease(&self, length: usize, infos: usize) -> Result<(Arc<Buffer>, usize, Lease), NoRoom> {
        let mut pool = self.pool.lock();
        let pool = pool.as_mut().ok_or(NoRoom)?;
        let part_size = pool.part_size();
        let room = |infos: usize| part_size.saturating_sub(rndis::PACKET_HEADER + infos * size_of::<Info>());
        let parts = match length <= room(infos) {
            true => 1,
            // Each part then says which it is.
            false => length.div_ceil(room(infos + 1).max(1)),
        };
        if parts > MAX_FRAGMENTS {
            return Err(NoRoom);
        }
        let lease = pool.take(parts).ok_or(NoRoom)?;
        Ok((pool.buffer().clone(), part_size, lease))
    }

    /// Puts a control message into the buffer, and a packet into the ring of the first channel.
    pub(super) fn place_control(&self, queue: &Queue, message: &[u8]) -> Result<(), NoRoom> {
        let (buffer, lease) = {
            let mut pool = self.pool.lock();
            let pool = pool
                .as_mut()
                .filter(|pool| message.len() <= pool.part_size())
                .ok_or(NoRoom)?;
            (pool.buffer().clone(), pool.take(1).ok_or(NoRoom)?)
        };
        let offset = lease.offsets().next().unwrap_or(0);
        let written = buffer.copy_from(offset, message).map_err(|_| NoRoom);
        let range = TransferRange {
            byte_count: message.len() as u32,
            byte_offset: offset as u32,
        };
        let sent = written.and_then(|()| {
            let packet = queue.send_transfer(lease.transaction(), &[range], RndisChannel::CONTROL);
            packet.map_err(|_| NoRoom)
        });
        if sent.is_err() {
            self.give_back(lease.transaction());
        }
        sent
    }

    /// A packet has not gone.
    fn give_back(&self, transaction: u64) {
        self.give_all_back(&[transaction]);
    }

    /// The guest has completed these packets.
    pub(super) fn give_all_back(&self, transactions: &[u64]) {
        if let Some(pool) = self.pool.lock().as_mut() {
            for transaction in transactions {
                if !pool.give_back(*transaction) {
                    self.counters.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

impl Queue {
    /// Tells the guest of parts of its receive buffer.
    #[inline]
    fn send_transfer(
        &self,
        transaction: u64,
        ranges: &[TransferRange],
        channel: RndisChannel,
    ) -> Result<(), vmbus::ring::RingError> {
        let message = nvsp::message(
            nvsp::MessageType::SEND_RNDIS_PACKET,
            &nvsp::RndisPacket {
                channel,
                part: NO_PART,
                part_length: 0,
            },
        );
        let signal = {
            let mut outgoing = self.outgoing.lock();
            let mut batch = outgoing.batch()?;
            let flags = PacketFlags::COMPLETION_REQUESTED;
            batch.push_transfer_pages(transaction, flags, RECEIVE_BUFFER_ID, ranges, &message)?;
            batch.commit()
        };
        if signal.is_needed() {
            self.link.signal();
        }
        Ok(())
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
        let start = self.start.before(length);
        self.buffer.copy_from(offset, start).ok()?;
        let mut at = offset + start.len();
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
