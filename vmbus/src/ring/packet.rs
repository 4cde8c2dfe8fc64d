//! Packet descriptors, and packets as they are read.

use super::memory::RingMemory;
use bitflags::bitflags;
use zerocopy::FromBytes;

/// Bytes of a descriptor.
pub const DESCRIPTOR: u32 = 16;
/// Bytes behind each packet: where it began.
pub const TRAILER: u32 = 8;
/// Largest packet, its descriptor included, as lengths are counted in 16 bits of 8-byte units.
pub const MAX_PACKET: usize = (u16::MAX as usize) * 8;

/// What a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PacketType(pub u16);

impl PacketType {
    /// A payload and nothing else.
    pub const IN_BAND: Self = Self(6);
    /// A payload, and ranges of a transfer page set.
    pub const TRANSFER_PAGES: Self = Self(7);
    /// A payload, and a GPADL.
    pub const GPADL: Self = Self(8);
    /// A payload, and ranges of guest pages.
    pub const GPA_DIRECT: Self = Self(9);
    /// A request is to be given up.
    pub const CANCEL: Self = Self(10);
    /// The answer to the packet of the same transaction.
    pub const COMPLETION: Self = Self(11);
    /// More of a payload, and ranges of a transfer page set.
    pub const ADDITIONAL_DATA: Self = Self(12);
    /// More of a payload.
    pub const ADDITIONAL_DATA_IN_BAND: Self = Self(13);
}

bitflags! {
    /// Flags of a packet.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct PacketFlags: u16 {
        /// The sender waits for a completion.
        const COMPLETION_REQUESTED = 1;
        /// Bits that have no meaning yet.
        const _ = !0;
    }
}

/// The descriptor that begins each packet, its sizes in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Descriptor {
    pub(super) kind: PacketType,
    pub(super) flags: PacketFlags,
    /// Where the payload begins.
    pub(super) data_offset: u32,
    /// All but the trailer.
    pub(super) length: u32,
    pub(super) transaction: u64,
}

impl Descriptor {
    /// The two words as they stand in the ring. Sizes are multiples of 8, at most [`MAX_PACKET`].
    #[inline]
    pub(super) const fn encode(&self) -> [u64; 2] {
        let first = self.kind.0 as u64
            | ((self.data_offset / 8) as u64) << 16
            | ((self.length / 8) as u64) << 32
            | (self.flags.bits() as u64) << 48;
        [first, self.transaction]
    }

    #[inline]
    pub(super) const fn decode(words: [u64; 2]) -> Self {
        Self {
            kind: PacketType(words[0] as u16),
            data_offset: (words[0] >> 16) as u16 as u32 * 8,
            length: (words[0] >> 32) as u16 as u32 * 8,
            flags: PacketFlags::from_bits_retain((words[0] >> 48) as u16),
            transaction: words[1],
        }
    }
}

/// Bytes that a packet does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{length} bytes at {offset} are not inside the packet's {size}")]
pub struct OutsidePacket {
    /// First byte.
    pub offset: usize,
    /// Bytes.
    pub length: usize,
    /// What there is.
    pub size: usize,
}

/// A packet in the ring. Its descriptor was copied and checked; the rest still lies in memory that the peer can change, so
/// each copy of the same bytes may differ: copy once.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    pub(super) memory: &'a RingMemory,
    /// Position of the descriptor.
    pub(super) at: u32,
    pub(super) descriptor: Descriptor,
}

impl<'a> Packet<'a> {
    /// What it is.
    pub const fn kind(&self) -> PacketType {
        self.descriptor.kind
    }

    /// The sender's name for it; a completion has that of the packet it answers.
    pub const fn transaction(&self) -> u64 {
        self.descriptor.transaction
    }

    /// Its flags.
    pub const fn flags(&self) -> PacketFlags {
        self.descriptor.flags
    }

    /// Whether the sender waits for a completion.
    pub const fn wants_completion(&self) -> bool {
        self.descriptor.flags.contains(PacketFlags::COMPLETION_REQUESTED)
    }

    /// Bytes of the payload, padding to a multiple of 8 included.
    #[inline]
    pub const fn payload_size(&self) -> usize {
        (self.descriptor.length - self.descriptor.data_offset) as usize
    }

    /// Copies payload from `offset` on.
    #[inline(always)]
    pub fn copy_payload(&self, offset: usize, into: &mut [u8]) -> Result<(), OutsidePacket> {
        let size = self.payload_size();
        let length = into.len();
        if offset > size || length > size - offset {
            return Err(OutsidePacket { offset, length, size });
        }
        self.copy_at(self.descriptor.data_offset + offset as u32, into);
        Ok(())
    }

    /// Copies payload from its beginning, as much as there is and `into` holds; returns how much that is.
    #[inline]
    pub fn copy_most(&self, into: &mut [u8]) -> usize {
        let length = into.len().min(self.payload_size());
        self.copy_at(self.descriptor.data_offset, &mut into[..length]);
        length
    }

    /// Copies a structure out of the payload.
    #[inline]
    pub fn read<T: FromBytes>(&self, offset: usize) -> Result<T, OutsidePacket> {
        let (size, length) = (self.payload_size(), size_of::<T>());
        if offset > size || length > size - offset {
            return Err(OutsidePacket { offset, length, size });
        }
        let at = self.descriptor.data_offset + offset as u32;
        Ok(self.memory.read(self.at + at))
    }

    /// Bytes between the descriptor and the payload.
    pub(super) const fn header_size(&self) -> u32 {
        self.descriptor.data_offset - DESCRIPTOR
    }

    /// Copies a structure from behind the descriptor.
    #[inline]
    pub(super) fn read_header<T: FromBytes>(&self, offset: u32) -> Result<T, OutsidePacket> {
        let (size, length) = (self.header_size() as usize, size_of::<T>());
        if offset as usize > size || length > size - offset as usize {
            let offset = offset as usize;
            return Err(OutsidePacket { offset, length, size });
        }
        Ok(self.memory.read(self.at + DESCRIPTOR + offset))
    }

    #[inline(always)]
    fn copy_at(&self, offset: u32, into: &mut [u8]) {
        self.memory.copy_out(self.at + offset, into);
    }
}
