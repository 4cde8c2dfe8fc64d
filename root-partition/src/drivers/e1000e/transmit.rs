//! The transmit ring: frames are copied into its memory, and the card cuts and completes them.

use super::descriptor::{Context, DESCRIPTOR, Offload, PART, data};
use crate::memory::dma::{self, DmaMemory};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{Ordering, fence};
use vsp::buffer::Buffer;
use vsp::network::Frame;
use vsp::network::segment::{self, Layout, Piece};
use vsp::switch::HEADER_BYTES;

/// Descriptors.
pub const ENTRIES: usize = 512;
/// Largest frame that the card cuts.
pub const LARGEST_TO_CUT: usize = 0xffff + 14;
/// Bytes of a VLAN tag.
const TAG: usize = 4;
/// The IP protocol TCP.
const TCP: u8 = 6;

/// Why a frame is not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotSent {
    /// The ring is full.
    Full,
    /// It is not what is said beside it, or too large.
    Unsendable,
}

/// The ring.
pub struct TransmitRing {
    descriptors: DmaMemory,
    parts: Arc<Buffer>,
    /// The first descriptor that is free, and how many are.
    tail: usize,
    free: usize,
    /// The frames under way: their last descriptors, and how many descriptors each has.
    under_way: VecDeque<(usize, usize)>,
    largest: usize,
}

/// A frame's first bytes as the card gets them, and what it is to do.
struct Start {
    bytes: [u8; HEADER_BYTES + TAG],
    length: usize,
    context: Option<Context>,
    offload: Offload,
}

impl TransmitRing {
    /// A ring for frames of at most `largest` bytes on the wire; `None` where there is no memory.
    pub fn new(largest: usize) -> Option<Self> {
        Some(Self {
            descriptors: DmaMemory::allocate(ENTRIES * DESCRIPTOR)?,
            parts: dma::buffer(ENTRIES * PART)?,
            tail: 0,
            free: ENTRIES - 1,
            under_way: VecDeque::with_capacity(ENTRIES),
            largest,
        })
    }

    /// Makes the ring empty, and returns its address.
    pub fn reset(&mut self) -> u64 {
        (self.tail, self.free) = (0, ENTRIES - 1);
        self.under_way.clear();
        self.descriptors.clear();
        self.descriptors.address(0)
    }

    /// The tail to tell the card.
    pub const fn tail(&self) -> u32 {
        self.tail as u32
    }

    /// Whether the card has anything to do.
    pub fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Takes back the descriptors of frames that the card says it has sent.
    pub fn reclaim(&mut self) {
        while let Some(&(last, count)) = self.under_way.front() {
            if self.descriptors.read_u32(last * DESCRIPTOR + 12) & 1 == 0 {
                return;
            }
            self.under_way.pop_front();
            self.free += count;
        }
    }

    /// Enters a frame with `tag` beside it, without its own tag where `cut_tag`. Returns how many frames it is in the ring:
    /// one, unless the card cannot cut it.
    pub fn push(&mut self, frame: &Frame<'_>, tag: Option<u16>, cut_tag: bool) -> Result<usize, NotSent> {
        let card_cuts = cut_by_card(frame);
        let mut result = Ok(0);
        let done = segment::pieces(frame, cut_tag, card_cuts, |piece| {
            let pushed = self.push_piece(frame, piece, tag);
            match (pushed, &mut result) {
                (Ok(()), Ok(count)) => *count += 1,
                (Err(error), result) => *result = Err(error),
                _ => {}
            }
            result.is_ok()
        });
        match done {
            Ok(()) => result,
            Err(_) => Err(NotSent::Unsendable),
        }
    }

