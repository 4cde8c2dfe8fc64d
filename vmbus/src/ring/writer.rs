//! The writing end of a ring.

use super::gpa::{
    GpaDirectHeader, GpaRange, OnlyPage, OnlyRange, RangeHeader, TransferHeader, TransferRange,
};
use super::memory::RingMemory;
use super::order::{self, Control, FLOW_CONTROL, free};
use super::packet::{DESCRIPTOR, Descriptor, MAX_PACKET, OutsidePacket, PacketFlags, PacketType, TRAILER};
use super::whole::Whole;
use super::{Corruption, RingError, Signal};
use core::ops::Range;
use core::sync::atomic::Ordering;
use zerocopy::{Immutable, IntoBytes};

/// The writing end of a ring.
#[derive(Debug)]
pub struct Writer {
    memory: RingMemory,
    /// Where the next packet goes. The copy in the control page is for the peer, and is not read back.
    write: u32,
    /// Bytes that are known to be free; more may be. A packet fits if it takes fewer. Zero if the ring is broken.
    free: u32,
    waiting: bool,
    corrupt: Option<Corruption>,
}

impl Writer {
    /// The writing end of `memory`, going on from where it stands.
    pub fn new(memory: RingMemory) -> Result<Self, RingError> {
        let control = memory.control();
        let write = memory.index(control.write_index().load(Ordering::Acquire))?;
        let read = memory.index(control.read_index().load(Ordering::Acquire))?;
        let free = free(memory.size(), read, write);
        Ok(Self {
            memory,
            write,
            free,
            waiting: false,
            corrupt: None,
        })
    }

    /// Bytes of data that the ring has.
    pub const fn size(&self) -> u32 {
        self.memory.size()
    }

    /// Bytes that are free: a packet fits if it takes fewer.
    pub fn free(&self) -> Result<u32, RingError> {
        self.look(self.memory.control().read_index().load(Ordering::Acquire))
            .map_err(RingError::from)
    }

    /// Whether the peer says that it signals when there is room again.
    pub fn peer_signals_room(&self) -> bool {
        self.memory.control().feature_bits().load(Ordering::Relaxed) & FLOW_CONTROL != 0
    }

    /// Begins packets that are seen by the peer together, when they are committed.
    #[inline(always)]
    pub fn batch(&mut self) -> Result<WriteBatch<'_>, RingError> {
        if let Some(corruption) = self.corrupt {
            return Err(corruption.into());
        }
        let (next, free) = (self.write, self.free);
        Ok(WriteBatch {
            writer: self,
            next,
            free,
        })
    }

    /// Writes and commits one in-band packet, made of `parts` in a row.
    #[inline]
    pub fn send(
        &mut self,
        transaction: u64,
        flags: PacketFlags,
        parts: &[&[u8]],
    ) -> Result<Signal, RingError> {
        let mut batch = self.batch()?;
        batch.push(PacketType::IN_BAND, transaction, flags, parts)?;
        Ok(batch.commit())
    }

    /// Writes and commits the completion of `transaction`.
    #[inline]
    pub fn complete(&mut self, transaction: u64, parts: &[&[u8]]) -> Result<Signal, RingError> {
        let mut batch = self.batch()?;
        batch.push(PacketType::COMPLETION, transaction, PacketFlags::empty(), parts)?;
        Ok(batch.commit())
    }

    /// Asks the peer to signal when a packet of `needed` bytes, as [`RingError::Full`] tells, fits; `true` if it does now.
    /// A peer that does not [signal](Self::peer_signals_room) has to be asked again and again.
    pub fn request_space(&mut self, needed: u32) -> Result<bool, RingError> {
        self.waiting = true;
        let read = order::announce_wait(self.memory.control(), needed);
        self.see(read)?;
        let fits = self.free > needed;
        if fits {
            self.stop_waiting();
        }
        Ok(fits)
    }

    /// There is no room in the `free` bytes of a batch, as far as is known, or never will be: looks again.
    #[cold]
    fn look_for_room(&mut self, free: u32, header: usize, length: usize) -> Result<u32, RingError> {
        let needed = length.saturating_add(TRAILER as usize);
        if length > MAX_PACKET || needed >= self.memory.size() as usize || !header.is_multiple_of(8) {
            return Err(RingError::TooLarge(needed));
        }
        if let Some(corruption) = self.corrupt {
            return Err(corruption.into());
        }
        let pushed = self.free - free;
        let read = self.memory.control().read_index().load(Ordering::Acquire);
        self.see(read)?;
        let (free, needed) = (self.free - pushed, needed as u32);
        if needed >= free {
            return Err(RingError::Full { needed });
        }
        if self.waiting {
            self.stop_waiting();
        }
        Ok(free)
    }

    #[cold]
    fn stop_waiting(&mut self) {
        self.waiting = false;
        order::stop_waiting(self.memory.control());
    }

    /// Takes note of how far the peer has read.
    fn see(&mut self, read: u32) -> Result<(), RingError> {
        match self.look(read) {
            Ok(free) => self.free = free,
            Err(corruption) => {
                self.corrupt = Some(corruption);
                self.free = 0;
                return Err(corruption.into());
            }
        }
        Ok(())
    }

    /// Bytes that are free if the peer has read up to `read`: a position between the last one and what was committed.
    fn look(&self, read: u32) -> Result<u32, Corruption> {
        if let Some(corruption) = self.corrupt {
            return Err(corruption);
        }
        let free = free(self.memory.size(), self.memory.index(read)?, self.write);
        if free < self.free {
            Err(Corruption::Index(read))
        } else {
            Ok(free)
        }
    }
}

