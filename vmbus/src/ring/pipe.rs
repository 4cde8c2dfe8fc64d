//! The framing of channels in pipe mode: a header in each packet's payload.

use super::packet::{OutsidePacket, Packet, PacketFlags, PacketType};
use super::{RingError, WriteBatch};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What begins the payload of each packet of a pipe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PipeHeader {
    /// What follows: [`PipeHeader::DATA`].
    pub message_type: u32,
    /// Bytes that follow, without padding.
    pub size: u32,
}
const _: () = assert!(size_of::<PipeHeader>() == 8);

impl PipeHeader {
    /// Data follow.
    pub const DATA: u32 = 1;

    /// The header of `size` bytes of data.
    pub const fn data(size: u32) -> Self {
        Self {
            message_type: Self::DATA,
            size,
        }
    }
}

/// What is wrong with a packet on a channel in pipe mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PipeError {
    /// It is no in-band packet.
    #[error("a packet of type {0:?} is no message of a pipe")]
    OtherType(PacketType),
    /// It has no header, or less than its header says.
    #[error(transparent)]
    Outside(#[from] OutsidePacket),
    /// Its header is of no type that we know.
    #[error("a message of type {0} is not data")]
    NotData(u32),
}

/// A message of a pipe, in the ring. As with its packet, copy once.
#[derive(Clone, Copy, Debug)]
pub struct PipeMessage<'a> {
    packet: Packet<'a>,
    size: usize,
}

impl<'a> Packet<'a> {
    /// The message of a channel in pipe mode.
    pub fn pipe_message(&self) -> Result<PipeMessage<'a>, PipeError> {
        if self.kind() != PacketType::IN_BAND {
            return Err(PipeError::OtherType(self.kind()));
        }
        let PipeHeader { message_type, size } = self.read(0)?;
        let (start, size) = (size_of::<PipeHeader>(), size as usize);
        if message_type != PipeHeader::DATA {
            return Err(PipeError::NotData(message_type));
        }
        if size > self.payload_size() - start {
            return Err(PipeError::Outside(OutsidePacket {
                offset: start,
                length: size,
                size: self.payload_size(),
            }));
        }
        Ok(PipeMessage { packet: *self, size })
    }
}

impl PipeMessage<'_> {
    /// Bytes of it, without padding.
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Copies it from `offset` on.
    pub fn copy(&self, offset: usize, into: &mut [u8]) -> Result<(), OutsidePacket> {
        let (size, length) = (self.size, into.len());
        if offset > size || length > size - offset {
            return Err(OutsidePacket { offset, length, size });
        }
        self.packet.copy_payload(size_of::<PipeHeader>() + offset, into)
    }
}

impl WriteBatch<'_> {
    /// Adds a message of a channel in pipe mode, made of `parts` in a row.
    pub fn push_pipe(
        &mut self,
        transaction: u64,
        flags: PacketFlags,
        parts: &[&[u8]],
    ) -> Result<(), RingError> {
        let size = parts
            .iter()
            .fold(0_usize, |sum, part| sum.saturating_add(part.len()));
        let total = size.saturating_add(size_of::<PipeHeader>());
        let mut packet = self.reserve(PacketType::IN_BAND, transaction, flags, 0, total)?;
        packet.append(PipeHeader::data(size as u32).as_bytes());
        for part in parts {
            packet.append(part);
        }
        Ok(())
    }
}
