//! How many flows there are, and how long.

use super::*;

#[test]
fn a_guest_that_opens_flows_without_end_leaves_room_for_others() {
    let mut world = World::new();
    for number in 0..20_000_u32 {
        let to = Ipv4Addr::from_bits(0xc633_0000 + number);
        world.inside(&udp(GUEST, 5000, (to, 9), b""));
    }
    let flows = &world.gateway.flows;
    assert_eq!(flows.len(), MAX_GUEST_FLOWS);
    // The newest are there, and another guest has room.
    assert!(
        world
            .outside(&udp(
                host(0x22, Ipv4Addr::from_bits(0xc633_0000 + 19_999)),
                9,
                (ROOT, 5000),
                b""
            ))
            .is_some()
    );
    assert!(world.inside(&udp(OTHER_GUEST, 5000, (FAR, 9), b"")).is_some());
    for guest in 30..36 {
        let guest = host(guest, Ipv4Addr::new(192, 168, 86, guest));
        for number in 0..MAX_GUEST_FLOWS as u32 {
            world.inside(&udp(
                guest,
                5000,
                (Ipv4Addr::from_bits(0xc633_0000 + number), 9),
                b"",
            ));
        }
    }
    assert_eq!(world.gateway.flows.len(), MAX_FLOWS);
    // With the table full of others' flows, one that has few still gets more.
    for number in 0..100_u32 {
        let to = (Ipv4Addr::from_bits(0xc633_8000 + number), 80);
        assert!(
            world
                .inside(&tcp(OTHER_GUEST, (OTHER_GUEST.address, 4000), to, 2, b""))
                .is_some()
        );
    }
    assert_eq!(world.gateway.flows.len(), MAX_FLOWS);
    let flows = world.gateway.flows.iter();
    let own = flows.filter(|flow| flow.guest.0 == OTHER_GUEST.address);
    assert_eq!(own.count(), 101);
}

#[test]
fn connections_that_are_open_are_not_ended_for_new_ones() {
    let mut world = World::new();
    for number in 0..MAX_GUEST_FLOWS as u32 {
        let far = Ipv4Addr::from_bits(0xc633_0000 + number);
        world
            .inside(&tcp(GUEST, (GUEST.address, 4000), (far, 80), 2, b""))
            .unwrap();
        world
            .outside(&tcp(ROUTER, (far, 80), (ROOT, 4000), 0x12, b""))
            .unwrap();
        world
            .inside(&tcp(GUEST, (GUEST.address, 4000), (far, 80), 0x10, b""))
            .unwrap();
    }
    assert!(
        world
            .inside(&tcp(GUEST, (GUEST.address, 4000), (FAR, 80), 2, b""))
            .is_none()
    );
    assert_eq!(world.dropped(Dropped::TableFull), 1);
    // A guest that only says that it was answered does not keep its flows so.
    let states = world
        .gateway
        .flows
        .iter()
        .filter(|flow| flow.state == State::Established);
    assert_eq!(states.count(), MAX_GUEST_FLOWS);
}

#[test]
fn flows_end_when_they_are_idle() {
    let mut world = World::new();
    world.inside(&udp(GUEST, 5000, (FAR, 123), b"")).unwrap();
    world
        .inside(&tcp(GUEST, (GUEST.address, 4000), (FAR, 80), 2, b""))
        .unwrap();
    world
        .outside(&tcp(ROUTER, (FAR, 80), (ROOT, 4000), 0x12, b""))
        .unwrap();
    world
        .inside(&tcp(GUEST, (GUEST.address, 4000), (FAR, 80), 0x10, b""))
        .unwrap();
    world.now += 61 * SECOND;
    assert!(
        world
            .outside(&udp(host(0x22, FAR), 123, (ROOT, 5000), b""))
            .is_none()
    );
    assert!(
        world
            .outside(&tcp(ROUTER, (FAR, 80), (ROOT, 4000), 0x10, b""))
            .is_some()
    );
    // Both ends say goodbye.
    world
        .inside(&tcp(GUEST, (GUEST.address, 4000), (FAR, 80), 0x11, b""))
        .unwrap();
    world
        .outside(&tcp(ROUTER, (FAR, 80), (ROOT, 4000), 0x11, b""))
        .unwrap();
    world
        .inside(&tcp(GUEST, (GUEST.address, 4000), (FAR, 80), 0x10, b""))
        .unwrap();
    world.now += 21 * SECOND;
    world.gateway.flows.expire(world.now);
    assert!(world.gateway.flows.is_empty());
    // The middle of a connection that is not known begins none.
    assert!(
        world
            .inside(&tcp(GUEST, (GUEST.address, 4000), (FAR, 80), 0x10, b""))
            .is_none()
    );
    assert_eq!(world.dropped(Dropped::NoFlow), 1);
}
