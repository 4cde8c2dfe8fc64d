//! Packets that are translated: outwards, back, and in by forwards.

use super::*;

#[test]
fn a_connection_of_a_guest_goes_out_by_the_roots_address_and_answers_come_back() {
    let mut world = World::new();
    let out = world
        .inside(&tcp(GUEST, (GUEST.address, 4000), (FAR, 80), 2, b""))
        .unwrap();
    assert_eq!(ends(&out), (ROOT, 4000, FAR, 80));
    assert_eq!((&out[..6], out[22]), (&ROUTER.mac.0[..], 63));
    let back = world
        .outside(&tcp(ROUTER, (FAR, 80), (ROOT, 4000), 0x12, b""))
        .unwrap();
    assert_eq!(ends(&back), (FAR, 80, GUEST.address, 4000));
    assert_eq!(&back[..6], &GUEST.mac.0);
    let out = world
        .inside(&tcp(GUEST, (GUEST.address, 4000), (FAR, 80), 0x18, b"GET /"))
        .unwrap();
    assert_eq!((ends(&out), &out[54..]), ((ROOT, 4000, FAR, 80), &b"GET /"[..]));
    assert_eq!(
        world.gateway.flows.iter().next().unwrap().state,
        State::Established
    );
}

#[test]
fn guests_with_the_same_port_to_the_same_host_get_different_ones() {
    let mut world = World::new();
    let out = |world: &mut World, guest: Host| {
        ends(
            &world
                .inside(&tcp(guest, (guest.address, 4000), (FAR, 80), 2, b""))
                .unwrap(),
        )
        .1
    };
    let (first, second) = (out(&mut world, GUEST), out(&mut world, OTHER_GUEST));
    assert!(first == 4000 && second != 4000 && second >= 1024);
    let back = world
        .outside(&tcp(ROUTER, (FAR, 80), (ROOT, second), 0x12, b""))
        .unwrap();
    assert_eq!(ends(&back), (FAR, 80, OTHER_GUEST.address, 4000));
}

#[test]
fn echo_requests_and_udp_are_translated_both_ways() {
    let mut world = World::new();
    let out = world.inside(&echo(GUEST, FAR, false, 0x1234)).unwrap();
    assert_eq!(ends(&out), (ROOT, 0x1234, FAR, 0));
    let back = world.outside(&echo(host(0x22, FAR), ROOT, true, 0x1234)).unwrap();
    assert_eq!(ends(&back), (FAR, 0x1234, GUEST.address, 0));
    let out = world.inside(&udp(GUEST, 5000, (FAR, 123), b"time")).unwrap();
    assert_eq!(ends(&out), (ROOT, 5000, FAR, 123));
    let back = world
        .outside(&udp(host(0x22, FAR), 123, (ROOT, 5000), b"late"))
        .unwrap();
    assert_eq!(ends(&back), (FAR, 123, GUEST.address, 5000));
}

#[test]
fn a_datagram_without_a_checksum_stays_without() {
    let mut world = World::new();
    let mut bytes = udp(GUEST, 5000, (FAR, 123), b"time");
    bytes[40..42].fill(0);
    assert_eq!(world.inside(&bytes).unwrap()[40..42], [0, 0]);
}

#[test]
fn what_a_card_is_to_fill_in_is_left_to_it() {
    let mut world = World::new();
    let mut bytes = tcp(GUEST, (GUEST.address, 4000), (FAR, 80), 2, b"");
    bytes[50..52].fill(0xee);
    let mut frame = Frame::of_bytes(&bytes);
    frame.checksum = SendChecksum(SendChecksum::TCP);
    assert_eq!(ends(&world.step(&frame, true).unwrap().1), (ROOT, 4000, FAR, 80));
    let mut bytes = tcp(GUEST, (GUEST.address, 4000), (FAR, 80), 0x10, &[7; 5000]);
    bytes[16..18].fill(0);
    bytes[24..26].fill(0);
    let mut frame = Frame::of_bytes(&bytes);
    frame.large = Some(LargeSend::new(1460, 34, false));
    let whole = world.step(&frame, true).unwrap().1;
    assert_eq!(whole.len(), 5000 + 4 * 54);
    assert_eq!(ends(&whole[..1514]), (ROOT, 4000, FAR, 80));
}

#[test]
fn questions_for_names_go_to_the_roots_name_server_and_answers_seem_the_gateways() {
    let mut world = World::new();
    let out = world.inside(&udp(GUEST, 5353, (GATEWAY, 53), b"who")).unwrap();
    assert_eq!(ends(&out), (ROOT, 5353, NAMES.address, 53));
    let back = world.outside(&udp(NAMES, 53, (ROOT, 5353), b"you")).unwrap();
    assert_eq!(ends(&back), (GATEWAY, 53, GUEST.address, 5353));
    let out = world
        .inside(&tcp(GUEST, (GUEST.address, 5353), (GATEWAY, 53), 2, b""))
        .unwrap();
    assert_eq!(ends(&out), (ROOT, 5353, NAMES.address, 53));
}

