//! Channels, devices and connections from their beginning to their end.

use super::*;

#[test]
fn every_version_carries_a_channel_from_offer_to_unload() {
    for version in Version::ALL {
        let mut world = World::of(version);
        let id = world.offer(device(1));
        let (client, mut out) = world.guest();
        client.connect(&mut out).unwrap();
        world.settle();
        assert_eq!(world.heard(), [Event::Connected(version, Default::default())]);
        assert_eq!(world.server.version(), Some(version));
        let (client, mut out) = world.guest();
        client.request_offers(&mut out).unwrap();
        world.settle();
        let [
            Event::Offered(OfferedChannel {
                relid,
                offer,
                dedicated_interrupt: true,
                ..
            }),
            Event::OffersDelivered,
        ] = &world.heard()[..]
        else {
            panic!("no offer");
        };
        assert_eq!(*offer, device(1));
        let relid = *relid;
        let gpadl = world.open(relid);
        let request = world.owner.open[&id];
        assert_eq!(
            (request.gpadl, request.pages, request.downstream_page_offset),
            (gpadl, 8, 4)
        );
        assert_eq!(
            (request.target_vp, request.user_data),
            (VpIndex(1), [7; OPEN_USER_DATA])
        );
        let (client, mut out) = world.guest();
        let modified = client.modify(relid, VpIndex(0), &mut out);
        world.settle();
        match version {
            _ if version < Version::V4_1 => assert_eq!(modified, Err(ClientError::Version(version))),
            _ if version < Version::V5_3 => assert_eq!(world.heard(), []),
            _ => assert_eq!(world.heard(), [Event::Modified(relid, Ok(()))]),
        }
        world.close(relid);
        world.tear_down(gpadl);
        world.settle();
        assert_eq!(world.heard(), [Event::GpadlTornDown(gpadl)]);
        let (client, mut out) = world.guest();
        client.unload(&mut out).unwrap();
        world.settle();
        assert_eq!(world.heard(), [Event::Unloaded]);
        assert!(world.server.is_idle());
    }
}

#[test]
fn a_guest_falls_back_until_the_host_speaks_its_version() {
    let mut world = World::of(Version::V6_0);
    let (client, mut out) = world.guest();
    client.connect(&mut out).unwrap();
    for version in &Version::ALL[..8] {
        let message = world.posted.pop_front().unwrap();
        assert_eq!(message[8..12], version.0.to_le_bytes());
        let refusal = ChannelMessage::VersionResponse(VersionResponse {
            supported: 0,
            connection_state: 0,
            reserved: 0,
            message_connection: hypercall_api::port::ConnectionId(0),
        });
        let (client, mut out) = world.guest();
        match *version >= Version::V5_0 {
            true => client.receive(&refusal.encode(), &mut out),
            // A host may lack the connection altogether.
            false => client.contact_refused(&mut out),
        }
    }
    world.settle();
    assert_eq!(
        world.heard(),
        [Event::Connected(Version::V2_4, Default::default())]
    );
}

#[test]
fn a_fresh_contact_waits_until_devices_have_let_go_of_what_was_before() {
    let (mut world, ids, relids) = World::connected(2);
    world.open(relids[0]);
    world.gpadl(relids[1], 30);
    assert!(world.answers(&contact(Version::V4_0).encode()).is_empty());
    assert_eq!(world.state(ids[0]), ChannelState::Closing);
    while world.server.version().is_none() {
        assert!(world.sent().is_empty());
        assert!(world.owner.confirm(&mut world.server, true));
    }
    assert!(world.owner.open.is_empty() && world.owner.mapped.is_empty());
    assert_eq!(world.sent().len(), 1);
    assert_eq!(world.server.version(), Some(Version::V4_0));
    // The new kernel is told of the devices anew, and nothing of the old one's is known.
    let request = ChannelMessage::RequestOffers(Empty {}).encode();
    assert_eq!(world.answers(&request).len(), 3);
}

#[test]
fn an_unload_without_a_connection_is_answered() {
    let mut world = World::of(Version::V6_0);
    let answers = world.answers(&ChannelMessage::Unload(Empty {}).encode());
    assert_eq!(answers, [ChannelMessage::UnloadResponse(Empty {})]);
}

#[test]
fn memory_is_the_guests_own_only_after_its_device_has_let_go() {
    let (mut world, ids, relids) = World::connected(1);
    let gpadl = world.open(relids[0]);
    world.close(relids[0]);
    world.tear_down(gpadl);
    world.exchange();
    assert_eq!(world.heard(), []);
    assert_eq!(world.state(ids[0]), ChannelState::Closing);
    world.settle();
    assert_eq!(world.heard(), [Event::GpadlTornDown(gpadl)]);
    assert_eq!(world.state(ids[0]), ChannelState::Closed);
}

#[test]
fn a_channel_that_is_opened_again_while_it_closes_opens_afterwards() {
    let (mut world, ids, relids) = World::connected(1);
    world.open(relids[0]);
    let other = world.gpadl(relids[0], 8);
    world.close(relids[0]);
    world.ask_to_open(relids[0], other);
    world.exchange();
    assert_eq!(
        (world.state(ids[0]), world.heard()),
        (ChannelState::Closing, vec![])
    );
    world.settle();
    assert_eq!(world.heard(), [Event::Opened(relids[0], Ok(()))]);
    assert_eq!(world.owner.open[&ids[0]].gpadl, other);
}

#[test]
fn an_open_that_the_device_refuses_can_be_tried_again() {
    let (mut world, ids, relids) = World::connected(1);
    let gpadl = world.gpadl(relids[0], 8);
    world.ask_to_open(relids[0], gpadl);
    world.exchange();
    world.owner.confirm(&mut world.server, false);
    world.exchange();
    assert_eq!(
        world.heard(),
        [Event::Opened(relids[0], Err(Status::UNSUCCESSFUL))]
    );
    world.ask_to_open(relids[0], gpadl);
    world.settle();
    assert_eq!(world.state(ids[0]), ChannelState::Open);
}

