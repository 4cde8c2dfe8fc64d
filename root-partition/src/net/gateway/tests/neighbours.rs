//! Neighbours: who is asked for an address, and who waits for one.

use super::*;

#[test]
fn the_gateway_answers_arp_and_pings() {
    let mut world = World::new();
    world.inside(&build::arp(
        ArpOperation::Request,
        GUEST,
        to_gateway(GUEST, GATEWAY).1,
    ));
    let answer = world.made();
    let message = ArpRepr::parse(&ArpPacket::new_checked(&answer[14..]).unwrap()).unwrap();
    let ArpRepr::EthernetIpv4 {
        operation,
        source_protocol_addr,
        ..
    } = message
    else {
        panic!("{message}")
    };
    assert_eq!((operation, source_protocol_addr), (ArpOperation::Reply, GATEWAY));
    world.inside(&echo(GUEST, GATEWAY, false, 77));
    assert_eq!(ends(&world.made()), (GATEWAY, 77, GUEST.address, 0));
    world.inside(&tcp(GUEST, (GUEST.address, 1), (GATEWAY, 80), 2, b""));
    assert_eq!(world.made()[34..36], [3, 3]);
}

#[test]
fn a_packet_waits_for_the_address_of_a_neighbour_and_then_goes() {
    let mut world = World::new();
    let near = host(0x44, Ipv4Addr::new(10, 0, 2, 99));
    let packet = udp(GUEST, 5000, (near.address, 9), b"first");
    assert!(world.inside(&packet).is_none());
    let question = world.made();
    assert_eq!(
        (&question[..6], &question[38..42]),
        (&[0xff; 6][..], &near.address.octets()[..])
    );
    world.outside(&build::arp(ArpOperation::Reply, near, host(0x56, ROOT)));
    let sent = world.made();
    assert_eq!(
        (&sent[..6], ends(&sent)),
        (&near.mac.0[..], (ROOT, 5000, near.address, 9))
    );
    assert!(world.inside(&packet).is_some());
}