    fn push_piece(&mut self, frame: &Frame<'_>, piece: &Piece, tag: Option<u16>) -> Result<(), NotSent> {
        let start = start(frame, piece, tag).ok_or(NotSent::Unsendable)?;
        let length = start.length + piece.body_length;
        let cut = matches!(start.offload, Offload::Segments { .. });
        if length > self.largest && !cut || length > LARGEST_TO_CUT + TAG {
            return Err(NotSent::Unsendable);
        }
        let count = usize::from(start.context.is_some()) + length.div_ceil(PART);
        if count > self.free {
            self.reclaim();
            if count > self.free {
                return Err(NotSent::Full);
            }
        }
        let first = self.tail;
        let mut at = first;
        if let Some(context) = start.context {
            self.write(at, context.words());
            at = (at + 1) % ENTRIES;
        }
        let base = self
            .parts
            .segments()
            .first()
            .map_or(0, |segment| segment.physical());
        let (mut done, mut last) = (0, at);
        while done < length {
            let part = (length - done).min(PART);
            self.fill(at * PART, &start, frame, piece, done, part)?;
            let command = data(part, done + part == length, start.offload);
            self.write(at, [base + (at * PART) as u64, command]);
            done += part;
            last = at;
            at = (at + 1) % ENTRIES;
        }
        self.tail = at;
        self.free -= count;
        self.under_way.push_back((last, count));
        // The card must see the descriptors before the tail.
        fence(Ordering::Release);
        Ok(())
    }

    fn write(&self, index: usize, [first, second]: [u64; 2]) {
        self.descriptors.write_u64(index * DESCRIPTOR, first);
        self.descriptors.write_u64(index * DESCRIPTOR + 8, second);
    }

    /// Copies `length` bytes of a frame from `from` on to the byte `at` of the ring's memory.
    fn fill(
        &self,
        at: usize,
        start: &Start,
        frame: &Frame<'_>,
        piece: &Piece,
        from: usize,
        length: usize,
    ) -> Result<(), NotSent> {
        let own = &start.bytes[from.min(start.length)..(from + length).min(start.length)];
        let behind = (from + own.len()) - start.length.min(from + own.len());
        let rest = length - own.len();
        let copied = self.parts.copy_from(at, own).and_then(|()| match rest {
            0 => Ok(()),
            _ => frame.copy_into(piece.body_offset + behind, &self.parts, at + own.len(), rest),
        });
        copied.map_err(|_| NotSent::Unsendable)
    }
}

/// A piece's first bytes, with the tag among them and what the card needs to complete it.
fn start(frame: &Frame<'_>, piece: &Piece, tag: Option<u16>) -> Option<Start> {
    let mut bytes = [0; HEADER_BYTES + TAG];
    let (addresses, rest) = piece.head().split_at_checked(12)?;
    let tag_bytes = tag.map(|tag| [0x81, 0, (tag >> 8) as u8, tag as u8]);
    let tag_bytes = tag_bytes.as_ref().map_or(&[][..], |bytes| &bytes[..]);
    let mut length = 0;
    for part in [addresses, tag_bytes, rest] {
        bytes.get_mut(length..length + part.len())?.copy_from_slice(part);
        length += part.len();
    }
    let mut start = Start {
        bytes,
        length,
        context: None,
        offload: Offload::None,
    };
    if piece.lacks_checksum() {
        let head = start.bytes.get_mut(..length)?;
        let layout = Layout::read(head)?;
        // What is left of the frame for the card to cut.
        let segments = match frame.large {
            Some(large) if cut_by_card(frame) => {
                let headers = layout.data(head)?;
                let data = (length + piece.body_length).checked_sub(headers)?;
                // As `segment` has it, or a guest would have the card make tens of thousands of frames of one.
                Some((headers, data, (large.mss() as usize).clamp(64, 0xffff)))
            }
            _ => None,
        };
        match segments {
            Some(_) => {
                layout.clear_length(head);
                layout.seed_checksum(head, 0);
                start.offload = Offload::Segments { ipv6: layout.ipv6 };
            }
            None => {
                layout.seed_checksum(head, length + piece.body_length - layout.transport);
                start.offload = Offload::Checksum;
            }
        }
        start.context = Some(Context {
            ip: layout.ip,
            ipv6: layout.ipv6,
            transport: layout.transport,
            checksum: layout.checksum(),
            tcp: layout.protocol == TCP,
            segments,
        });
    }
    Some(start)
}

const fn cut_by_card(frame: &Frame<'_>) -> bool {
    frame.large.is_some() && frame.length <= LARGEST_TO_CUT
}
