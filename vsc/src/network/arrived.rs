//! RNDIS packets as the host writes them into the receive buffer. It can change them at any moment: header and values are copied, checked
//! and used as they were copied; then the frame is.

use super::queue::MAX_FRAME;
use crate::memory::Buffer;
use vmbus::protocol::network::ETHERNET_HEADER;
use vmbus::protocol::network::packet_info::{self, Fragment, Info, InfoType, ReceiveChecksum, VlanTag};
use vmbus::protocol::network::rndis::{self, MessageType, PacketHeader};
use vmbus::ring::gpa::TransferRange;

/// Bytes of what is beside a frame at most; more is not looked at.
const MOST_BESIDE: usize = packet_info::MAX_INFOS * size_of::<Info>();

/// A frame that has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// Its bytes.
    pub length: usize,
    /// Its VLAN tag: priority and VLAN, as in a tagged frame.
    pub tag: Option<u16>,
    /// What the host says of its checksums.
    pub checksum: ReceiveChecksum,
    /// The hash of its flow.
    pub hash: Option<u32>,
}

/// A message is no packet, or says what cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct BadMessage;

/// Where the frame of a message is, or a piece of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Part {
    /// Its first byte in the receive buffer.
    start: usize,
    /// What is said of it.
    received: Received,
    /// Which piece it is; `None` for a whole frame.
    fragment: Option<Fragment>,
}

/// Copies the frame of a message to the first bytes of `into`; `None` if that is no frame, or a piece of one.
#[inline(always)]
pub(super) fn whole_frame(buffer: &Buffer, range: TransferRange, into: &mut [u8]) -> Option<Received> {
    let part = read(buffer, range).ok()?;
    let length = part.received.length;
    let place = into.get_mut(..length)?;
    if part.fragment.is_some() || !(ETHERNET_HEADER..=MAX_FRAME).contains(&length) {
        return None;
    }
    buffer.copy_to(part.start, place).ok()?;
    Some(part.received)
}

/// Reads the message in a range of the receive buffer; whether its frame is inside, who copies it finds out.
#[inline(always)]
fn read(buffer: &Buffer, range: TransferRange) -> Result<Part, BadMessage> {
    let (offset, available) = (range.byte_offset as usize, range.byte_count as usize);
    if available < rndis::PACKET_HEADER {
        return Err(BadMessage);
    }
    let PacketHeader { header, packet } = buffer.read(offset).map_err(|_| BadMessage)?;
    let length = header.length as usize;
    if header.message_type != MessageType::PACKET || length > available {
        return Err(BadMessage);
    }
    let inside = |offset: u32, count: u32| {
        let start = (offset as usize).checked_add(rndis::HEADER)?;
        let end = start.checked_add(count as usize)?;
        (start >= rndis::PACKET_HEADER && end <= length).then_some(start..end)
    };
    let data = inside(packet.data_offset, packet.data_length).ok_or(BadMessage)?;
    let start = offset.checked_add(data.start).ok_or(BadMessage)?;
    let beside = match packet.info_length {
        0 => Beside::default(),
        length => {
            let infos = inside(packet.info_offset, length).ok_or(BadMessage)?;
            Beside::read(buffer, offset + infos.start, infos.len())?
        }
    };
    Ok(Part {
        start,
        received: Received {
            length: data.len(),
            tag: beside.tag,
            checksum: beside.checksum,
            hash: beside.hash,
        },
        fragment: beside.fragment,
    })
}

/// Copies the next frame of some messages to the first bytes of `into`, taking no more of them than it needs: a whole frame, as most are, or
/// all pieces of one. What makes no sense is left out, and counted in `bad`.
pub(super) fn next_frame(
    buffer: &Buffer,
    ranges: impl Iterator<Item = TransferRange>,
    into: &mut [u8],
    bad: &mut u64,
) -> Option<Received> {
    let mut joined: Option<Received> = None;
    for range in ranges {
        let before = joined.take();
        let Ok(part) = read(buffer, range) else {
            *bad += 1;
            continue;
        };
        let (first, last) = match part.fragment {
            None => (true, true),
            Some(fragment) => (fragment.has(Fragment::FIRST), fragment.has(Fragment::LAST)),
        };
        let begun = match first {
            true => Some(Received {
                length: 0,
                ..part.received
            }),
            false => before,
        };
        let length = begun.map_or(0, |begun| begun.length);
        let end = length + part.received.length;
        let place = into.get_mut(length..end).filter(|_| end <= MAX_FRAME);
        let copied = place.is_some_and(|place| buffer.copy_to(part.start, place).is_ok());
        let now = begun
            .filter(|_| copied)
            .map(|begun| Received { length: end, ..begun });
        match now {
            Some(frame) if last && end >= ETHERNET_HEADER => return Some(frame),
            Some(piece) if !last => joined = Some(piece),
            _ => *bad += 1,
        }
    }
    None
}

