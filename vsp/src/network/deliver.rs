//! Frames into a guest's receive buffer, and the packets that tell it of them.

use super::frame::Frame;
use super::nic::{Nic, Queue};
use super::pool::Lease;
use super::segment::{self, Piece};
use super::setup::Offloads;
use super::wire::{Endpoint, NoRoom};
use crate::buffer::Buffer;
use crate::switch::frame::HEADER_BYTES;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use vmbus::protocol::network::nvsp::{self, NO_PART, RECEIVE_BUFFER_ID, RndisChannel};
use vmbus::protocol::network::oid::PacketFilter;
use vmbus::protocol::network::packet_info::{Fragment, Info, InfoType, VlanTag};
use vmbus::protocol::network::{Mac, rndis};
use vmbus::ring::PacketFlags;
use vmbus::ring::gpa::TransferRange;
use zerocopy::{FromZeros, IntoBytes};

/// What is beside a packet at most: checksums, tag, hash, fragment.
const MAX_INFOS: usize = 4;
/// Bytes before the body of a packet's first part.
const MAX_START: usize = rndis::PACKET_HEADER + MAX_INFOS * size_of::<Info>() + HEADER_BYTES;
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
        let keep_large = frame.large.is_some_and(|large| match large.is_ipv6() {
            true => receiving.offloads.coalesce_6,
            false => receiving.offloads.coalesce_4,
        });
        let mut result = Ok(());
        let done = segment::pieces(frame, cut_tag, keep_large, |mut piece| {
            let unchecked = !receiving.offloads.checksum.1 && piece.fill_checksum(frame).is_err();
            if unchecked || piece.length() > receiving.largest && !keep_large {
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
                return true;
            }
            result = self.place(&queue, frame, &piece, tag, &receiving);
            result.is_ok()
        });
        if done.is_err() {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
        }
        let counter = if result.is_ok() {
            &self.counters.received
        } else {
            &self.counters.no_room
        };
        counter.fetch_add(1, Ordering::Relaxed);
        result
    }
}

impl Nic {
    /// Puts a piece into the buffer, and a packet into the ring.
    fn place(
        &self,
        queue: &Queue,
        frame: &Frame<'_>,
        piece: &Piece,
        tag: Option<u16>,
        receiving: &Receiving,
    ) -> Result<(), NoRoom> {
        let mut infos = [const { Info::new(InfoType(0), 0) }; MAX_INFOS];
        let mut count = 0;
        let mut add = |info_type, value: Option<u32>| {
            if let (Some(value), Some(info)) = (value, infos.get_mut(count)) {
                *info = Info::new(info_type, value);
                count += 1;
            }
        };
        let known = piece.known.0;
        add(
            InfoType::CHECKSUM,
            (known != 0 && receiving.offloads.checksum.1).then_some(known),
        );
        add(InfoType::VLAN, tag.map(|tag| VlanTag::from_tci(tag).0));
        add(InfoType::HASH_VALUE, receiving.hash);
        let beside = infos.get(..count).unwrap_or(&[]);
        let (buffer, part_size, lease) = self.lease(piece.length(), beside.len())?;
        let transaction = lease.transaction();
        let mut writer = PartWriter {
            buffer: &buffer,
            frame,
            piece,
            infos: beside,
            part_size,
            fragment_id: transaction as u16,
        };
        let sent = writer.write(&lease).and_then(|ranges| {
            let packet = queue.send_transfer(transaction, &ranges, RndisChannel::DATA);
            packet.map_err(|_| NoRoom)
        });
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

    /// The guest has completed a packet.
    pub(super) fn give_back(&self, transaction: u64) {
        if let Some(pool) = self.pool.lock().as_mut()
            && !pool.give_back(transaction)
        {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Queue {
    /// Tells the guest of parts of its receive buffer.
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
    piece: &'a Piece,
    infos: &'a [Info],
    part_size: usize,
    fragment_id: u16,
}

impl PartWriter<'_> {
    fn write(&mut self, lease: &Lease) -> Result<Vec<TransferRange>, NoRoom> {
        let total = self.piece.length();
        let parts = lease.offsets().count();
        let mut ranges = Vec::with_capacity(parts);
        let mut done = 0;
        for (number, offset) in lease.offsets().enumerate() {
            let mut infos = [const { Info::new(InfoType(0), 0) }; MAX_INFOS];
            let mut count = 0;
            for (to, from) in infos.iter_mut().zip(self.infos) {
                *to = *from;
                count += 1;
            }
            if parts > 1
                && let Some(info) = infos.get_mut(count)
            {
                let first = if number == 0 { Fragment::FIRST } else { 0 };
                let last = if number + 1 == parts { Fragment::LAST } else { 0 };
                let flags = Fragment::SUB_ALLOCATED | first | last;
                *info = Info::new(InfoType::FRAGMENT, Fragment::new(flags, self.fragment_id).0);
                count += 1;
            }
            let infos = infos.get(..count).unwrap_or(&[]);
            let start = rndis::PACKET_HEADER + size_of_val(infos);
            let length = (total - done).min(self.part_size - start.min(self.part_size));
            self.part(offset, infos, done, length).ok_or(NoRoom)?;
            ranges.push(TransferRange {
                byte_count: (start + length) as u32,
                byte_offset: offset as u32,
            });
            done += length;
        }
        Ok(ranges)
    }

    /// Writes `length` bytes of the piece from `from` on, with a header before them.
    fn part(&self, offset: usize, infos: &[Info], from: usize, length: usize) -> Option<()> {
        let (header, packet) = super::transmit::packet_header(length, infos);
        let mut start = <[u8; MAX_START]>::new_zeroed();
        let mut filled = 0;
        let head = self.piece.head().get(from..).unwrap_or(&[]);
        let head = head.get(..length).unwrap_or(head);
        for bytes in [header.as_bytes(), packet.as_bytes(), infos.as_bytes(), head] {
            start
                .get_mut(filled..filled + bytes.len())?
                .copy_from_slice(bytes);
            filled += bytes.len();
        }
        self.buffer.copy_from(offset, start.get(..filled)?).ok()?;
        let rest = length - head.len();
        if rest > 0 {
            let behind_head = (from + head.len()).checked_sub(self.piece.head().len())?;
            let source = self.piece.body_offset + behind_head;
            self.frame
                .copy_into(source, self.buffer, offset + filled, rest)
                .ok()?;
        }
        Some(())
    }
}
