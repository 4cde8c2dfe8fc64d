//! Work that senders leave to the card, done in software: cutting large packets, filling in checksums.

use super::frame::Frame;
use crate::switch::frame::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, FrameHeader, HEADER_BYTES};
use alloc::vec::Vec;
use vmbus::protocol::network::packet_info::{ReceiveChecksum, SendChecksum};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Flags of TCP that only the last segment has: FIN and PSH.
const LAST_FLAGS: u8 = 0x09;
/// That only the first has: CWR.
const FIRST_FLAGS: u8 = 0x80;

/// A frame whose work cannot be done: its head does not say what its sender promised.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the frame is not what is said beside it")]
pub struct Unsendable;

/// Where things are in the head of a TCP or UDP packet that is not a fragment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Where the IP header begins.
    pub ip: usize,
    /// It is version 6.
    pub ipv6: bool,
    /// The IP protocol: 6 or 17.
    pub protocol: u8,
    /// Where the TCP or UDP header begins.
    pub transport: usize,
}

impl Layout {
    /// Reads it; `None` where the head does not begin such a packet.
    pub fn read(head: &[u8]) -> Option<Self> {
        let header = FrameHeader::read(head, None)?;
        let ip = header.payload;
        let packet = head.get(ip..)?;
        let (ipv6, protocol, transport) = match header.ethertype {
            ETHERTYPE_IPV4 => {
                let length = usize::from(packet.first()? & 0xf) * 4;
                let fragment = u16::from_be_bytes(*packet.get(6..)?.first_chunk()?) & 0x3fff;
                (
                    false,
                    *packet.get(9)?,
                    (length >= 20 && fragment == 0).then_some(ip + length)?,
                )
            }
            ETHERTYPE_IPV6 => (true, *packet.get(6)?, ip + 40),
            _ => return None,
        };
        let least = match protocol {
            TCP => 20,
            UDP => 8,
            _ => return None,
        };
        (head.len() >= transport + least).then_some(Self {
            ip,
            ipv6,
            protocol,
            transport,
        })
    }

    /// Where the checksum of TCP or UDP is.
    pub const fn checksum(&self) -> usize {
        self.transport + if self.protocol == TCP { 16 } else { 6 }
    }

    /// Where TCP's data begins.
    pub fn data(&self, head: &[u8]) -> Option<usize> {
        let length = usize::from(head.get(self.transport + 12)? >> 4) * 4;
        let data = self.transport + length;
        (self.protocol == TCP && length >= 20 && data <= head.len()).then_some(data)
    }

    /// Sets the lengths in the IP header for a packet of `length` bytes with its Ethernet header, and IPv4's checksum.
    fn set_length(&self, head: &mut [u8], length: usize) {
        if self.ipv6 {
            put16(head, self.ip + 4, length.saturating_sub(self.ip + 40) as u16);
        } else {
            put16(head, self.ip + 2, (length - self.ip.min(length)) as u16);
            fill_ipv4(head);
        }
    }

    /// Puts the sum of the pseudo header where the checksum is to be, as cards want it that add up the rest themselves: of
    /// `length` bytes behind the IP header, or 0 for a card that adds the length of each segment.
    pub fn seed_checksum(&self, head: &mut [u8], length: usize) {
        let seed = fold(self.pseudo(head, length));
        put16(head, self.checksum(), seed);
    }

    /// Makes the length and checksum of the IP header zero, for a card that fills them into each segment.
    pub fn clear_length(&self, head: &mut [u8]) {
        if self.ipv6 {
            put16(head, self.ip + 4, 0);
        } else {
            put16(head, self.ip + 2, 0);
            put16(head, self.ip + 10, 0);
        }
    }

    /// The sum of the pseudo header of a packet with `length` bytes behind the IP header.
    fn pseudo(&self, head: &[u8], length: usize) -> u64 {
        let addresses = match self.ipv6 {
            true => self.ip + 8..self.ip + 40,
            false => self.ip + 12..self.ip + 20,
        };
        head.get(addresses).map_or(0, sum) + u64::from((u16::from(self.protocol)).to_be()) + {
            let [a, b, c, d] = (length as u32).to_be_bytes();
            u64::from(u16::from_ne_bytes([a, b])) + u64::from(u16::from_ne_bytes([c, d]))
        }
    }
}

