//! What rings do between peers that keep to the rules, and peers that do not.

mod ordering;

use super::gpa::{GpaRange, RangeError, TransferRange};
use super::loopback::{Which, channel};
use super::packet::PacketFlags;
use super::*;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

const NONE: PacketFlags = PacketFlags::empty();

fn receive(reader: &mut Reader) -> Vec<(u64, Vec<u8>)> {
    let mut batch = reader.batch();
    let mut packets = Vec::new();
    while let Some(packet) = batch.next().unwrap() {
        let mut payload = vec![0; packet.payload_size()];
        packet.copy_payload(0, &mut payload).unwrap();
        packets.push((packet.transaction(), payload));
    }
    let _ = batch.finish();
    packets
}

#[test]
fn a_packet_comes_as_it_was_sent() {
    let (mut guest, mut host, _) = channel(1).unwrap();
    let signal = guest
        .outgoing
        .send(7, PacketFlags::COMPLETION_REQUESTED, &[b"hello, ", b"ring!"])
        .unwrap();
    assert_eq!(signal, Signal::Needed);
    let mut batch = host.incoming.batch();
    let packet = batch.next().unwrap().unwrap();
    assert_eq!((packet.kind(), packet.transaction()), (PacketType::IN_BAND, 7));
    assert!(packet.wants_completion());
    assert_eq!(packet.payload_size(), 16);
    assert_eq!(&packet.read::<[u8; 12]>(0).unwrap(), b"hello, ring!");
    assert!(packet.read::<[u8; 8]>(9).is_err() && packet.read::<u8>(usize::MAX).is_err());
    assert!(batch.next().unwrap().is_none());
    assert_eq!(batch.finish(), Signal::NotNeeded);
}

#[test]
fn only_the_first_packet_in_an_empty_ring_signals() {
    let (mut guest, mut host, _) = channel(1).unwrap();
    assert_eq!(guest.outgoing.send(1, NONE, &[b"a"]), Ok(Signal::Needed));
    assert_eq!(guest.outgoing.send(2, NONE, &[b"b"]), Ok(Signal::NotNeeded));
    assert_eq!(receive(&mut host.incoming).len(), 2);
    assert_eq!(guest.outgoing.send(3, NONE, &[b"c"]), Ok(Signal::Needed));
}

#[test]
fn a_masked_reader_is_not_signalled_and_finds_what_came_when_it_unmasks() {
    let (mut guest, mut host, _) = channel(1).unwrap();
    host.incoming.mask();
    assert_eq!(guest.outgoing.send(1, NONE, &[b"a"]), Ok(Signal::NotNeeded));
    assert!(host.incoming.unmask());
    receive(&mut host.incoming);
    assert!(!host.incoming.unmask());
}

#[test]
fn a_batch_is_seen_at_once_or_never() {
    let (mut guest, mut host, _) = channel(1).unwrap();
    let mut never = guest.outgoing.batch().unwrap();
    never.push(PacketType::IN_BAND, 1, NONE, &[b"a"]).unwrap();
    assert!(receive(&mut host.incoming).is_empty());
    let mut batch = guest.outgoing.batch().unwrap();
    for transaction in 2..5 {
        batch
            .push(PacketType::IN_BAND, transaction, NONE, &[b"a"])
            .unwrap();
    }
    assert!(host.incoming.batch().next().unwrap().is_none());
    assert_eq!(batch.commit(), Signal::Needed);
    let transactions: Vec<_> = receive(&mut host.incoming)
        .iter()
        .map(|packet| packet.0)
        .collect();
    assert_eq!(transactions, [2, 3, 4]);
}

#[test]
fn a_batch_that_is_not_finished_comes_again() {
    let (mut guest, mut host, _) = channel(1).unwrap();
    let _ = guest.outgoing.send(1, NONE, &[b"a"]).unwrap();
    assert!(host.incoming.batch().next().unwrap().is_some());
    assert_eq!(receive(&mut host.incoming).len(), 1);
}

