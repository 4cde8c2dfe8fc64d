//! A frame on its way from one port to others.

use crate::buffer::{Buffer, OutsideBuffer};
use crate::switch::Ingress;
use crate::switch::frame::{HEADER_BYTES, cut_tag};
use crate::switch::port::PortId;
use vmbus::protocol::network::packet_info::{LargeSend, ReceiveChecksum, SendChecksum};

/// Where the bytes of a frame are.
#[derive(Clone, Copy)]
pub enum Body<'a> {
    /// In memory that its owner may change at any moment, from a byte on.
    Shared(&'a Buffer, usize),
    /// In ours.
    Bytes(&'a [u8]),
}

/// A frame. Its first bytes are a copy: what they say holds, whatever their sender makes of them meanwhile.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    /// The first [`HEADER_BYTES`] of the frame, or all of it.
    pub head: &'a [u8],
    /// All of it, those first bytes included.
    pub body: Body<'a>,
    /// Bytes of all of it.
    pub length: usize,
    /// VLAN tag beside it.
    pub tag: Option<u16>,
    /// Checksums that its sender has left to be filled in.
    pub checksum: SendChecksum,
    /// It is to be cut into segments.
    pub large: Option<LargeSend>,
    /// What is known of its checksums.
    pub known: ReceiveChecksum,
}

impl<'a> Frame<'a> {
    /// A frame in our memory, complete.
    pub fn of_bytes(bytes: &'a [u8]) -> Self {
        Self {
            head: bytes.get(..HEADER_BYTES).unwrap_or(bytes),
            body: Body::Bytes(bytes),
            length: bytes.len(),
            tag: None,
            checksum: SendChecksum::default(),
            large: None,
            known: ReceiveChecksum::default(),
        }
    }

    /// As a switch sees it that it comes to now, at `port`.
    #[inline]
    pub fn ingress(&self, port: PortId, now: u64) -> Ingress<'a> {
        Ingress {
            port,
            bytes: self.head,
            length: self.length,
            tag: self.tag,
            now,
        }
    }

    /// Copies bytes of the frame from `offset` on; the first ones come from the copy.
    pub fn copy_to(&self, offset: usize, into: &mut [u8]) -> Result<(), OutsideBuffer> {
        let known = self.head.get(offset..).unwrap_or(&[]);
        let count = known.len().min(into.len());
        let (first, rest) = into.split_at_mut(count);
        first.copy_from_slice(known.get(..count).unwrap_or(&[]));
        self.copy_rest(offset + count, rest)
    }

    fn copy_rest(&self, offset: usize, into: &mut [u8]) -> Result<(), OutsideBuffer> {
        let outside = OutsideBuffer {
            offset,
            length: into.len(),
            size: self.length,
        };
        let end = offset.checked_add(into.len()).filter(|&end| end <= self.length);
        let end = end.ok_or(outside)?;
        match self.body {
            Body::Shared(buffer, start) => buffer.copy_to(start + offset, into),
            Body::Bytes(bytes) => {
                into.copy_from_slice(bytes.get(offset..end).ok_or(outside)?);
                Ok(())
            }
        }
    }

    /// Copies `length` bytes from `offset` on into other shared memory.
    pub fn copy_into(
        &self,
        offset: usize,
        target: &Buffer,
        at: usize,
        length: usize,
    ) -> Result<(), OutsideBuffer> {
        let size = self.length;
        let end = offset.checked_add(length).filter(|&end| end <= size);
        let end = end.ok_or(OutsideBuffer { offset, length, size })?;
        match self.body {
            Body::Shared(buffer, start) => target.copy_across(at, buffer, start + offset, length),
            Body::Bytes(bytes) => target.copy_from(at, bytes.get(offset..end).unwrap_or(&[])),
        }
    }

    /// The first bytes without a tag among them, written to `into`; returns them, and how many bytes fewer than before they are.
    #[inline]
    pub fn head_without_tag<'b>(&self, cut: bool, into: &'b mut [u8; HEADER_BYTES]) -> (&'b mut [u8], usize) {
        let (first, second) = match cut {
            true => cut_tag(self.head),
            false => (self.head, &[][..]),
        };
        let mut length = 0;
        for bytes in [first, second] {
            let room = into.get_mut(length..).unwrap_or_default();
            let bytes = bytes.get(..room.len()).unwrap_or(bytes);
            if let Some(place) = room.get_mut(..bytes.len()) {
                place.copy_from_slice(bytes);
            }
            length += bytes.len();
        }
        let cut = self.head.len().saturating_sub(length);
        (into.get_mut(..length).unwrap_or_default(), cut)
    }
}