/// Fills in the checksum of the IPv4 header, whatever the packet is; other frames are left alone.
fn fill_ipv4(head: &mut [u8]) {
    let Some(header) = FrameHeader::read(head, None).filter(|header| header.ethertype == ETHERTYPE_IPV4)
    else {
        return;
    };
    let length = head
        .get(header.payload)
        .map_or(0, |byte| usize::from(byte & 0xf) * 4);
    let checksum = header.payload + 10;
    if length >= 20 && header.payload + length <= head.len() {
        put16(head, checksum, 0);
        let sum = head.get(header.payload..header.payload + length).map_or(0, sum);
        put16(head, checksum, !fold(sum));
    }
}

fn put16(head: &mut [u8], at: usize, value: u16) {
    if let Some(bytes) = head.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *bytes = value.to_be_bytes();
    }
}

/// The sum of the 16-bit words as the processor reads them; a last odd byte counts as if a zero followed.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut sum: u64 = words
        .iter()
        .map(|word| u64::from(u32::from_ne_bytes(*word)))
        .sum();
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    sum += u64::from(u32::from_ne_bytes(last));
    sum
}

/// A sum as 16 bits, big endian.
const fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::from_be(sum as u16)
}

/// A frame or a segment of one: its own head, and bytes of the frame behind it.
pub struct Piece {
    head: [u8; HEADER_BYTES],
    head_length: usize,
    /// Where the rest begins in the frame that this is a piece of.
    pub body_offset: usize,
    /// Bytes of the rest.
    pub body_length: usize,
    /// What is known of its checksums, or holds because nobody had it in hand between.
    pub known: ReceiveChecksum,
    unfilled: bool,
}

impl Piece {
    /// Its first bytes.
    pub fn head(&self) -> &[u8] {
        self.head.get(..self.head_length).unwrap_or(&[])
    }

    /// All its bytes.
    pub const fn length(&self) -> usize {
        self.head_length + self.body_length
    }

    /// Whether its sender has left the checksum of TCP or UDP out.
    pub const fn lacks_checksum(&self) -> bool {
        self.unfilled
    }

    /// Fills in the checksum of TCP or UDP that its sender has left out.
    pub fn fill_checksum(&mut self, frame: &Frame<'_>) -> Result<(), Unsendable> {
        if !core::mem::take(&mut self.unfilled) {
            return Ok(());
        }
        let length = self.length();
        let head = self.head.get_mut(..self.head_length).ok_or(Unsendable)?;
        let layout = Layout::read(head).ok_or(Unsendable)?;
        put16(head, layout.checksum(), 0);
        let own = head.get(layout.transport..).ok_or(Unsendable)?;
        let mut total = layout.pseudo(head, length - layout.transport) + sum(own);
        let odd = !own.len().is_multiple_of(2);
        let mut chunk = [0; 1024];
        let (mut at, mut left) = (self.body_offset, self.body_length);
        while left > 0 {
            let count = left.min(chunk.len());
            let bytes = chunk.get_mut(..count).ok_or(Unsendable)?;
            frame.copy_to(at, bytes).map_err(|_| Unsendable)?;
            // Behind an odd number of bytes each lies in the other half of its word.
            let part = fold(sum(bytes)).to_be();
            total += u64::from(if odd { part.swap_bytes() } else { part });
            (at, left) = (at + count, left - count);
        }
        let checksum = match !fold(total) {
            0 if layout.protocol == UDP => 0xffff,
            checksum => checksum,
        };
        put16(head, layout.checksum(), checksum);
        Ok(())
    }
}

/// What of a frame or a segment goes to a receiver: its head, and bytes of the frame behind it.
#[derive(Clone, Copy)]
pub struct Content<'a> {
    /// Its first bytes.
    pub head: &'a [u8],
    /// Where the rest begins in the frame.
    pub body_offset: usize,
    /// Bytes of the rest.
    pub body_length: usize,
    /// What is known of its checksums.
    pub known: ReceiveChecksum,
}

