//! Packets in parts.

use super::*;

/// Bytes of a packet's data in each part but the last.
const CUT: usize = 1480;

/// A packet in parts, the first one first.
fn cut(bytes: &[u8], id: u16) -> Vec<Vec<u8>> {
    let chunks: Vec<&[u8]> = bytes[34..].chunks(CUT).collect();
    let part = |number: usize| {
        let mut part = [&bytes[..34], chunks[number]].concat();
        let mut packet = Ipv4Packet::new_unchecked(&mut part[14..]);
        packet.set_ident(id);
        packet.set_dont_frag(false);
        packet.set_total_len(20 + chunks[number].len() as u16);
        packet.set_frag_offset((number * CUT) as u16);
        packet.set_more_frags(number + 1 < chunks.len());
        packet.fill_checksum();
        part
    };
    (0..chunks.len()).map(part).collect()
}

/// Parts put together, whose headers are right and say the same, and the name that they have.
fn joined(parts: &[Vec<u8>]) -> (Vec<u8>, u16) {
    let mut whole = parts[0][..34].to_vec();
    let mut heads = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        let packet = Ipv4Packet::new_checked(&part[14..]).unwrap();
        assert!(packet.verify_checksum());
        assert_eq!(usize::from(packet.frag_offset()), number * CUT);
        assert_eq!(packet.more_frags(), number + 1 < parts.len());
        heads.push((
            packet.ident(),
            packet.src_addr(),
            packet.dst_addr(),
            packet.hop_limit(),
        ));
        whole.extend_from_slice(packet.payload());
    }
    assert!(heads.iter().all(|head| *head == heads[0]), "{heads:?}");
    let length = whole.len() - 14;
    let mut packet = Ipv4Packet::new_unchecked(&mut whole[14..]);
    packet.set_total_len(length as u16);
    packet.set_more_frags(false);
    packet.fill_checksum();
    (whole, heads[0].0)
}

#[test]
fn a_packet_in_parts_is_translated_both_ways() {
    let mut world = World::new();
    let mut out = |bytes: &[u8]| -> Vec<Vec<u8>> {
        let parts = cut(bytes, 77).into_iter();
        parts.map(|part| world.inside(&part).unwrap()).collect()
    };
    let data = [0x5a; 4000];
    // Two guests call their packets the same, and are one host outside, whose packets have different names.
    let (first, first_id) = joined(&out(&udp(GUEST, 5000, (FAR, 123), &data)));
    let (second, second_id) = joined(&out(&udp(OTHER_GUEST, 5001, (FAR, 123), &data)));
    assert_eq!(ends(&first), (ROOT, 5000, FAR, 123));
    assert_eq!(ends(&second), (ROOT, 5001, FAR, 123));
    assert_ne!(first_id, second_id);
    let far = Host {
        address: FAR,
        ..ROUTER
    };
    let answer = cut(&udp(far, 123, (ROOT, 5000), &data), 78);
    let back: Vec<Vec<u8>> = answer.iter().map(|part| world.outside(part).unwrap()).collect();
    assert_eq!(ends(&joined(&back).0), (FAR, 123, GUEST.address, 5000));
    // Echo requests as well, which are larger than the uplink's packets.
    let message = Icmpv4Repr::EchoRequest {
        ident: 5002,
        seq_no: 1,
        data: &data,
    };
    let (from, gateway) = to_gateway(GUEST, FAR);
    let asked: Vec<_> = cut(&build::icmp(from, gateway, &message), 79)
        .iter()
        .map(|part| world.inside(part).unwrap())
        .collect();
    assert_eq!(ends(&joined(&asked).0), (ROOT, 5002, FAR, 0));
}

#[test]
fn parts_without_a_beginning_and_parts_for_the_gateway_go_nowhere() {
    let mut world = World::new();
    let parts = cut(&udp(GUEST, 5000, (FAR, 123), &[0; 4000]), 5);
    assert!(world.inside(&parts[1]).is_none());
    world.inside(&parts[0]).unwrap();
    world.inside(&parts[1]).unwrap();
    // Of another packet, and of another guest's.
    assert!(
        world
            .inside(&cut(&udp(GUEST, 5000, (FAR, 123), &[0; 4000]), 6)[1])
            .is_none()
    );
    assert!(
        world
            .inside(&cut(&udp(OTHER_GUEST, 5000, (FAR, 123), &[0; 4000]), 5)[1])
            .is_none()
    );
    for part in cut(&udp(GUEST, 5000, (GATEWAY, 53), &[0; 2000]), 7) {
        assert!(world.inside(&part).is_none());
    }
    assert_eq!(world.dropped(Dropped::Fragment), 5);
    // A part of which its sender says that it is to be cut, or lacks a checksum.
    let mut frame = Frame::of_bytes(&parts[0]);
    frame.checksum = SendChecksum(SendChecksum::UDP);
    assert!(world.step(&frame, true).is_none());
    assert_eq!(world.dropped(Dropped::Malformed), 1);
    // Unasked from outside: it is the root's own, if anybody's.
    let stranger = cut(&udp(ROUTER, 9, (ROOT, 9), &[0; 2000]), 8);
    assert!(stranger.iter().all(|part| world.outside(part).is_none()));
    assert!(world.made.is_empty());
}
