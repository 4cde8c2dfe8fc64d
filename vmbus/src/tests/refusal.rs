//! Peers that break rules, and bounds.

use super::*;

#[test]
fn a_version_that_is_not_spoken_is_answered_and_the_next_can_be_tried() {
    let mut world = World::of(Version::V6_0);
    for version in [Version::new(7, 0), Version::new(1, 1), Version(0)] {
        let [ChannelMessage::VersionResponse(response)] = world.answers(&contact(version).encode())[..]
        else {
            panic!("no answer");
        };
        assert_eq!(response.supported, 0);
    }
    assert!(world.server.is_idle());
    assert!(world.answers(&contact(Version::V5_3).encode()).len() == 1);
    assert_eq!(world.server.version(), Some(Version::V5_3));
}

#[test]
fn a_contact_that_wants_messages_where_none_can_go_is_refused() {
    let mut world = World::of(Version::V6_0);
    for bits in [0, 16, 2 | 2 << 8] {
        let ChannelMessage::InitiateContact(mut wanted) = contact(Version::V5_3) else {
            unreachable!()
        };
        wanted.interrupt_page_or_target = bits;
        let answers = world.answers(&ChannelMessage::InitiateContact(wanted).encode());
        let [ChannelMessage::VersionResponse(response)] = answers[..] else {
            panic!("no answer")
        };
        assert_eq!(response.supported, 0);
    }
}

#[test]
fn rings_torn_down_under_an_open_channel_stay_mapped_until_it_closes() {
    let (mut world, ids, relids) = World::connected(1);
    let gpadl = world.open(relids[0]);
    let teardown = ChannelMessage::GpadlTeardown(GpadlTeardown {
        relid: relids[0],
        gpadl,
    });
    assert!(world.answers(&teardown.encode()).is_empty());
    world.owner.confirm_all(&mut world.server);
    assert!(world.owner.mapped.contains(&gpadl) && world.sent().is_empty());
    assert_eq!(world.state(ids[0]), ChannelState::Open);
    let close = ChannelMessage::CloseChannel(ChannelNamed { relid: relids[0] });
    world.answers(&close.encode());
    world.owner.confirm_all(&mut world.server);
    assert_eq!(
        world.sent(),
        [ChannelMessage::GpadlTorndown(GpadlTorndown { gpadl })]
    );
}

#[test]
fn an_open_is_refused_for_rings_that_cannot_be() {
    let (mut world, _, relids) = World::connected(2);
    let gpadl = world.gpadl(relids[0], 8);
    let others = world.gpadl(relids[1], 8);
    let open = |relid, gpadl, downstream_page_offset| OpenChannel {
        relid,
        open_id: 9,
        gpadl,
        target_vp: VpIndex(0),
        downstream_page_offset,
        user_data: [0; OPEN_USER_DATA],
    };
    let cases = [
        open(relids[0], gpadl, 0),
        open(relids[0], gpadl, 1),
        open(relids[0], gpadl, 7),
        open(relids[0], gpadl, 8),
        open(relids[0], gpadl, u32::MAX),
        open(relids[0], others, 4),
        open(relids[0], GpadlId(1), 4),
        open(Relid(99), gpadl, 4),
        open(Relid(0), gpadl, 4),
    ];
    for case in cases {
        let answers = world.answers(&ChannelMessage::OpenChannel(case).encode());
        let [ChannelMessage::OpenChannelResult(result)] = answers[..] else {
            panic!("{case:?}: {answers:?}")
        };
        assert_eq!((result.relid, result.open_id), (case.relid, 9));
        assert!(!result.status.is_success());
    }
    assert!(world.owner.waiting.is_empty());
}

#[test]
fn a_guest_that_gives_a_rescinded_channel_up_too_early_harms_itself_only() {
    let (mut world, ids, relids) = World::connected(1);
    let gpadl = world.open(relids[0]);
    world.server.rescind(ids[0], &mut world.owner);
    world.answers(&ChannelMessage::RelidReleased(ChannelNamed { relid: relids[0] }).encode());
    assert!(world.owner.released.is_empty(), "its device still runs");
    world.owner.confirm_all(&mut world.server);
    assert_eq!(world.owner.released, ids);
    assert!(!world.owner.mapped.contains(&gpadl));
}