impl<'a> Content<'a> {
    /// All of a frame on which there is no work to be done; `None` for others.
    #[inline]
    pub fn of_plain(frame: &Frame<'a>) -> Option<Self> {
        let work = SendChecksum::TCP | SendChecksum::UDP | SendChecksum::IP_HEADER;
        if frame.large.is_some() || frame.checksum.has(work) {
            return None;
        }
        Some(Self {
            head: frame.head,
            body_offset: frame.head.len(),
            body_length: frame.length.checked_sub(frame.head.len())?,
            known: frame.known,
        })
    }

    /// All its bytes.
    #[inline]
    pub const fn length(&self) -> usize {
        self.head.len() + self.body_length
    }
}

impl Piece {
    /// What of it goes to a receiver.
    #[inline]
    pub fn content(&self) -> Content<'_> {
        Content {
            head: self.head(),
            body_offset: self.body_offset,
            body_length: self.body_length,
            known: self.known,
        }
    }
}

/// Makes the pieces of `frame` and hands each to `each`, until that says `false`: one, or its segments unless `keep_large`. With `cut_tag`,
/// without the tag that the frame holds.
#[inline]
pub fn pieces(
    frame: &Frame<'_>,
    cut_tag: bool,
    keep_large: bool,
    mut each: impl FnMut(&mut Piece) -> bool,
) -> Result<(), Unsendable> {
    let mut piece = Piece {
        body_offset: frame.head.len(),
        body_length: frame.length.checked_sub(frame.head.len()).ok_or(Unsendable)?,
        head: [0; HEADER_BYTES],
        head_length: 0,
        known: known(frame),
        unfilled: frame.checksum.has(SendChecksum::TCP | SendChecksum::UDP) || frame.large.is_some(),
    };
    let (head_bytes, cut) = frame.head_without_tag(cut_tag, &mut piece.head);
    piece.head_length = head_bytes.len();
    match frame.large {
        Some(large) => {
            let layout = Layout::read(piece.head()).ok_or(Unsendable)?;
            let data = layout
                .data(piece.head())
                .filter(|_| layout.ipv6 == large.is_ipv6());
            let data = data.ok_or(Unsendable)?;
            if keep_large {
                let length = piece.length();
                layout.set_length(&mut piece.head, length);
                each(&mut piece);
                return Ok(());
            }
            segments(frame, &mut piece, layout, data, cut, large.mss() as usize, each)
        }
        None => {
            if frame.checksum.has(SendChecksum::IP_HEADER)
                && let Some(head) = piece.head.get_mut(..piece.head_length)
            {
                fill_ipv4(head);
            }
            each(&mut piece);
            Ok(())
        }
    }
}

fn segments(
    frame: &Frame<'_>,
    piece: &mut Piece,
    layout: Layout,
    data: usize,
    cut: usize,
    mss: usize,
    mut each: impl FnMut(&mut Piece) -> bool,
) -> Result<(), Unsendable> {
    let end = frame.length;
    // Where data begins in the frame, which may hold a tag that the piece does not.
    let mut at = data + cut;
    let (id_at, sequence_at, flags_at) = (layout.ip + 4, layout.transport + 4, layout.transport + 13);
    let behind = |offset: usize| piece.head().get(offset..).unwrap_or(&[]);
    let id = behind(id_at)
        .first_chunk()
        .map_or(0, |bytes| u16::from_be_bytes(*bytes));
    let mut sequence = behind(sequence_at)
        .first_chunk()
        .map_or(0, |bytes| u32::from_be_bytes(*bytes));
    let flags = *piece.head().get(flags_at).ok_or(Unsendable)?;
    let unfilled = piece.unfilled;
    piece.head_length = data;
    // A segment's data is not smaller than this, or a guest would have us make tens of thousands of frames of one.
    let mss = mss.max(64);
    let mut number = 0_u16;
    while at < end {
        let length = mss.min(end - at);
        (piece.body_offset, piece.body_length, piece.unfilled) = (at, length, unfilled);
        let (first, last) = (number == 0, at + length == end);
        let dropped = if last { 0 } else { LAST_FLAGS } | if first { 0 } else { FIRST_FLAGS };
        if let Some(byte) = piece.head.get_mut(flags_at) {
            *byte = flags & !dropped;
        }
        if let Some(bytes) = piece
            .head
            .get_mut(sequence_at..)
            .and_then(|rest| rest.first_chunk_mut())
        {
            *bytes = sequence.to_be_bytes();
        }
        if !layout.ipv6 {
            put16(&mut piece.head, id_at, id.wrapping_add(number));
        }
        layout.set_length(&mut piece.head, data + length);
        if !each(piece) {
            return Ok(());
        }
        at += length;
        sequence = sequence.wrapping_add(length as u32);
        number = number.wrapping_add(1);
    }
    Ok(())
}

