//! The driver against a card made of memory, one that lies included.

use super::card::{Card, CardError};
use super::fake::{ADDRESS, FakeHardware, Fault, ones_sum};
use super::registers::{CAUSE_LINK, CAUSES, ICR, STATUS};
use core::pin::pin;
use core::sync::atomic::Ordering;
use core::task::{Context, Poll, Waker};
use proptest::prelude::*;
use vmbus::protocol::network::packet_info::{LargeSend, ReceiveChecksum, SendChecksum};
use vsp::network::{Body, Frame};

fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

fn card(mtu: usize) -> Card<FakeHardware> {
    let card = now(Card::new(FakeHardware::new(Fault::None), "eth0".into(), mtu)).unwrap();
    card.start();
    card.listen();
    card
}

/// All frames that have come, with what is known of their checksums.
fn received(card: &Card<FakeHardware>) -> Vec<(Vec<u8>, ReceiveChecksum)> {
    let mut seen = Vec::new();
    while card.receive(7, |frame| {
        let mut bytes = vec![0; frame.length];
        frame.copy_to(0, &mut bytes).unwrap();
        seen.push((bytes, frame.known));
    }) {}
    seen
}

/// An IPv4 packet of TCP or UDP without its checksum.
fn packet(protocol: u8, data: &[u8]) -> Vec<u8> {
    let transport: &[u8] = match protocol {
        6 => &[
            0x12, 0x34, 0, 80, 0, 0, 1, 0, 0, 0, 0, 0, 0x50, 0x18, 1, 0, 0, 0, 0, 0,
        ],
        _ => &[0x12, 0x34, 0, 80, 0, 0, 0, 0],
    };
    let mut ip = vec![
        0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    let length = (ip.len() + transport.len() + data.len()) as u16;
    ip[2..4].copy_from_slice(&length.to_be_bytes());
    let sum = !ones_sum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    [
        &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0][..],
        &ip,
        transport,
        data,
    ]
    .concat()
}

/// Whether both checksums of a packet hold.
fn holds(frame: &[u8]) -> bool {
    let length = u16::from_be_bytes([frame[16], frame[17]]);
    let pseudo = [&frame[26..34], &[0, frame[23]], &(length - 20).to_be_bytes()].concat();
    let whole = [&pseudo[..], &frame[34..]].concat();
    usize::from(length) + 14 == frame.len()
        && ones_sum(&frame[14..34]) == 0xffff
        && ones_sum(&whole) == 0xffff
}

#[test]
fn a_card_comes_up_with_its_address_its_link_and_its_interrupt() {
    let card = card(1500);
    assert_eq!(
        (card.address().0, card.link_up(), card.status().speed()),
        (ADDRESS, true, 1000)
    );
    assert_eq!(card.hardware.mask(), CAUSES);
    assert_eq!(card.interrupt(), None);
    assert_eq!(card.hardware.mask(), 0);
}

#[test]
fn cards_that_cannot_be_used_are_told_apart() {
    for (fault, error) in [
        (Fault::Gone, CardError::Gone),
        (Fault::StuckReset, CardError::Stuck),
        (Fault::NoAddress, CardError::Address(Default::default())),
    ] {
        let result = now(Card::new(FakeHardware::new(fault), "eth0".into(), 1500));
        assert_eq!(result.err(), Some(error));
    }
}

#[test]
fn the_link_is_told_once_when_it_changes() {
    let card = card(1500);
    card.hardware.set(STATUS, 0);
    card.hardware.set(ICR, CAUSE_LINK);
    assert_eq!((card.interrupt(), card.link_up()), (Some(false), false));
    assert!(card.send(&Frame::of_bytes(&packet(6, &[])), None, false).is_err());
    card.hardware.set(STATUS, 2);
    assert_eq!((card.look_at_link(), card.look_at_link()), (Some(true), None));
}

#[test]
fn frames_are_received_in_order_over_the_end_of_the_ring_and_in_several_parts() {
    let card = card(9000);
    let mut expected = Vec::new();
    for number in 0..900_usize {
        let mut frame = packet(17, &vec![number as u8; number * 37 % 8900]);
        frame[0] = 2;
        assert!(card.hardware.receive(&frame, 0));
        expected.push(frame);
        if number % 30 == 0 {
            let seen: Vec<_> = received(&card).into_iter().map(|(frame, _)| frame).collect();
            assert_eq!(seen, core::mem::take(&mut expected));
        }
    }
    assert_eq!(card.counters.malformed.load(Ordering::Relaxed), 0);
}

#[test]
fn what_the_card_knows_of_checksums_goes_with_the_frame() {
    let card = card(1500);
    let known = |state| {
        assert!(card.hardware.receive(&packet(6, b"abc"), state));
        received(&card)[0].1
    };
    assert_eq!(known(0), ReceiveChecksum(0));
    let both = ReceiveChecksum::IP_SUCCEEDED | ReceiveChecksum::TCP_SUCCEEDED;
    assert_eq!(known(0x60), ReceiveChecksum(both));
    assert_eq!(known(0x2060), ReceiveChecksum(ReceiveChecksum::IP_SUCCEEDED));
    assert_eq!(known(0x64), ReceiveChecksum(0));
}

#[test]
fn damaged_frames_and_frames_that_are_too_long_are_counted_and_the_next_is_whole() {
    let card = card(1500);
    let good = packet(6, &[7; 100]);
    assert!(card.hardware.receive(&good, 0x0100));
    assert!(card.hardware.receive(&vec![0; 4000], 0));
    assert!(card.hardware.receive(&[0; 13], 0));
    // More than fits the part, and a part that is not full although more follow.
    assert!(card.hardware.receive_part(&[], u16::MAX, 3));
    assert!(card.hardware.receive_part(&[], 5, 1) && card.hardware.receive_part(&[], 5, 3));
    assert!(card.hardware.receive(&good, 0));
    let seen = received(&card);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].0, good);
    assert_eq!(card.counters.damaged.load(Ordering::Relaxed), 1);
    assert_eq!(card.counters.malformed.load(Ordering::Relaxed), 4);
}