#[test]
fn nobody_reaches_a_guest_unasked() {
    let mut world = World::new();
    assert!(
        world
            .outside(&tcp(ROUTER, (FAR, 80), (ROOT, 4000), 2, b""))
            .is_none()
    );
    assert!(world.outside(&udp(ROUTER, 53, (ROOT, 4000), b"")).is_none());
    world.inside(&udp(GUEST, 5000, (FAR, 123), b"")).unwrap();
    assert!(
        world
            .outside(&udp(host(0x22, FAR), 124, (ROOT, 5000), b""))
            .is_none()
    );
    assert!(world.outside(&udp(ROUTER, 123, (ROOT, 5000), b"")).is_none());
    // To the guest's address itself: that is not the root's.
    assert!(
        world
            .outside(&udp(host(0x22, FAR), 123, (GUEST.address, 5000), b""))
            .is_none()
    );
}

#[test]
fn a_forward_leads_to_a_machine_by_its_lease_and_ends_with_its_flows() {
    let mut world = World::new();
    let ask = tcp(ROUTER, (FAR, 50_000), (ROOT, 8080), 2, b"");
    assert!(world.outside(&ask).is_none());
    assert_eq!(world.dropped(Dropped::Unresolved), 3);
    let address = lease(&mut world, GUEST.mac);
    let came = world.outside(&ask).unwrap();
    assert_eq!(ends(&came), (FAR, 50_000, address, 80));
    let guest = Host { address, ..GUEST };
    let answer = tcp(guest, (address, 80), (FAR, 50_000), 0x12, b"");
    assert_eq!(ends(&world.inside(&answer).unwrap()), (ROOT, 8080, FAR, 50_000));
    // A guest's own connection gets another port than the forwarded one.
    let own = world
        .inside(&tcp(guest, (address, 8080), (FAR, 80), 2, b""))
        .unwrap();
    assert_ne!(ends(&own).1, 8080);
    let from = PublicPort {
        protocol: Protocol::Tcp,
        port: 8080,
    };
    world.gateway.end_forward(from).unwrap();
    assert!(world.inside(&answer).is_none() && world.outside(&ask).is_none());
    assert!(world.gateway.end_forward(from).is_err());
}

/// The options of a packet that begins a connection, `before` first and then the largest segment.
fn begins(before: &[u8], size: u16) -> Vec<u8> {
    let size = [&[2, 4], &size.to_be_bytes()[..]].concat();
    let mut options = [before, &size, &[0; 4]].concat();
    options.truncate(options.len() / 4 * 4);
    options
}

#[test]
fn neither_end_of_a_connection_sends_segments_that_the_uplink_cannot_take() {
    // At an even place, at an odd one, and behind another option.
    for before in [&[][..], &[1], &[3, 3, 7]] {
        for (asked, told) in [(8960, 1460), (1461, 1460), (1460, 1460), (536, 536)] {
            let mut world = World::new();
            let sent = with_options(
                tcp(GUEST, (GUEST.address, 5000), (FAR, 80), 2, b""),
                &begins(before, asked),
            );
            let out = world.inside(&sent).unwrap();
            assert_eq!(ends(&out), (ROOT, 5000, FAR, 80));
            assert_eq!(out[54..], begins(before, told));
            let answer = with_options(
                tcp(ROUTER, (FAR, 80), (ROOT, 5000), 0x12, b""),
                &begins(before, asked),
            );
            let back = world.outside(&answer).unwrap();
            assert_eq!(ends(&back), (FAR, 80, GUEST.address, 5000));
            assert_eq!(back[54..], begins(before, told));
        }
    }
}

#[test]
fn what_only_looks_like_the_beginning_of_a_connection_stays_as_it_is() {
    let mut world = World::new();
    world
        .inside(&tcp(GUEST, (GUEST.address, 5000), (FAR, 80), 2, b""))
        .unwrap();
    let later = with_options(
        tcp(GUEST, (GUEST.address, 5000), (FAR, 80), 0x10, b""),
        &begins(&[], 8960),
    );
    assert_eq!(world.inside(&later).unwrap()[54..], later[54..]);
    // Options that lie about their lengths, and end in the middle of one.
    for options in [&[2, 4, 35, 0][..3], &[3, 0, 0, 0], &[9, 200, 2, 4], &[1, 1, 1, 2]] {
        let mut whole = options.to_vec();
        whole.resize(4, 2);
        let sent = with_options(tcp(GUEST, (GUEST.address, 6000), (FAR, 80), 2, b""), &whole);
        let out = world.inside(&sent).unwrap();
        assert_eq!(ends(&out).1, 6000);
    }
}