#[test]
fn a_rescinded_channel_lives_until_the_guest_gives_it_up_and_its_device_lets_go() {
    let (mut world, ids, relids) = World::connected(1);
    let (id, relid) = (ids[0], relids[0]);
    let gpadl = world.open(relid);
    world.server.rescind(id, &mut world.owner);
    world.exchange();
    assert_eq!(world.heard(), [Event::Rescinded(relid)]);
    let (client, mut out) = world.guest();
    assert_eq!(
        client.release(relid, &mut out),
        Err(ClientError::ChannelState(relid))
    );
    world.close(relid);
    world.tear_down(gpadl);
    world.settle();
    assert_eq!(world.heard(), [Event::GpadlTornDown(gpadl)]);
    assert!(world.owner.released.is_empty());
    let (client, mut out) = world.guest();
    client.release(relid, &mut out).unwrap();
    world.settle();
    assert_eq!(world.owner.released, [id]);
    assert!(world.server.channel(id).is_none());
}

#[test]
fn the_same_device_is_offered_again_only_after_the_guest_has_given_the_old_one_up() {
    let (mut world, ids, relids) = World::connected(1);
    world.server.rescind(ids[0], &mut world.owner);
    let again = world.offer(device(0));
    world.settle();
    assert_eq!(world.heard(), [Event::Rescinded(relids[0])]);
    let (client, mut out) = world.guest();
    client.release(relids[0], &mut out).unwrap();
    world.settle();
    let relid = world.server.channel(again).unwrap().relid.unwrap();
    assert_ne!(relid, relids[0]);
    assert!(matches!(&world.heard()[..], [Event::Offered(offered)] if offered.relid == relid));
}

#[test]
fn sub_channels_come_with_an_open_device_and_go_with_it() {
    let (mut world, ids, relids) = World::connected(1);
    let refused = world.server.offer(device(0).sub_channel(1), &mut world.owner);
    assert_eq!(refused, Err(OfferError::NoPrimary));
    world.open(relids[0]);
    let sub = world.offer(device(0).sub_channel(1));
    world.settle();
    let heard = world.heard();
    let [Event::Offered(offered)] = &heard[..] else {
        panic!("not offered")
    };
    let relid = offered.relid;
    assert_eq!(offered.offer.sub_channel_index, 1);
    world.open(relid);
    world.close(relids[0]);
    world.settle();
    assert_eq!(world.heard(), [Event::Rescinded(relid)]);
    assert_eq!(
        (world.state(ids[0]), world.state(sub)),
        (ChannelState::Closed, ChannelState::Closed)
    );
}

#[test]
fn sub_channels_and_sockets_do_not_outlive_the_connection() {
    let (mut world, _, relids) = World::connected(1);
    world.open(relids[0]);
    let sub = world.offer(device(0).sub_channel(1));
    let mut socket = device(5);
    socket.flags |= OfferFlags::TLNPI_PROVIDER;
    let socket = world.offer(socket);
    world.settle();
    world.answers(&contact(Version::V5_3).encode());
    world.owner.confirm_all(&mut world.server);
    assert_eq!(world.server.channels().count(), 1);
    assert_eq!(world.owner.released, [sub, socket]);
}

#[test]
fn a_socket_that_nobody_listens_for_is_refused() {
    let (mut world, ..) = World::connected(0);
    let (endpoint, service) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let (client, mut out) = world.guest();
    client.connect_socket(endpoint, service, &mut out).unwrap();
    world.exchange();
    world.owner.confirm(&mut world.server, false);
    world.exchange();
    let status = Status::UNSUCCESSFUL;
    assert_eq!(
        world.heard(),
        [Event::SocketRefused {
            endpoint,
            service,
            status
        }]
    );
}

#[test]
fn moves_that_wait_when_a_channel_closes_are_answered() {
    let (mut world, _, relids) = World::connected(1);
    world.open(relids[0]);
    let modify = ChannelMessage::ModifyChannel(ModifyChannel {
        relid: relids[0],
        target_vp: VpIndex(2),
    })
    .encode();
    assert!(world.answers(&modify).is_empty());
    assert!(world.answers(&modify).is_empty());
    let answers = world.answers(&ChannelMessage::CloseChannel(ChannelNamed { relid: relids[0] }).encode());
    assert_eq!(answers.len(), 2);
    world.owner.confirm_all(&mut world.server);
    assert!(world.sent().is_empty());
}

#[test]
fn a_saved_bus_goes_on_where_it_was() {
    let (mut world, ids, relids) = World::connected(2);
    let gpadl = world.open(relids[0]);
    world.server.rescind(ids[1], &mut world.owner);
    world.exchange();
    world.heard();
    let saved = world.server.save().unwrap();
    world.server = Server::restore(Limits::default(), &saved);
    assert_eq!(world.server.save(), Ok(saved));
    world.close(relids[0]);
    world.exchange();
    assert!(world.server.save().is_err(), "the device has not let go");
    world.tear_down(gpadl);
    world.settle();
    assert_eq!(world.heard(), [Event::GpadlTornDown(gpadl)]);
}

#[test]
fn numbers_of_saved_fields_differ() {
    use crate::server::{Saved, SavedChannel, SavedConnection, SavedGpadl};
    for fields in [
        Saved::FIELDS,
        SavedConnection::FIELDS,
        SavedChannel::FIELDS,
        SavedGpadl::FIELDS,
    ] {
        assert!(fields.is_sorted_by(|a, b| a.0 < b.0));
    }
}
