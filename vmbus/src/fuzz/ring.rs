//! Both ends of a ring against a peer that writes to it at any moment: to its indexes, to descriptors, and to packets that are being
//! read.

use super::Input;
use crate::ring::gpa::{GpaRange, TransferRange};
use crate::ring::loopback::{Hand, Which, channel};
use crate::ring::packet::{DESCRIPTOR, TRAILER};
use crate::ring::{Channel, Packet, PacketFlags, PacketType, Reader, RingError, Writer};
use alloc::vec;

/// Data pages of each ring.
const PAGES: usize = 2;
/// Largest copy of a payload.
const MOST: usize = 3 * 4096;

/// A channel whose ends are both believed to be the other's enemy. Returns how many packets were read.
pub fn ring(data: &[u8]) -> usize {
    let mut input = Input::new(data);
    let Ok((mut guest, mut host, hand)) = channel(PAGES) else {
        return 0;
    };
    let mut read = 0;
    while !input.is_empty() {
        let end = match input.small(2) {
            0 => &mut guest,
            _ => &mut host,
        };
        let Channel { incoming, outgoing } = end;
        match input.small(8) {
            0..4 => write(outgoing, &mut input),
            4..7 => read += take(incoming, &hand, &mut input),
            _ => poke(&hand, &mut input),
        }
    }
    read
}

/// Sends one packet or a few, of any type.
fn write(writer: &mut Writer, input: &mut Input<'_>) {
    let Ok(mut batch) = writer.batch() else {
        return;
    };
    for _ in 0..=input.small(3) {
        let flags = PacketFlags::from_bits_retain(input.small(2) as u16);
        let transaction = u64::from(input.word());
        let length = input.index(256) * input.index(40);
        let payload = vec![input.byte(); length];
        let pages = [u64::from(input.byte()); 4];
        let (byte_count, byte_offset) = (input.word() % 20000, input.word() % 5000);
        let sent = match input.small(4) {
            0 => {
                let range = GpaRange {
                    byte_count,
                    byte_offset,
                    pages: &pages,
                };
                batch.push_gpa_direct(transaction, flags, &[range], &payload)
            }
            1 => {
                let range = TransferRange {
                    byte_count,
                    byte_offset,
                };
                batch.push_transfer_pages(transaction, flags, 1, &[range], &payload)
            }
            2 => batch.push(PacketType::COMPLETION, transaction, flags, &[&payload]),
            _ => batch.push(PacketType(input.byte().into()), transaction, flags, &[&payload]),
        };
        if let Err(RingError::Full { needed }) = sent {
            assert!(needed > 0);
            break;
        }
    }
    let _ = batch.commit();
}

/// Reads a few packets, while the peer writes to them.
fn take(reader: &mut Reader, hand: &Hand, input: &mut Input<'_>) -> usize {
    let size = reader.size();
    let mut batch = reader.batch();
    let most = input.index(64);
    let mut count = 0;
    while count < most {
        match batch.next() {
            Ok(Some(packet)) => look(&packet, size as usize, hand, input),
            Ok(None) => break,
            Err(RingError::Corrupt(_)) => {
                assert!(batch.next().is_err(), "a ring that is broken stays so");
                return count;
            }
            Err(error) => unreachable!("a reader says {error}"),
        }
        count += 1;
    }
    // Whatever the indexes say, there are no more packets than fit.
    assert!(count <= size as usize / (DESCRIPTOR + TRAILER) as usize);
    if input.small(4) > 0 {
        let _ = batch.finish();
    }
    count
}

/// Looks at all that a packet says, which may change between two looks.
fn look(packet: &Packet<'_>, ring: usize, hand: &Hand, input: &mut Input<'_>) {
    let size = packet.payload_size();
    assert!(size <= ring, "a packet larger than its ring");
    if input.small(3) == 0 {
        poke(hand, input);
    }
    let mut copy = vec![0; size.min(MOST)];
    assert_eq!(packet.copy_most(&mut copy), copy.len());
    assert!(packet.copy_payload(size, &mut [0]).is_err());
    let mut named = 0;
    for range in packet.gpa_ranges().into_iter().flatten().flatten() {
        if input.small(4) == 0 {
            poke(hand, input);
        }
        let pages = range.pages();
        named += pages.len();
        assert!(pages.len() * 4096 >= range.byte_count() as usize);
        assert_eq!(pages.count(), range.pages().len());
        assert!(range.page(range.pages().len() as u32).is_none());
    }
    assert!(named * 8 <= ring, "more pages than the packet has room for");
    if let Ok((_, ranges)) = packet.transfer_ranges() {
        assert!(ranges.flatten().count() * 8 <= ring);
    }
    if let Ok(message) = packet.pipe_message() {
        assert!(message.size() <= size);
    }
}

/// Writes to a ring: one time in two to its indexes and masks.
fn poke(hand: &Hand, input: &mut Input<'_>) {
    let which = [Which::FromGuest, Which::FromHost][input.index(2)];
    match input.small(4) {
        0 => hand.poke(which, input.index(20), input.byte()),
        1 => hand.poke_u32(
            which,
            input.index(4) * 4,
            (input.word() % (2 * PAGES as u32 * 4096)) & !7,
        ),
        _ => hand.poke(which, 4096 + input.word() as usize % (PAGES * 4096), input.byte()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_peer_that_writes_at_any_moment_breaks_nothing_but_its_ring(data in prop::collection::vec(any::<u8>(), 0..2000)) {
            super::ring(&data);
        }
    }
}