/// Packets that are being written. Dropped without a commit, they were never there.
#[derive(Debug)]
pub struct WriteBatch<'a> {
    writer: &'a mut Writer,
    next: u32,
    /// What is left of the writer's free bytes.
    free: u32,
}

impl WriteBatch<'_> {
    /// Makes room for a packet whose `header` bytes behind the descriptor, a multiple of 8, and `payload` bytes are then to be filled.
    /// What is not filled holds what lay there before.
    #[inline(always)]
    pub fn reserve(
        &mut self,
        kind: PacketType,
        transaction: u64,
        flags: PacketFlags,
        header: usize,
        payload: usize,
    ) -> Result<Reservation<'_>, RingError> {
        let data_offset = header.saturating_add(DESCRIPTOR as usize);
        let length = data_offset.saturating_add(payload).saturating_add(7) & !7;
        let start = self.claim(header, length)?;
        let (memory, length) = (&self.writer.memory, length as u32);
        let descriptor = Descriptor {
            kind,
            flags,
            data_offset: data_offset as u32,
            length,
            transaction,
        };
        if !payload.is_multiple_of(8) {
            memory.store(start + length - 8, 0);
        }
        memory.store_around(start, descriptor.encode(), length, trailer(start));
        Ok(Reservation {
            memory,
            at: start + DESCRIPTOR,
            length: header + payload,
        })
    }

    /// Takes room for a packet of `length` bytes, a multiple of 8, of which `header` are behind the descriptor; says where it begins.
    #[inline(always)]
    fn claim(&mut self, header: usize, length: usize) -> Result<u32, RingError> {
        let total = length.saturating_add(TRAILER as usize);
        if total >= self.free as usize || length > MAX_PACKET || !header.is_multiple_of(8) {
            self.free = self.writer.look_for_room(self.free, header, length)?;
        }
        // It is a multiple of 8 anyway, but so the compiler knows.
        let start = self.next & !7;
        self.next = self.writer.memory.advance(start, total as u32);
        self.free -= total as u32;
        Ok(start)
    }

    /// Adds a packet of structures: `header` behind the descriptor, then `payload`.
    #[inline(always)]
    fn push_whole<H, P>(
        &mut self,
        kind: PacketType,
        transaction: u64,
        flags: PacketFlags,
        header: &H,
        payload: &P,
    ) -> Result<(), RingError>
    where
        H: IntoBytes + Immutable,
        P: IntoBytes + Immutable,
    {
        let start = self.claim(size_of::<H>(), Whole::<'_, H, P>::LENGTH)?;
        let descriptor = Descriptor {
            kind,
            flags,
            data_offset: Whole::<'_, H, P>::DATA_OFFSET as u32,
            length: Whole::<'_, H, P>::LENGTH as u32,
            transaction,
        };
        let packet = Whole {
            words: descriptor.encode(),
            header,
            payload,
            last: trailer(start),
        };
        self.writer.memory.store_whole(start, &packet);
        Ok(())
    }

    /// Adds a packet whose payload is a structure.
    #[inline(always)]
    pub fn push_value(
        &mut self,
        kind: PacketType,
        transaction: u64,
        flags: PacketFlags,
        payload: &(impl IntoBytes + Immutable),
    ) -> Result<(), RingError> {
        self.push_whole(kind, transaction, flags, &(), payload)
    }

    /// Adds a packet whose payload is `parts` in a row.
    #[inline(always)]
    pub fn push(
        &mut self,
        kind: PacketType,
        transaction: u64,
        flags: PacketFlags,
        parts: &[&[u8]],
    ) -> Result<(), RingError> {
        let length = parts
            .iter()
            .fold(0_usize, |sum, part| sum.saturating_add(part.len()));
        let mut reservation = self.reserve(kind, transaction, flags, 0, length)?;
        for part in parts {
            reservation.append(part);
        }
        Ok(())
    }

    /// Adds a packet that names ranges of this guest's pages; its payload is `payload`.
    pub fn push_gpa_direct(
        &mut self,
        transaction: u64,
        flags: PacketFlags,
        ranges: &[GpaRange<'_>],
        payload: &[u8],
    ) -> Result<(), RingError> {
        let pages = |range: &GpaRange<'_>| size_of::<RangeHeader>() + size_of_val(range.pages);
        let header = size_of::<GpaDirectHeader>() + ranges.iter().map(pages).sum::<usize>();
        let mut packet = self.reserve(PacketType::GPA_DIRECT, transaction, flags, header, payload.len())?;
        packet.append_value(&GpaDirectHeader {
            reserved: 0,
            range_count: ranges.len() as u32,
        });
        for range in ranges {
            packet.append_value(&RangeHeader {
                byte_count: range.byte_count,
                byte_offset: range.byte_offset,
            });
            packet.append(range.pages.as_bytes());
        }
        packet.append(payload);
        Ok(())
    }

    /// As [`push_gpa_direct`](Self::push_gpa_direct), of one range in one page, as most small requests have; `payload` is a structure.
    #[inline(always)]
    pub fn push_gpa_page(
        &mut self,
        transaction: u64,
        flags: PacketFlags,
        page: u64,
        range: Range<u32>,
        payload: &(impl IntoBytes + Immutable),
    ) -> Result<(), RingError> {
        let header = OnlyPage {
            header: GpaDirectHeader {
                reserved: 0,
                range_count: 1,
            },
            range: RangeHeader {
                byte_count: range.end - range.start,
                byte_offset: range.start,
            },
            page,
        };
        self.push_whole(PacketType::GPA_DIRECT, transaction, flags, &header, payload)
    }

    /// Adds a packet that names ranges of the transfer page set `page_set`; its payload is `payload`.
    pub fn push_transfer_pages(
        &mut self,
        transaction: u64,
        flags: PacketFlags,
        page_set: u16,
        ranges: &[TransferRange],
        payload: &[u8],
    ) -> Result<(), RingError> {
        let header = size_of::<TransferHeader>() + size_of_val(ranges);
        let mut packet = self.reserve(
            PacketType::TRANSFER_PAGES,
            transaction,
            flags,
            header,
            payload.len(),
        )?;
        packet.append_value(&TransferHeader::new(page_set, ranges.len() as u32));
        packet.append(ranges.as_bytes());
        packet.append(payload);
        Ok(())
    }

    /// As [`push_transfer_pages`](Self::push_transfer_pages), of one range, as most packets have; `payload` is a structure.
    #[inline(always)]
    pub fn push_transfer_range(
        &mut self,
        transaction: u64,
        flags: PacketFlags,
        page_set: u16,
        range: TransferRange,
        payload: &(impl IntoBytes + Immutable),
    ) -> Result<(), RingError> {
        let header = OnlyRange {
            header: TransferHeader::new(page_set, 1),
            range,
        };
        self.push_whole(PacketType::TRANSFER_PAGES, transaction, flags, &header, payload)
    }

    /// Whether nothing was added.
    pub const fn is_empty(&self) -> bool {
        self.next == self.writer.write
    }

    /// Lets the peer see the packets, and says whether to signal it: only if it had read all that was there before.
    #[inline(always)]
    pub fn commit(self) -> Signal {
        if self.is_empty() {
            return Signal::NotNeeded;
        }
        let Self { writer, next, free } = self;
        writer.free = free;
        let before = core::mem::replace(&mut writer.write, next);
        order::publish_write(writer.memory.control(), before, next)
    }
}

/// What is behind a packet that begins at `start`.
const fn trailer(start: u32) -> u64 {
    (start as u64) << 32
}

/// Room for a packet, to be filled.
#[derive(Debug)]
pub struct Reservation<'a> {
    memory: &'a RingMemory,
    /// Where the next bytes go; beyond the end of the ring it goes on at its begin.
    at: u32,
    /// Bytes that are left.
    length: usize,
}

impl Reservation<'_> {
    /// Bytes that are left.
    pub const fn left(&self) -> usize {
        self.length
    }

    /// Fills the next bytes.
    #[inline]
    pub fn fill(&mut self, bytes: &[u8]) -> Result<(), OutsidePacket> {
        if bytes.len() > self.length {
            return Err(OutsidePacket {
                offset: 0,
                length: bytes.len(),
                size: self.length,
            });
        }
        self.append(bytes);
        Ok(())
    }

    /// Fills the next bytes with a structure.
    #[inline]
    pub fn fill_value(&mut self, value: &(impl IntoBytes + Immutable)) -> Result<(), OutsidePacket> {
        self.fill(value.as_bytes())
    }

    /// Fills the next bytes, which there are.
    #[inline(always)]
    pub(super) fn append(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() <= self.length);
        self.memory.copy_in(self.at, bytes);
        self.at += bytes.len() as u32;
        self.length = self.length.wrapping_sub(bytes.len());
    }

    #[inline(always)]
    fn append_value(&mut self, value: &(impl IntoBytes + Immutable)) {
        self.append(value.as_bytes());
    }
}