#[test]
fn what_comes_while_a_batch_is_read_is_for_the_next_which_unmasking_tells_of() {
    let (mut guest, mut host, _) = channel(1).unwrap();
    let _ = guest.outgoing.send(1, NONE, &[b"a"]).unwrap();
    host.incoming.mask();
    let mut batch = host.incoming.batch();
    assert!(batch.next().unwrap().is_some());
    assert_eq!(guest.outgoing.send(2, NONE, &[b"b"]), Ok(Signal::NotNeeded));
    assert!(batch.next().unwrap().is_none());
    let _ = batch.finish();
    assert!(host.incoming.unmask());
    assert_eq!(receive(&mut host.incoming).len(), 1);
}

#[test]
fn a_writer_that_waits_is_signalled_once_there_is_room() {
    let (mut guest, mut host, _) = channel(1).unwrap();
    let payload = [0; 1000];
    while guest.outgoing.send(1, NONE, &[&payload]).is_ok() {}
    let Err(RingError::Full { needed }) = guest.outgoing.send(1, NONE, &[&payload]) else {
        panic!("the ring should be full");
    };
    assert_eq!(needed, 1024);
    assert_eq!(guest.outgoing.request_space(needed), Ok(false));
    let mut signals = Vec::new();
    for _ in 0..3 {
        let mut batch = host.incoming.batch();
        batch.next().unwrap().unwrap();
        signals.push(batch.finish());
    }
    // 4096 bytes hold three packets, and 1024 that cannot be used up to the last byte.
    assert_eq!(signals, [Signal::Needed, Signal::NotNeeded, Signal::NotNeeded]);
    assert!(guest.outgoing.send(1, NONE, &[&payload]).is_ok());
    let mut batch = host.incoming.batch();
    batch.next().unwrap().unwrap();
    assert_eq!(batch.finish(), Signal::NotNeeded, "nobody waits any more");
}

#[test]
fn a_request_for_room_that_is_there_is_met_at_once() {
    let (mut guest, mut host, hand) = channel(1).unwrap();
    assert_eq!(guest.outgoing.request_space(100), Ok(true));
    assert_eq!(hand.peek(Which::FromGuest, 12), 0);
    assert!(guest.outgoing.peer_signals_room());
    let _ = guest.outgoing.send(1, NONE, &[b"a"]);
    receive(&mut host.incoming);
}

#[test]
fn a_writer_whose_ring_lacks_the_feature_bit_is_not_signalled_and_knows_that() {
    let (mut guest, mut host, hand) = channel(1).unwrap();
    hand.poke_u32(Which::FromGuest, 64, 0);
    assert!(!guest.outgoing.peer_signals_room());
    let payload = [0; 1000];
    while guest.outgoing.send(1, NONE, &[&payload]).is_ok() {}
    assert_eq!(guest.outgoing.request_space(1024), Ok(false));
    let mut batch = host.incoming.batch();
    batch.next().unwrap().unwrap();
    assert_eq!(batch.finish(), Signal::NotNeeded);
}

#[test]
fn packets_up_to_the_rings_capacity_fit() {
    let (mut guest, mut host, _) = channel(2).unwrap();
    let largest = 2 * 4096 - 16 - 8 - 8;
    for round in 0..5 {
        let payload: Vec<u8> = (0..largest).map(|byte| (byte + round) as u8).collect();
        assert!(guest.outgoing.send(1, NONE, &[&payload]).is_ok());
        assert_eq!(receive(&mut host.incoming), [(1, payload)]);
    }
    let more = vec![0; largest + 1];
    assert!(matches!(
        guest.outgoing.send(1, NONE, &[&more]),
        Err(RingError::TooLarge(_))
    ));
}

