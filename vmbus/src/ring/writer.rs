//! The writing end of a ring.

use super::gpa::{GpaDirectHeader, GpaRange, RangeHeader, TransferHeader, TransferRange};
use super::memory::{FLOW_CONTROL, RingMemory};
use super::packet::{
    DESCRIPTOR, Descriptor, MAX_PACKET, OutsidePacket, PacketFlags, PacketType, TRAILER, advance,
};
use super::{Corruption, RingError, Signal};
use core::sync::atomic::{Ordering, fence};
use zerocopy::{Immutable, IntoBytes};

/// The writing end of a ring.
#[derive(Debug)]
pub struct Writer {
    memory: RingMemory,
    /// Where the next packet goes. The copy in the control page is for the peer, and is not read back.
    write: u32,
    waiting: bool,
    corrupt: Option<Corruption>,
}

impl Writer {
    /// The writing end of `memory`, going on from where it stands.
    pub fn new(memory: RingMemory) -> Result<Self, RingError> {
        let write = index(&memory, memory.control().write_index.load(Ordering::Acquire))?;
        Ok(Self {
            memory,
            write,
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
        if let Some(corruption) = self.corrupt {
            return Err(corruption.into());
        }
        let read = self.memory.control().read_index.load(Ordering::Acquire);
        let read = index(&self.memory, read)?;
        Ok(free(self.memory.size(), read, self.write))
    }

    /// Whether the peer says that it signals when there is room again.
    pub fn peer_signals_room(&self) -> bool {
        self.memory.control().feature_bits.load(Ordering::Relaxed) & FLOW_CONTROL != 0
    }

    /// Begins packets that are seen by the peer together, when they are committed.
    pub fn batch(&mut self) -> Result<WriteBatch<'_>, RingError> {
        let free = match self.free() {
            Ok(free) => free,
            Err(error) => return Err(self.fail(error)),
        };
        let next = self.write;
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
        let control = self.memory.control();
        control.pending_send_size.store(needed, Ordering::Relaxed);
        self.waiting = true;
        // The peer reads the size after it has moved its index: one of us must see what the other wrote.
        fence(Ordering::SeqCst);
        let fits = self.free()? > needed;
        if fits {
            self.stop_waiting();
        }
        Ok(fits)
    }

    fn stop_waiting(&mut self) {
        if self.waiting {
            self.waiting = false;
            self.memory
                .control()
                .pending_send_size
                .store(0, Ordering::Relaxed);
        }
    }

    #[cold]
    fn fail(&mut self, error: RingError) -> RingError {
        if let RingError::Corrupt(corruption) = error {
            self.corrupt = Some(corruption);
        }
        error
    }
}

/// Packets that are being written. Dropped without a commit, they were never there.
#[derive(Debug)]
pub struct WriteBatch<'a> {
    writer: &'a mut Writer,
    next: u32,
    free: u32,
}

impl WriteBatch<'_> {
    /// Makes room for a packet whose `header` bytes behind the descriptor, a multiple of 8, and `payload` bytes are then to be filled.
    /// What is not filled holds what lay there before.
    #[inline]
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
        let total = length.saturating_add(TRAILER as usize);
        if length > MAX_PACKET || !header.is_multiple_of(8) || total >= self.writer.memory.size() as usize {
            return Err(RingError::TooLarge(total));
        }
        let (length, total) = (length as u32, total as u32);
        if self.free <= total {
            self.look_for_room(total)?;
        }
        let memory = &self.writer.memory;
        let size = memory.size();
        let descriptor = Descriptor {
            kind,
            flags,
            data_offset: data_offset as u32,
            length,
            transaction,
        };
        let [first, second] = descriptor.encode();
        let start = self.next;
        memory.set_word(start, first);
        memory.set_word(advance(size, start, 8), second);
        memory.set_word(advance(size, start, length), u64::from(start) << 32);
        self.next = advance(size, start, total);
        self.free -= total;
        Ok(Reservation {
            memory,
            at: advance(size, start, DESCRIPTOR),
            length: header + payload,
        })
    }

    /// Adds a packet whose payload is `parts` in a row.
    #[inline]
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
        packet.append_value(&TransferHeader {
            page_set,
            sender_owns_set: 0,
            reserved: 0,
            range_count: ranges.len() as u32,
        });
        packet.append(ranges.as_bytes());
        packet.append(payload);
        Ok(())
    }

    /// Whether nothing was added.
    pub const fn is_empty(&self) -> bool {
        self.next == self.writer.write
    }

    /// Lets the peer see the packets, and says whether to signal it: only if it had read all that was there before.
    #[inline]
    pub fn commit(self) -> Signal {
        if self.is_empty() {
            return Signal::NotNeeded;
        }
        let Self { writer, next, .. } = self;
        let before = writer.write;
        writer.write = next;
        writer.stop_waiting();
        let control = writer.memory.control();
        control.write_index.store(next, Ordering::Release);
        // The peer moves its index or unmasks, and then looks for packets: one of us must see what the other wrote.
        fence(Ordering::SeqCst);
        let masked = control.interrupt_mask.load(Ordering::Relaxed) != 0;
        if !masked && control.read_index.load(Ordering::Relaxed) == before {
            Signal::Needed
        } else {
            Signal::NotNeeded
        }
    }

    /// The peer may have read on since the batch was begun.
    #[cold]
    fn look_for_room(&mut self, needed: u32) -> Result<(), RingError> {
        let control = self.writer.memory.control();
        let read = index(&self.writer.memory, control.read_index.load(Ordering::Acquire));
        let read = read.map_err(|error| self.writer.fail(error))?;
        self.free = free(self.writer.memory.size(), read, self.next);
        if read == self.next && self.next != self.writer.write {
            // Full to the brim would look empty: the peer claims to have read what it cannot have seen.
            return Err(self.writer.fail(Corruption::Index(read).into()));
        }
        if self.free <= needed {
            return Err(RingError::Full { needed });
        }
        Ok(())
    }
}

/// Room for a packet, to be filled.
#[derive(Debug)]
pub struct Reservation<'a> {
    memory: &'a RingMemory,
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

    /// Fills the next bytes, as many as are left at most.
    #[inline]
    fn append(&mut self, bytes: &[u8]) {
        let bytes = bytes.get(..self.length).unwrap_or(bytes);
        self.memory.copy_in(self.at, bytes);
        self.at = advance(self.memory.size(), self.at, bytes.len() as u32);
        self.length -= bytes.len();
    }

    fn append_value(&mut self, value: &(impl IntoBytes + Immutable)) {
        self.append(value.as_bytes());
    }
}

/// An index that the peer wrote, if it can be one.
#[inline]
pub(super) fn index(memory: &RingMemory, value: u32) -> Result<u32, RingError> {
    if value < memory.size() && value.is_multiple_of(8) {
        Ok(value)
    } else {
        Err(Corruption::Index(value).into())
    }
}

/// Bytes from `write` up to `read`; the whole ring where they are the same.
#[inline]
const fn free(size: u32, read: u32, write: u32) -> u32 {
    if write >= read {
        size - (write - read)
    } else {
        read - write
    }
}