#[test]
fn a_frame_without_end_does_not_stop_those_behind_it() {
    let card = card(1500);
    for _ in 0..1000 {
        card.hardware.receive_part(&[1; 2048], 2048, 1);
        received(&card);
    }
    card.hardware.receive_part(&[], 1, 3);
    assert!(card.hardware.receive(&packet(6, &[]), 0));
    assert_eq!(received(&card).len(), 1);
}

#[test]
fn a_frame_is_sent_with_its_tag_and_its_checksum_filled_in() {
    let card = card(1500);
    for protocol in [6, 17] {
        let bytes = packet(protocol, b"hello");
        let mut frame = Frame::of_bytes(&bytes);
        frame.checksum = SendChecksum(if protocol == 6 {
            SendChecksum::TCP
        } else {
            SendChecksum::UDP
        });
        card.send(&frame, None, false).unwrap();
        card.send(&frame, Some(0x2005), false).unwrap();
        let mut sent = card.hardware.send();
        assert!(holds(&sent[0]), "{sent:x?}");
        let tag: Vec<u8> = sent[1].splice(12..16, []).collect();
        assert_eq!(tag, [0x81, 0, 0x20, 5]);
        assert_eq!(sent[0], sent[1]);
    }
}

#[test]
fn a_full_ring_refuses_and_goes_on_once_the_card_has_sent() {
    let card = card(9000);
    let bytes = packet(17, &[1; 8000]);
    let mut count = 0;
    while card.send(&Frame::of_bytes(&bytes), None, false).is_ok() {
        count += 1;
    }
    assert_eq!((count, card.counters.no_room.load(Ordering::Relaxed)), (127, 1));
    assert!(card.progress().0);
    assert_eq!(card.hardware.send(), vec![bytes.clone(); 127]);
    assert!(!card.progress().0);
    assert!(card.send(&Frame::of_bytes(&bytes), None, false).is_ok());
}

#[test]
fn frames_that_are_larger_than_the_wire_takes_are_counted_and_not_sent() {
    let card = card(1500);
    let bytes = packet(17, &[1; 1500]);
    assert!(card.send(&Frame::of_bytes(&bytes), None, false).is_ok());
    assert_eq!(card.counters.unsendable.load(Ordering::Relaxed), 1);
    assert!(card.hardware.send().is_empty());
}

#[test]
fn a_card_that_stopped_is_reset_and_works_again() {
    let card = card(1500);
    let bytes = packet(17, &[1; 100]);
    for _ in 0..20 {
        card.send(&Frame::of_bytes(&bytes), None, false).unwrap();
        card.hardware.receive(&bytes, 0);
    }
    now(card.restart()).unwrap();
    assert!(received(&card).is_empty());
    card.send(&Frame::of_bytes(&bytes), None, false).unwrap();
    assert_eq!(card.hardware.send(), core::slice::from_ref(&bytes));
    assert!(card.hardware.receive(&bytes, 0));
    assert_eq!(received(&card).len(), 1);
    card.hardware.break_down(Fault::Gone);
    assert_eq!(now(card.restart()), Err(CardError::Gone));
    card.give_up();
    assert!(card.hardware.is_cut_off() && card.send(&Frame::of_bytes(&bytes), None, false).is_err());
}

proptest! {
    #[test]
    fn the_card_cuts_large_packets(mss in 64..1460_usize, data in prop::collection::vec(any::<u8>(), 1..20_000), copies in 0..400_usize) {
        let card = card(1500);
        // So that some go over the ring's end.
        for _ in 0..copies {
            card.send(&Frame::of_bytes(&packet(6, &[])), None, false).unwrap();
            card.hardware.send();
        }
        let whole = packet(6, &data);
        let buffer = vsp::buffer::owned(whole.len());
        buffer.copy_from(0, &whole).unwrap();
        let frame = Frame {
            body: Body::Shared(&buffer, 0),
            large: Some(LargeSend::new(mss as u32, 34, false)),
            ..Frame::of_bytes(&whole)
        };
        card.send(&frame, None, false).unwrap();
        let sent = card.hardware.send();
        let mut joined = Vec::new();
        for segment in &sent {
            prop_assert!(holds(segment));
            let sequence = u32::from_be_bytes(segment[38..42].try_into().unwrap());
            prop_assert_eq!(sequence as usize, 0x100 + joined.len());
            prop_assert!(segment.len() <= 54 + mss);
            joined.extend_from_slice(&segment[54..]);
        }
        prop_assert_eq!(joined, data);
    }

    #[test]
    fn a_card_that_lies_is_harmless(parts in prop::collection::vec((any::<u16>(), any::<u16>()), 0..600)) {
        let card = card(9000);
        for (length, state) in parts {
            card.hardware.receive_part(&[], length, state | 1);
            for (frame, _) in received(&card) {
                prop_assert!((14..=9018).contains(&frame.len()));
            }
        }
    }

    #[test]
    fn senders_that_lie_are_harmless(bytes in prop::collection::vec(any::<u8>(), 0..300), large: u32, checksum: u32, tag: Option<u16>, cut: bool) {
        let card = card(1500);
        let mut frame = Frame::of_bytes(&bytes);
        frame.large = (large & 1 == 0).then_some(LargeSend(large));
        frame.checksum = SendChecksum(checksum);
        let _ = card.send(&frame, tag, cut);
        card.progress();
    }
}