/// What a receiver may take for granted: what was checked, and what never left this machine's memory.
fn known(frame: &Frame<'_>) -> ReceiveChecksum {
    let mut known = frame.known.0;
    if frame.large.is_some() || frame.checksum.has(SendChecksum::TCP) {
        known |= ReceiveChecksum::TCP_SUCCEEDED;
    }
    if frame.checksum.has(SendChecksum::UDP) {
        known |= ReceiveChecksum::UDP_SUCCEEDED;
    }
    if frame.large.is_some_and(|large| !large.is_ipv6()) || frame.checksum.has(SendChecksum::IP_HEADER) {
        known |= ReceiveChecksum::IP_SUCCEEDED;
    }
    ReceiveChecksum(known)
}

/// Hands the frames that go out on a real wire, or to a stack without offloads, to `each`: cut, checksums filled in, the tag inside.
pub fn complete(
    frame: &Frame<'_>,
    tag: Option<u16>,
    cut_tag: bool,
    mut each: impl FnMut(&[u8]),
) -> Result<(), Unsendable> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut result = Ok(());
    pieces(frame, cut_tag, false, |piece| {
        result = piece.fill_checksum(frame).and_then(|()| {
            bytes.clear();
            let (addresses, rest) = piece.head().split_at_checked(12).ok_or(Unsendable)?;
            bytes.extend_from_slice(addresses);
            if let Some(tag) = tag {
                bytes.extend([0x81, 0x00]);
                bytes.extend(tag.to_be_bytes());
            }
            bytes.extend_from_slice(rest);
            let head = bytes.len();
            bytes.resize(head + piece.body_length, 0);
            let body = bytes.get_mut(head..).ok_or(Unsendable)?;
            frame.copy_to(piece.body_offset, body).map_err(|_| Unsendable)?;
            each(&bytes);
            Ok(())
        });
        result.is_ok()
    })?;
    result
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use vmbus::protocol::network::packet_info::LargeSend;

    /// A TCP packet, its lengths and checksums zero, as a sender of large packets has it.
    pub(in super::super) fn tcp(ipv6: bool, data: &[u8]) -> Vec<u8> {
        let mut bytes = alloc::vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        bytes.extend(if ipv6 { [0x86, 0xdd] } else { [0x08, 0x00] });
        let ip = bytes.len();
        if ipv6 {
            bytes.extend([0x60, 0, 0, 0, 0, 0, TCP, 64]);
            bytes.extend([0xfd; 32]);
        } else {
            bytes.extend([0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, TCP, 0, 0]);
            bytes.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        }
        assert_eq!(bytes.len(), ip + if ipv6 { 40 } else { 20 });
        bytes.extend([0x12, 0x34, 0, 80]);
        bytes.extend(0xffff_ff00_u32.to_be_bytes());
        bytes.extend([0, 0, 0, 0, 0x80, 0x99, 1, 0, 0, 0, 0, 0]);
        bytes.extend([1; 12]);
        bytes.extend(data);
        bytes
    }

    /// Whether the checksums of a packet hold, worked out a word at a time.
    pub(in super::super) fn checksums_hold(bytes: &[u8]) -> bool {
        let words = |bytes: &[u8]| -> u64 {
            let pairs = bytes
                .chunks(2)
                .map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
            pairs.sum()
        };
        let ones = |mut sum: u64| {
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            sum == 0xffff
        };
        let ipv6 = bytes[12] == 0x86;
        let (start, addresses) = if ipv6 { (54, 22..54) } else { (34, 26..34) };
        let length = bytes.len() - start;
        let said = u16::from_be_bytes([
            bytes[if ipv6 { 18 } else { 16 }],
            bytes[if ipv6 { 19 } else { 17 }],
        ]);
        let ip = ipv6 || ones(words(&bytes[14..34]));
        let protocol = u64::from(bytes[if ipv6 { 20 } else { 23 }]);
        usize::from(said) == length + if ipv6 { 0 } else { 20 }
            && ip
            && ones(words(&bytes[addresses]) + protocol + length as u64 + words(&bytes[start..]))
    }

    fn cut(bytes: &[u8], mss: u32, ipv6: bool) -> Vec<Vec<u8>> {
        let mut frame = Frame::of_bytes(bytes);
        frame.large = Some(LargeSend::new(mss, 0, ipv6));
        let mut seen = Vec::new();
        complete(&frame, None, false, |bytes| seen.push(bytes.to_vec())).unwrap();
        seen
    }

    proptest! {
        #[test]
        fn segments_join_to_what_was_sent(ipv6: bool, mss in 64..1500_u32, data in prop::collection::vec(any::<u8>(), 1..9000)) {
            let whole = tcp(ipv6, &data);
            let header = whole.len() - data.len();
            let seen = cut(&whole, mss, ipv6);
            prop_assert_eq!(seen.len(), data.len().div_ceil(mss as usize));
            let mut joined = Vec::new();
            for (number, bytes) in seen.iter().enumerate() {
                prop_assert!(checksums_hold(bytes));
                let tcp = &bytes[header - 32..];
                let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
                prop_assert_eq!(sequence, 0xffff_ff00_u32.wrapping_add(joined.len() as u32));
                let (first, last) = (number == 0, number + 1 == seen.len());
                prop_assert_eq!(tcp[13], 0x10 | if first { 0x80 } else { 0 } | if last { 9 } else { 0 });
                joined.extend_from_slice(&bytes[header..]);
            }
            prop_assert_eq!(joined, data);
        }

        #[test]
        fn a_checksum_that_was_left_out_is_filled_in(ipv6: bool, data in prop::collection::vec(any::<u8>(), 0..3000)) {
            let mut bytes = tcp(ipv6, &data);
            let length = bytes.len() - if ipv6 { 54 } else { 14 };
            put16(&mut bytes, if ipv6 { 18 } else { 16 }, length as u16);
            let mut frame = Frame::of_bytes(&bytes);
            frame.checksum = SendChecksum::new(SendChecksum::TCP | SendChecksum::IP_HEADER, 0);
            let mut seen = Vec::new();
            complete(&frame, Some(0x2005), false, |bytes| seen = bytes.to_vec()).unwrap();
            prop_assert_eq!(seen.splice(12..16, []).collect::<Vec<_>>(), [0x81, 0, 0x20, 5]);
            prop_assert!(checksums_hold(&seen));
        }

        #[test]
        fn the_sum_of_an_ip_header_is_filled_in_whatever_the_packet_is(protocol: u8, fragment: u16, tagged: bool) {
            let mut bytes = tcp(false, &[]);
            (bytes[23], bytes[24], bytes[25]) = (protocol, 0xee, 0xee);
            put16(&mut bytes, 20, fragment);
            if tagged {
                bytes.splice(12..12, [0x81, 0, 0x20, 5]);
            }
            let mut frame = Frame::of_bytes(&bytes);
            frame.checksum = SendChecksum::new(SendChecksum::IP_HEADER, 0);
            let mut seen = Vec::new();
            complete(&frame, None, false, |bytes| seen = bytes.to_vec()).unwrap();
            let header = if tagged { 18 } else { 14 };
            prop_assert_eq!(fold(sum(&seen[header..header + 20])), 0xffff);
            prop_assert_eq!(&seen[header + 20..], &bytes[header + 20..]);
        }

        #[test]
        fn heads_that_lie_are_harmless(bytes in prop::collection::vec(any::<u8>(), 0..300), large: u32, checksum: u32, cut: bool) {
            let mut frame = Frame::of_bytes(&bytes);
            frame.large = (large & 1 == 0).then_some(LargeSend(large));
            frame.checksum = SendChecksum(checksum);
            let mut total = 0;
            let _ = complete(&frame, None, cut, |bytes| total += bytes.len());
            prop_assert!(total <= 300 * 6);
        }
    }
}
