//! The receive ring: parts of memory that the card fills, and frames handed out from there.

use super::descriptor::{DESCRIPTOR, PART, Received};
use crate::memory::dma::{self, DmaMemory};
use alloc::sync::Arc;
use core::sync::atomic::{Ordering, fence};
use vmbus::protocol::network::ETHERNET_HEADER;
use vmbus::protocol::network::packet_info::ReceiveChecksum;
use vsp::buffer::Buffer;
use vsp::network::{Body, Frame};
use vsp::switch::HEADER_BYTES;

/// Descriptors.
pub const ENTRIES: usize = 256;
/// Where a received packet's protocol is: TCP.
const TCP: u8 = 6;

/// Why a frame of the card was thrown away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The card says that it is damaged.
    Damaged,
    /// What the card says of it makes no sense, or it is longer than it may be.
    Malformed,
}

/// The ring.
pub struct ReceiveRing {
    descriptors: DmaMemory,
    parts: Arc<Buffer>,
    /// The descriptor that comes next.
    next: usize,
    /// Where the frame that comes next begins, and how many bytes of it have come.
    start: usize,
    length: usize,
    /// The rest of the frame that is coming is thrown away.
    skipping: bool,
    largest: usize,
}

impl ReceiveRing {
    /// A ring for frames of at most `largest` bytes; `None` where there is no memory.
    pub fn new(largest: usize) -> Option<Self> {
        Some(Self {
            descriptors: DmaMemory::allocate(ENTRIES * DESCRIPTOR)?,
            parts: dma::buffer(ENTRIES * PART)?,
            next: 0,
            start: 0,
            length: 0,
            skipping: false,
            largest,
        })
    }

    /// Makes the ring as it is before the first frame, and returns its address and the tail to tell the card.
    pub fn reset(&mut self) -> (u64, u32) {
        (self.next, self.start, self.length, self.skipping) = (0, 0, 0, false);
        (0..ENTRIES).for_each(|index| self.give(index));
        (self.descriptors.address(0), (ENTRIES - 1) as u32)
    }

    fn give(&self, index: usize) {
        let base = self
            .parts
            .segments()
            .first()
            .map_or(0, |segment| segment.physical());
        self.descriptors.write_u64(index * DESCRIPTOR + 8, 0);
        self.descriptors
            .write_u64(index * DESCRIPTOR, base + (index * PART) as u64);
    }

    /// Whether the card is done with the next descriptor.
    pub fn has_more(&self) -> bool {
        Received::is_done(self.descriptors.read_u32(self.next * DESCRIPTOR + 12))
    }

    /// Takes what the next descriptor holds and hands a frame that ends in it to `each`. Returns the tail to tell the card;
    /// `None` where the card has filled no further descriptor.
    pub fn take(&mut self, each: impl FnOnce(Result<&Frame<'_>, Refused>)) -> Option<u32> {
        let at = self.next * DESCRIPTOR;
        let state = self.descriptors.read_u32(at + 12);
        if !Received::is_done(state) {
            return None;
        }
        // The rest of the descriptor, and the frame, were written before the bit that says so.
        fence(Ordering::Acquire);
        let received = Received::new(self.descriptors.read_u32(at + 8), state);
        let index = self.next;
        self.next = (index + 1) % ENTRIES;
        let length = received.length();
        // Only the last part may leave room behind it, or the frame would not lie in one piece.
        let fits = length <= PART && (received.is_last() || length == PART);
        self.length += length.min(PART);
        if !fits || self.length > self.largest {
            self.skipping = true;
        }
        if received.is_last() {
            let result = match self.skipping {
                _ if received.is_damaged() => Err(Refused::Damaged),
                true => Err(Refused::Malformed),
                false => Ok(()),
            };
            match result {
                Ok(()) => self.hand_out(received, each),
                Err(refused) => each(Err(refused)),
            }
            (self.start, self.length, self.skipping) = (self.next, 0, false);
        }
        self.give(index);
        Some(index as u32)
    }

    fn hand_out(&self, received: Received, each: impl FnOnce(Result<&Frame<'_>, Refused>)) {
        let (offset, room) = (self.start * PART, (ENTRIES - self.start) * PART);
        // A frame that goes over the ring's end is in two pieces.
        let wrapped;
        let (buffer, offset) = if self.length <= room {
            (&*self.parts, offset)
        } else {
            match self.parts.parts([(offset, room), (0, self.length - room)]) {
                Some(parts) => wrapped = parts,
                None => return each(Err(Refused::Malformed)),
            }
            (&wrapped, 0)
        };
        let mut head = [0; HEADER_BYTES];
        let head_length = self.length.min(HEADER_BYTES);
        let head = &mut head[..head_length];
        if self.length < ETHERNET_HEADER || buffer.copy_to(offset, head).is_err() {
            return each(Err(Refused::Malformed));
        }
        let known = known(head, received);
        each(Ok(&Frame {
            head,
            body: Body::Shared(buffer, offset),
            length: self.length,
            tag: None,
            checksum: Default::default(),
            large: None,
            known,
        }));
    }
}

/// What the card found out of a frame's checksums. The card does not say whether it was TCP or UDP.
fn known(head: &[u8], received: Received) -> ReceiveChecksum {
    let mut known = 0;
    if received.ip_is_right() {
        known |= ReceiveChecksum::IP_SUCCEEDED;
    }
    if received.transport_is_right()
        && let Some(layout) = vsp::network::segment::Layout::read(head)
    {
        known |= match layout.protocol {
            TCP => ReceiveChecksum::TCP_SUCCEEDED,
            _ => ReceiveChecksum::UDP_SUCCEEDED,
        };
    }
    ReceiveChecksum(known)
}