#[test]
fn an_offer_that_was_not_rescinded_cannot_be_given_up() {
    let (mut world, ids, relids) = World::connected(1);
    world.answers(&ChannelMessage::RelidReleased(ChannelNamed { relid: relids[0] }).encode());
    assert_eq!(world.server.channel(ids[0]).unwrap().relid, Some(relids[0]));
}

#[test]
fn requests_that_are_cut_short_are_answered_all_the_same() {
    let (mut world, _, relids) = World::connected(1);
    let relid = relids[0];
    let requests = [
        ChannelMessage::OpenChannel(OpenChannel {
            relid,
            open_id: 3,
            gpadl: GpadlId(1),
            target_vp: VpIndex(0),
            downstream_page_offset: 2,
            user_data: [0; OPEN_USER_DATA],
        }),
        ChannelMessage::GpadlHeader(GpadlHeader {
            relid,
            gpadl: GpadlId(1),
            range_bytes: 16,
            range_count: 1,
        }),
        ChannelMessage::GpadlTeardown(GpadlTeardown {
            relid,
            gpadl: GpadlId(1),
        }),
        ChannelMessage::ModifyChannel(ModifyChannel {
            relid,
            target_vp: VpIndex(0),
        }),
        ChannelMessage::SocketConnect(SocketConnect {
            endpoint: Uuid::nil().into(),
            service: Uuid::nil().into(),
        }),
        contact(Version::V5_3),
    ];
    for request in requests {
        for length in 8..request.encode().len() {
            let answers = world.answers(&request.encode()[..length]);
            assert_eq!(answers.len(), 1, "{request:?} of {length} bytes");
        }
    }
    assert!(world.owner.waiting.is_empty());
}

#[test]
fn lists_that_make_no_sense_are_refused_and_leave_room() {
    let (mut world, _, relids) = World::connected(1);
    let header = |relid, range_bytes, range_count, rest: &[u8]| {
        let gpadl = GpadlId(1);
        ChannelMessage::GpadlHeader(GpadlHeader {
            relid,
            gpadl,
            range_bytes,
            range_count,
        })
        .encode_with(rest)
    };
    let empty_range = [0; 16];
    let cases = [
        header(relids[0], 0, 0, &[]),
        header(relids[0], 15, 1, &[]),
        header(relids[0], 16, 1, &empty_range),
        header(Relid(99), 16, 1, &empty_range),
    ];
    for case in cases {
        let [ChannelMessage::GpadlCreated(created)] = world.answers(&case)[..] else {
            panic!("no answer")
        };
        assert!(!created.status.is_success());
    }
    let unknown = ChannelMessage::GpadlBody(GpadlBody {
        message_number: 0,
        gpadl: GpadlId(1),
    });
    assert!(world.answers(&unknown.encode_with(&[0; 224])).is_empty());
    world.gpadl(relids[0], 100);
}

#[test]
fn a_guest_has_only_so_many_pages_in_lists() {
    let limits = Limits {
        gpadl_pages: 64,
        gpadls: 3,
        ..Limits::default()
    };
    let mut world = World::new(limits, Settings::default());
    let id = world.offer(device(1));
    world.connect();
    let relid = world.server.channel(id).unwrap().relid.unwrap();
    let first = world.gpadl(relid, 40);
    let refused = |world: &mut World, pages_wanted| {
        let (client, mut out) = world.guest();
        client
            .create_gpadl(relid, &pages(pages_wanted), &mut out)
            .unwrap();
        world.settle();
        assert!(matches!(world.heard()[..], [Event::GpadlCreated(_, _, Err(_))]));
    };
    refused(&mut world, 25);
    world.tear_down(first);
    world.settle();
    world.heard();
    for _ in 0..3 {
        world.gpadl(relid, 1);
    }
    refused(&mut world, 1);
}