#[test]
fn ranges_of_pages_come_as_they_were_named() {
    let (mut guest, mut host, _) = channel(1).unwrap();
    let ranges = [
        GpaRange {
            byte_count: 8192,
            byte_offset: 512,
            pages: &[1, 3, 5],
        },
        GpaRange {
            byte_count: 0,
            byte_offset: 0,
            pages: &[],
        },
        GpaRange {
            byte_count: 4096,
            byte_offset: 0,
            pages: &[u64::MAX],
        },
    ];
    let mut batch = guest.outgoing.batch().unwrap();
    batch.push_gpa_direct(9, NONE, &ranges, b"payload!").unwrap();
    let transfers = [TransferRange {
        byte_count: 60,
        byte_offset: 1728,
    }];
    batch
        .push_transfer_pages(10, NONE, 0xcafe, &transfers, b"x")
        .unwrap();
    let _ = batch.commit();

    let mut batch = host.incoming.batch();
    let packet = batch.next().unwrap().unwrap();
    assert_eq!(&packet.read::<[u8; 8]>(0).unwrap(), b"payload!");
    let seen: Vec<_> = packet
        .gpa_ranges()
        .unwrap()
        .map(|range| range.unwrap())
        .map(|range| {
            (
                range.byte_count(),
                range.byte_offset(),
                range.pages().collect::<Vec<_>>(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (8192, 512, vec![1, 3, 5]),
            (0, 0, vec![]),
            (4096, 0, vec![u64::MAX])
        ]
    );
    assert!(matches!(packet.transfer_ranges(), Err(RangeError::OtherType)));
    let packet = batch.next().unwrap().unwrap();
    let (set, ranges) = packet.transfer_ranges().unwrap();
    assert_eq!(
        (set, ranges.collect::<Vec<_>>()),
        (0xcafe, vec![Ok(transfers[0])])
    );
}

/// A packet, and the same made of structures: all of a payload, one page or one range before it.
type Alike = (
    fn(&mut WriteBatch<'_>) -> Result<(), RingError>,
    fn(&mut WriteBatch<'_>) -> Result<(), RingError>,
);

#[test]
fn packets_of_structures_are_the_same_bytes_wherever_the_ring_ends() {
    const PAYLOAD: [u8; 13] = *b"thirteen more";
    let alike: [Alike; 3] = [
        (
            |batch| batch.push(PacketType::COMPLETION, 7, NONE, &[&PAYLOAD]),
            |batch| batch.push_value(PacketType::COMPLETION, 7, NONE, &PAYLOAD),
        ),
        (
            |batch| {
                let range = GpaRange {
                    byte_count: 90,
                    byte_offset: 10,
                    pages: &[5],
                };
                batch.push_gpa_direct(7, NONE, &[range], &PAYLOAD)
            },
            |batch| batch.push_gpa_page(7, NONE, 5, 10..100, &PAYLOAD),
        ),
        (
            |batch| batch.push_transfer_pages(7, NONE, 0xcafe, &[TRANSFER], &PAYLOAD),
            |batch| batch.push_transfer_range(7, NONE, 0xcafe, TRANSFER, &PAYLOAD),
        ),
    ];
    // Each packet begins further on, with other bytes where it is to be.
    for (place, (parts, whole)) in (0..4096 / 8).flat_map(|place| alike.map(|pair| (place, pair))) {
        let rings = [parts, whole].map(|push| {
            let (mut guest, mut host, hand) = channel(1).unwrap();
            for _ in 0..place {
                let _ = guest.outgoing.send(1, NONE, &[&[0xaa; 8]]).unwrap();
                receive(&mut host.incoming);
            }
            let mut batch = guest.outgoing.batch().unwrap();
            push(&mut batch).unwrap();
            assert_eq!(batch.commit(), Signal::Needed);
            (0..hand.ring_size())
                .map(|at| hand.peek(Which::FromGuest, at))
                .collect::<Vec<u8>>()
        });
        assert!(rings[0] == rings[1], "{place} packets before");
    }
}

const TRANSFER: TransferRange = TransferRange {
    byte_count: 60,
    byte_offset: 1728,
};

#[test]
fn an_only_range_comes_with_its_payload_wherever_the_ring_ends() {
    let (mut guest, mut host, _) = channel(1).unwrap();
    for round in 0..4096 / 8 {
        let mut batch = guest.outgoing.batch().unwrap();
        batch
            .push_transfer_range(round, NONE, 0xcafe, TRANSFER, &[round, !round])
            .unwrap();
        let _ = batch.commit();
        let mut batch = host.incoming.batch();
        let packet = batch.next().unwrap().unwrap();
        assert_eq!(packet.only_range(), Some((0xcafe, TRANSFER, [round, !round])));
        assert_eq!(packet.only_range::<[u64; 3]>(), None);
        let _ = batch.finish();
    }
}

#[test]
fn a_packet_of_another_shape_has_no_only_range() {
    let (mut guest, mut host, hand) = channel(1).unwrap();
    let mut batch = guest.outgoing.batch().unwrap();
    batch
        .push_transfer_pages(1, NONE, 1, &[TRANSFER; 2], &[0; 8])
        .unwrap();
    batch.push_gpa_page(2, NONE, 5, 0..1, &[0_u8; 8]).unwrap();
    batch
        .push_transfer_range(3, NONE, 1, TRANSFER, &[0_u8; 8])
        .unwrap();
    let _ = batch.commit();
    // The last one says that it has two ranges.
    let third = 4096 + (16 + 24 + 8 + 8) + (16 + 24 + 8 + 8);
    hand.poke_u32(Which::FromGuest, third + 20, 2);
    let mut batch = host.incoming.batch();
    while let Some(packet) = batch.next().unwrap() {
        assert_eq!(packet.only_range::<u64>(), None, "{}", packet.transaction());
    }
}

/// A message of a pipe, and the hand in the ring's memory.
fn piped(payload: &[u8]) -> (Channel, loopback::Hand) {
    let (mut guest, host, hand) = channel(1).unwrap();
    let mut batch = guest.outgoing.batch().unwrap();
    batch.push_pipe(1, NONE, &[payload]).unwrap();
    let _ = batch.commit();
    (host, hand)
}

#[test]
fn a_message_of_a_pipe_is_as_long_as_its_header_says() {
    let (mut host, _hand) = piped(b"hello, pipe");
    let mut batch = host.incoming.batch();
    let packet = batch.next().unwrap().unwrap();
    let message = packet.pipe_message().unwrap();
    let mut text = [0; 11];
    message.copy(0, &mut text).unwrap();
    assert_eq!(
        (packet.payload_size(), message.size(), &text),
        (24, 11, b"hello, pipe")
    );
    assert!(message.copy(1, &mut text).is_err(), "what pads it is not its own");
}

#[test]
fn headers_of_a_pipe_that_lie_are_refused() {
    // Where in the header, and what the peer may have there. There is room for 8 bytes.
    for (at, value) in [(0, 0), (0, 2), (4, 9), (4, u32::MAX)] {
        let (mut host, hand) = piped(b"abc");
        hand.poke_u32(Which::FromGuest, 4096 + 16 + at, value);
        let mut batch = host.incoming.batch();
        let packet = batch.next().unwrap().unwrap();
        assert!(packet.pipe_message().is_err(), "{value} at {at}");
    }
    let (mut guest, mut host, _) = channel(1).unwrap();
    let _ = guest.outgoing.send(1, NONE, &[b"short"]).unwrap();
    let mut batch = host.incoming.batch();
    assert!(batch.next().unwrap().unwrap().pipe_message().is_err());
}

#[test]
fn ranges_that_are_not_in_the_packet_are_refused() {
    // The count of ranges, then the first range's bytes and offset, as the peer may have them.
    let cases = [
        (2, 4096, 0),
        (u32::MAX, 4096, 0),
        (1, 4097, 0),
        (1, u32::MAX, 0),
        (1, 4096, 4096),
        (1, u32::MAX, 1),
    ];
    for (count, bytes, offset) in cases {
        let (mut guest, mut host, hand) = channel(1).unwrap();
        let range = GpaRange {
            byte_count: 4096,
            byte_offset: 0,
            pages: &[1],
        };
        let mut batch = guest.outgoing.batch().unwrap();
        batch.push_gpa_direct(9, NONE, &[range], b"").unwrap();
        let _ = batch.commit();
        hand.poke_u32(Which::FromGuest, 4096 + 20, count);
        hand.poke_u32(Which::FromGuest, 4096 + 24, bytes);
        hand.poke_u32(Which::FromGuest, 4096 + 28, offset);
        let mut batch = host.incoming.batch();
        let ranges = batch.next().unwrap().unwrap().gpa_ranges().unwrap();
        assert!(
            ranges.take(9).any(|range| range.is_err()),
            "{count} {bytes} {offset}"
        );
    }
}

#[test]
fn indexes_that_are_none_break_the_ring_for_good() {
    for value in [4096, 4, u32::MAX, 8 + 1] {
        let (mut guest, mut host, hand) = channel(1).unwrap();
        let broken = RingError::Corrupt(Corruption::Index(value));
        hand.poke_u32(Which::FromGuest, 0, value);
        assert_eq!(host.incoming.batch().next().unwrap_err(), broken);
        hand.poke_u32(Which::FromGuest, 0, 0);
        assert_eq!(host.incoming.batch().next().unwrap_err(), broken);
        while guest.outgoing.send(1, NONE, &[]).is_ok() {}
        hand.poke_u32(Which::FromGuest, 4, value);
        assert_eq!(guest.outgoing.send(1, NONE, &[]), Err(broken));
        hand.poke_u32(Which::FromGuest, 4, 0);
        assert_eq!(guest.outgoing.send(1, NONE, &[]), Err(broken));
    }
}

#[test]
fn packets_longer_than_what_was_written_break_the_ring() {
    // Data offset and length in units of 8.
    for (offset, length) in [(2_u8, 3_u8), (1, 2), (3, 2), (0, 0), (2, 0)] {
        let (mut guest, mut host, hand) = channel(1).unwrap();
        let _ = guest.outgoing.send(1, NONE, &[]).unwrap();
        hand.poke(Which::FromGuest, 4096 + 2, offset);
        hand.poke(Which::FromGuest, 4096 + 4, length);
        let error = host.incoming.batch().next().unwrap_err();
        assert!(
            matches!(error, RingError::Corrupt(Corruption::Length { .. })),
            "{offset} {length}"
        );
    }
}

proptest! {
    #[test]
    fn a_ring_is_a_queue(steps in prop::collection::vec((any::<bool>(), 0_usize..3000), 1..200)) {
        let (mut guest, mut host, _) = channel(2).unwrap();
        let mut model = VecDeque::new();
        for (number, (write, size)) in steps.into_iter().enumerate() {
            if write {
                let payload: Vec<u8> = (0..size).map(|byte| (byte ^ number) as u8).collect();
                if guest.outgoing.send(number as u64, NONE, &[&payload]).is_ok() {
                    model.push_back((number as u64, payload));
                }
            } else {
                let mut batch = host.incoming.batch();
                let packet = batch.next().unwrap();
                let expected = model.pop_front();
                prop_assert_eq!(packet.is_some(), expected.is_some());
                if let (Some(packet), Some((transaction, payload))) = (packet, expected) {
                    let mut seen = vec![0; payload.len()];
                    packet.copy_payload(0, &mut seen).unwrap();
                    prop_assert_eq!((packet.transaction(), seen), (transaction, payload));
                }
                let _ = batch.finish();
            }
        }
    }

    #[test]
    fn an_evil_peer_breaks_nothing_but_the_ring(
        pokes in prop::collection::vec((any::<bool>(), prop_oneof![0_usize..16, 4096_usize..4300], any::<u8>()), 1..100),
    ) {
        let (mut guest, mut host, hand) = channel(1).unwrap();
        for (index, (from_guest, offset, value)) in pokes.into_iter().enumerate() {
            let ring = if from_guest { Which::FromGuest } else { Which::FromHost };
            hand.poke(ring, offset, value);
            for side in [&mut guest, &mut host] {
                let _ = side.outgoing.send(index as u64, NONE, &[&[value; 50]]);
                let _ = side.outgoing.request_space(u32::from(value) * 40);
                let mut batch = side.incoming.batch();
                for _ in 0..300 {
                    let Ok(Some(packet)) = batch.next() else { break };
                    hand.poke(ring, offset + 8, value);
                    let mut payload = [0; 100];
                    packet.copy_most(&mut payload);
                    if let Ok(ranges) = packet.gpa_ranges() {
                        for range in ranges.take(1000).flatten() {
                            let _ = range.pages().last();
                        }
                    }
                }
                let _ = batch.finish();
            }
        }
    }
}
