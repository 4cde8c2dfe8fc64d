//! Packets that go nowhere, and what their senders are told.

use super::*;

#[test]
fn errors_about_a_guests_packets_reach_it_as_it_sent_them() {
    let mut world = World::new();
    for bytes in [
        udp(GUEST, 5000, (FAR, 123), b"time"),
        tcp(GUEST, (GUEST.address, 5000), (FAR, 123), 2, b""),
        echo(GUEST, FAR, false, 5000),
    ] {
        let out = world.inside(&bytes).unwrap();
        let root = host(0x56, ROOT);
        let error = build::icmp_error(ROUTER, root, (3, 1), 0, &out[14..]);
        let error = world.outside(&error).unwrap();
        let outer = Ipv4Packet::new_checked(&error[14..]).unwrap();
        assert!(
            outer.verify_checksum()
                && Icmpv4Packet::new_checked(outer.payload())
                    .unwrap()
                    .verify_checksum()
        );
        assert_eq!(
            (outer.src_addr(), outer.dst_addr()),
            (ROUTER.address, GUEST.address)
        );
        // As the guest sent it, but for the hop and what follows from it.
        let mut quoted = outer.payload()[8..].to_vec();
        let inner = &mut Ipv4Packet::new_unchecked(&mut quoted[..]);
        assert!(inner.verify_checksum());
        inner.set_hop_limit(64);
        inner.fill_checksum();
        assert_eq!(quoted[..28], bytes[14..42]);
    }
}

#[test]
fn a_packet_that_the_uplink_cannot_take_is_answered_with_the_mtu() {
    let mut world = World::new();
    assert!(world.inside(&udp(GUEST, 5000, (FAR, 123), &[0; 1473])).is_none());
    let error = world.made();
    assert_eq!(
        (error[34], error[35], &error[40..42]),
        (3, 4, &1500_u16.to_be_bytes()[..])
    );
    assert!(world.inside(&udp(GUEST, 5000, (FAR, 123), &[0; 1472])).is_some());
}

#[test]
fn a_packet_to_be_cut_into_segments_that_the_uplink_cannot_take_is_answered_with_the_mtu() {
    let mut world = World::new();
    world
        .inside(&tcp(GUEST, (GUEST.address, 5000), (FAR, 80), 2, b""))
        .unwrap();
    let bytes = tcp(GUEST, (GUEST.address, 5000), (FAR, 80), 0x10, &[0; 9000]);
    let mut large = |mss| {
        let frame = Frame {
            large: Some(LargeSend::new(mss, 34, false)),
            ..Frame::of_bytes(&bytes)
        };
        world.step(&frame, true)
    };
    assert!(large(1460).is_some());
    assert!(large(1461).is_none());
    let error = world.made();
    assert_eq!(
        (error[34], error[35], &error[40..42]),
        (3, 4, &1500_u16.to_be_bytes()[..])
    );
    assert_eq!(world.dropped(Dropped::TooLarge), 1);
}

#[test]
fn a_packet_that_has_passed_too_many_routers_is_answered() {
    let mut world = World::new();
    let mut bytes = udp(GUEST, 5000, (FAR, 123), b"");
    bytes[22] = 1;
    Ipv4Packet::new_unchecked(&mut bytes[14..]).fill_checksum();
    assert!(world.inside(&bytes).is_none());
    assert_eq!(world.made()[34], 11);
}

#[test]
fn packets_with_wrong_checksums_are_dropped_and_counted() {
    let mut world = World::new();
    let mut bytes = udp(GUEST, 5000, (FAR, 123), &[0; 64]);
    bytes[19] ^= 1;
    assert!(world.inside(&bytes).is_none());
    let mut bytes = udp(ROUTER, 123, (ROOT, 5000), &[0; 64]);
    bytes[19] ^= 1;
    assert!(world.outside(&bytes).is_none());
    assert_eq!(world.dropped(Dropped::Malformed), 2);
}

#[test]
fn a_guest_cannot_send_from_an_address_of_others() {
    let mut world = World::new();
    let leased = lease(&mut world, OTHER_GUEST.mac);
    for address in [leased, GATEWAY, ROOT, FAR] {
        let liar = Host { address, ..GUEST };
        assert!(world.inside(&udp(liar, 5000, (FAR, 123), b"")).is_none());
        let question = build::arp(ArpOperation::Request, liar, to_gateway(GUEST, GATEWAY).1);
        assert!(world.inside(&question).is_none());
    }
    assert_eq!(world.dropped(Dropped::Spoofed), 8);
    assert!(world.made.is_empty());
}

#[test]
fn without_an_uplink_a_guest_is_told() {
    let mut world = World::new();
    world.inside(&udp(GUEST, 5000, (FAR, 123), b"")).unwrap();
    world.gateway.set_outside(None, world.now, &mut Vec::new());
    assert!(world.gateway.flows.is_empty());
    assert!(world.inside(&udp(GUEST, 5000, (FAR, 123), b"")).is_none());
    assert_eq!(world.made()[34..36], [3, 0]);
}