/// What is beside a frame.
#[derive(Clone, Copy, Default)]
struct Beside {
    tag: Option<u16>,
    checksum: ReceiveChecksum,
    hash: Option<u32>,
    fragment: Option<Fragment>,
}

impl Beside {
    #[inline(never)]
    fn read(buffer: &Buffer, start: usize, length: usize) -> Result<Self, BadMessage> {
        let mut bytes = [0; MOST_BESIDE];
        let bytes = bytes.get_mut(..length.min(MOST_BESIDE)).ok_or(BadMessage)?;
        buffer.copy_to(start, bytes).map_err(|_| BadMessage)?;
        let mut beside = Self::default();
        for (info_type, value) in packet_info::iter(bytes) {
            match info_type {
                InfoType::CHECKSUM => beside.checksum = ReceiveChecksum(value),
                InfoType::VLAN => beside.tag = Some(VlanTag(value).tci()),
                InfoType::HASH_VALUE => beside.hash = Some(value),
                InfoType::FRAGMENT => beside.fragment = Some(Fragment(value)),
                _ => {}
            }
        }
        Ok(beside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::of_heap;
    use alloc::vec::Vec;
    use vmbus::protocol::network::rndis::packet_header;
    use zerocopy::IntoBytes;

    const RANGE: TransferRange = TransferRange {
        byte_count: 200,
        byte_offset: 100,
    };

    fn message(infos: &[Info]) -> Vec<u8> {
        let (header, packet) = packet_header(60, infos);
        [header.as_bytes(), packet.as_bytes(), infos.as_bytes(), &[7; 60]].concat()
    }

    fn read_bytes(bytes: &[u8]) -> Result<Part, BadMessage> {
        let buffer = of_heap(4096);
        buffer.copy_from(100, bytes).unwrap();
        read(&buffer, RANGE)
    }

    #[test]
    fn a_message_is_read_with_what_is_beside_it() {
        let infos = [
            Info::new(InfoType::VLAN, VlanTag::from_tci(0x2005).0),
            Info::new(InfoType::CHECKSUM, ReceiveChecksum::TCP_SUCCEEDED),
            Info::new(InfoType::HASH_VALUE, 9),
            Info::new(InfoType::FRAGMENT, Fragment::new(Fragment::FIRST, 3).0),
            Info::new(InfoType(77), 1),
        ];
        for count in 0..=infos.len() {
            let part = read_bytes(&message(&infos[..count])).unwrap();
            let received = Received {
                length: 60,
                tag: (count > 0).then_some(0x2005),
                checksum: ReceiveChecksum(if count > 1 {
                    ReceiveChecksum::TCP_SUCCEEDED
                } else {
                    0
                }),
                hash: (count > 2).then_some(9),
            };
            assert_eq!(part.received, received);
            assert_eq!(part.start, 100 + 44 + count * 16);
            assert_eq!(part.fragment.is_some(), count > 3);
        }
    }

    #[test]
    fn a_message_that_says_what_cannot_be_is_refused() {
        let infos = [Info::new(InfoType::VLAN, 0)];
        // Type, length, and offset and length of data and of what is beside it.
        for (at, value) in [
            (0, 2_u32),
            (4, 201),
            (4, 43),
            (8, 35),
            (8, u32::MAX),
            (12, u32::MAX),
            (12, 157),
            (28, 35),
            (28, u32::MAX),
            (32, u32::MAX),
        ] {
            let mut bytes = message(&infos);
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            assert_eq!(read_bytes(&bytes), Err(BadMessage), "{value} at {at}");
        }
    }

    #[test]
    fn a_range_outside_of_the_buffer_is_refused() {
        let buffer = of_heap(4096);
        buffer.copy_from(4096 - 120, &message(&[])).unwrap();
        for (byte_offset, byte_count) in [
            (4096 - 10, 104),
            (5000, 104),
            (u32::MAX, 104),
            (0, 0),
            (4096 - 120, 43),
        ] {
            let range = TransferRange {
                byte_count,
                byte_offset,
            };
            assert_eq!(read(&buffer, range), Err(BadMessage));
        }
    }

    #[test]
    fn a_frame_that_ends_outside_of_the_buffer_is_refused() {
        let header = &message(&[])[..44];
        for (start, fits) in [(4096 - 104, true), (4096 - 103, false), (4096 - 44, false)] {
            let buffer = of_heap(4096);
            buffer.copy_from(start, header).unwrap();
            let range = TransferRange {
                byte_count: 104,
                byte_offset: start as u32,
            };
            let (mut into, mut bad) = ([0; 100], 0);
            assert_eq!(whole_frame(&buffer, range, &mut into).is_some(), fits);
            let next = next_frame(&buffer, [range].into_iter(), &mut into, &mut bad);
            assert_eq!((next.is_some(), bad), (fits, u64::from(!fits)), "{start}");
        }
    }
}
