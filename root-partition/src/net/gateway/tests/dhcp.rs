//! Addresses for guests.

use super::*;

/// A DHCP message of the card `mac`.
fn dhcp(mac: Mac, message_type: DhcpMessageType, change: impl FnOnce(&mut DhcpRepr<'_>)) -> Vec<u8> {
    let mut repr = DhcpRepr {
        message_type,
        transaction_id: 0x1234,
        secs: 0,
        client_hardware_address: EthernetAddress(mac.0),
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: false,
        requested_ip: None,
        client_identifier: None,
        server_identifier: None,
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    change(&mut repr);
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..])).unwrap();
    let from = Host {
        mac,
        address: repr.client_ip,
    };
    let everybody = Host {
        mac: Mac::BROADCAST,
        address: Ipv4Addr::BROADCAST,
    };
    build::udp((from, 68), (everybody, 67), &bytes)
}

/// The type of an answer, the address in it, the MTU that it tells.
pub(super) fn answer(world: &mut World) -> (DhcpMessageType, Ipv4Addr, Vec<u8>) {
    let bytes = world.made();
    let message = DhcpPacket::new_checked(&bytes[42..]).unwrap();
    let repr = DhcpRepr::parse(&message).unwrap();
    assert_eq!(
        (repr.transaction_id, repr.server_identifier),
        (0x1234, Some(GATEWAY))
    );
    let mtu = message.options().find(|option| option.kind == 26);
    (
        repr.message_type,
        repr.your_ip,
        mtu.map_or(Vec::new(), |option| option.data.to_vec()),
    )
}

/// Has `mac` get a lease.
pub(super) fn lease(world: &mut World, mac: Mac) -> Ipv4Addr {
    world.inside(&dhcp(mac, DhcpMessageType::Discover, |_| {}));
    let (kind, offered, mtu) = answer(world);
    assert_eq!(
        (kind, &mtu[..]),
        (DhcpMessageType::Offer, &1500_u16.to_be_bytes()[..])
    );
    world.inside(&dhcp(mac, DhcpMessageType::Request, |request| {
        request.requested_ip = Some(offered);
        request.server_identifier = Some(GATEWAY);
    }));
    let (kind, address, _) = answer(world);
    assert_eq!((kind, address), (DhcpMessageType::Ack, offered));
    address
}

#[test]
fn a_card_gets_a_lease_keeps_it_and_gives_it_back() {
    let mut world = World::new();
    let address = lease(&mut world, GUEST.mac);
    assert_ne!(lease(&mut world, OTHER_GUEST.mac), address);
    assert_eq!(lease(&mut world, GUEST.mac), address);
    assert_eq!(world.gateway.dhcp.leases(world.now).count(), 2);
    // Renewed by the address itself.
    world.inside(&dhcp(GUEST.mac, DhcpMessageType::Request, |request| {
        request.client_ip = address
    }));
    assert_eq!(answer(&mut world).0, DhcpMessageType::Ack);
    world.inside(&dhcp(GUEST.mac, DhcpMessageType::Release, |request| {
        request.client_ip = address
    }));
    assert!(world.made.is_empty());
    assert_eq!(world.gateway.dhcp.leases(world.now).count(), 1);
    world.now += 24 * 3600 * SECOND;
    assert_eq!(world.gateway.dhcp.leases(world.now).count(), 0);
}

#[test]
fn an_address_of_another_is_refused_and_one_in_use_is_left_alone() {
    let mut world = World::new();
    let taken = lease(&mut world, OTHER_GUEST.mac);
    for asked in [taken, GATEWAY, FAR, Ipv4Addr::new(192, 168, 86, 255)] {
        world.inside(&dhcp(GUEST.mac, DhcpMessageType::Request, |request| {
            request.requested_ip = Some(asked)
        }));
        assert_eq!(answer(&mut world).0, DhcpMessageType::Nak);
    }
    let address = lease(&mut world, GUEST.mac);
    world.inside(&dhcp(GUEST.mac, DhcpMessageType::Decline, |request| {
        request.requested_ip = Some(address)
    }));
    assert_ne!(lease(&mut world, GUEST.mac), address);
}

#[test]
fn one_card_has_one_lease_whatever_it_says() {
    let mut world = World::new();
    for number in 0..500_u16 {
        let [high, low] = number.to_be_bytes();
        let mut bytes = dhcp(Mac([2, 9, 9, 9, high, low]), DhcpMessageType::Discover, |_| {});
        bytes[6..12].copy_from_slice(&GUEST.mac.0);
        world.inside(&bytes);
    }
    assert!(world.made.is_empty());
    // With cards of their own they take what there is, and no more.
    let mut offers = 0;
    for number in 0..500_u16 {
        let [high, low] = number.to_be_bytes();
        world.inside(&dhcp(
            Mac([2, 9, 9, 9, high, low]),
            DhcpMessageType::Discover,
            |_| {},
        ));
        offers += world.made.drain(..).count();
    }
    assert_eq!(offers, 241);
    world.now += 61 * SECOND;
    lease(&mut world, GUEST.mac);
}

#[test]
fn a_machine_gets_the_address_that_is_fixed_for_it() {
    let mut world = World::new();
    let fixed = Ipv4Addr::new(192, 168, 86, 5);
    let before = lease(&mut world, GUEST.mac);
    world.gateway.fix("web", fixed);
    assert_eq!(
        world.gateway.resolve(&Target::Machine("web".into()), world.now),
        Some(fixed)
    );
    world.inside(&dhcp(GUEST.mac, DhcpMessageType::Request, |request| {
        request.client_ip = before
    }));
    assert_eq!(answer(&mut world).0, DhcpMessageType::Nak);
    assert_eq!(lease(&mut world, GUEST.mac), fixed);
    world.inside(&dhcp(OTHER_GUEST.mac, DhcpMessageType::Request, |request| {
        request.requested_ip = Some(fixed)
    }));
    assert_eq!(answer(&mut world).0, DhcpMessageType::Nak);
}