#[test]
fn a_list_whose_number_is_taken_is_refused_and_the_first_stays() {
    let (mut world, _, relids) = World::connected(2);
    let gpadl = world.gpadl(relids[0], 8);
    let again = crate::protocol::gpadl::messages(relids[1], gpadl, &pages(4)).unwrap();
    let [ChannelMessage::GpadlCreated(created)] = world.answers(&again[0])[..] else {
        panic!("no answer")
    };
    assert!(!created.status.is_success());
    world.ask_to_open(relids[0], gpadl);
    world.settle();
    assert_eq!(world.heard(), [Event::Opened(relids[0], Ok(()))]);
}

#[test]
fn lists_that_name_the_same_pages_are_each_mapped_and_given_back_by_themselves() {
    let (mut world, ids, relids) = World::connected(2);
    let (one, other) = (world.open(relids[0]), world.open(relids[1]));
    assert_ne!(one, other);
    world.close(relids[0]);
    world.settle();
    world.tear_down(one);
    world.settle();
    assert!(world.owner.mapped.contains(&other) && !world.owner.mapped.contains(&one));
    assert_eq!(world.state(ids[1]), ChannelState::Open);
}

#[test]
fn a_bus_has_2047_channels_and_their_relids_differ() {
    let mut world = World::of(Version::V5_3);
    for number in 0..2047 {
        world.offer(device(number));
    }
    assert_eq!(
        world.server.offer(device(9999), &mut world.owner),
        Err(OfferError::Full)
    );
    world.connect();
    let relids: alloc::collections::BTreeSet<_> =
        world.client.channels().map(|channel| channel.relid).collect();
    assert_eq!(relids.len(), 2047);
    assert!(relids.iter().all(|relid| relid.is_valid()));
}

#[test]
fn a_device_is_on_the_bus_once() {
    let (mut world, ..) = World::connected(1);
    assert_eq!(
        world.server.offer(device(0), &mut world.owner),
        Err(OfferError::Duplicate)
    );
}

#[test]
fn a_host_cannot_give_back_what_was_not_asked_back() {
    let (mut world, _, relids) = World::connected(1);
    let gpadl = world.open(relids[0]);
    let lies = [
        ChannelMessage::GpadlTorndown(GpadlTorndown { gpadl }),
        ChannelMessage::GpadlCreated(GpadlCreated {
            relid: relids[0],
            gpadl,
            status: Status::UNSUCCESSFUL,
        }),
        ChannelMessage::OpenChannelResult(OpenResult {
            relid: relids[0],
            open_id: relids[0].0,
            status: Status(1),
        }),
        ChannelMessage::UnloadResponse(Empty {}),
        ChannelMessage::RescindChannelOffer(ChannelNamed { relid: Relid(77) }),
        ChannelMessage::ModifyChannelResponse(ModifyResponse {
            relid: relids[0],
            status: Status::SUCCESS,
        }),
        ChannelMessage::OfferChannel(
            device(3).to_wire(relids[0], crate::server::event_connection(relids[0])),
        ),
        ChannelMessage::OfferChannel(
            device(3).to_wire(Relid(2048), crate::server::event_connection(relids[0])),
        ),
        ChannelMessage::OfferChannel(device(0).to_wire(Relid(9), crate::server::event_connection(relids[0]))),
        ChannelMessage::OfferChannel(
            device(8)
                .sub_channel(1)
                .to_wire(Relid(9), crate::server::event_connection(relids[0])),
        ),
    ];
    for lie in lies {
        let (client, mut out) = world.guest();
        client.receive(&lie.encode(), &mut out);
        assert_eq!(world.heard(), [], "{lie:?}");
    }
}

#[test]
fn an_owner_that_confirms_late_or_twice_changes_nothing() {
    let (mut world, ids, relids) = World::connected(1);
    let gpadl = world.open(relids[0]);
    let mut out: Vec<Action> = Vec::new();
    world.server.opened(ids[0], Err(Status::UNSUCCESSFUL), &mut out);
    world.server.closed(ids[0], &mut out);
    world
        .server
        .gpadl_mapped(gpadl, Err(Status::UNSUCCESSFUL), &mut out);
    world.server.gpadl_unmapped(gpadl, &mut out);
    world.server.modified(ids[0], Ok(()), &mut out);
    assert_eq!(out, []);
    assert_eq!(world.state(ids[0]), ChannelState::Open);
}
