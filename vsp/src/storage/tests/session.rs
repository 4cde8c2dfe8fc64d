//! What a guest and its controller agree on, and what passes between them besides requests.

use super::*;
use core::sync::atomic::Ordering;

#[test]
fn the_versions_that_linux_tries_are_spoken_and_no_others() {
    let (controller, bus) = (controller(), bus());
    let mut world = World::new(&controller, &bus);
    for (version, status) in [
        (0x0602, Status::SUCCESS),
        (0x0600, Status::SUCCESS),
        (0x0501, Status::SUCCESS),
        (0x0700, Status::REVISION_MISMATCH),
        (0x0402, Status::REVISION_MISMATCH),
    ] {
        let asked = ProtocolVersion {
            version: Version(version),
            revision: 0,
        };
        assert_eq!(
            world.ask(Operation::QUERY_PROTOCOL_VERSION, &asked).status,
            status
        );
    }
    let properties: Properties = world.ask(Operation::QUERY_PROPERTIES, &0_u32).body();
    assert_eq!({ properties.max_channels }, 3);
    assert_eq!({ properties.flags }, MULTI_CHANNEL);
    assert!(properties.max_transfer_bytes.is_multiple_of(4096) && properties.max_transfer_bytes > 0);
}

#[test]
fn requests_before_the_version_is_agreed_are_refused() {
    let (controller, bus) = (controller(), bus());
    let mut world = World::new(&controller, &bus);
    assert_eq!(
        world.command(0, &[0; 6]),
        Err([SrbStatus::INVALID_REQUEST.0, 0, 0])
    );
    assert_eq!(
        world.ask(Operation::END_INITIALIZATION, &0_u32).status,
        Status::UNSUCCESSFUL
    );
    assert_eq!(world.ask(Operation(99), &0_u32).status, Status::NOT_SUPPORTED);
}

#[test]
fn sub_channels_are_offered_up_to_the_maximum() {
    let (controller, bus) = (controller(), bus());
    let mut world = World::ready(&controller, &bus);
    let wanted = |count| CreateSubChannels { count, reserved: 0 };
    assert_eq!(
        world.ask(Operation::CREATE_SUB_CHANNELS, &wanted(4)).status,
        Status::INVALID_PARAMETER
    );
    assert_eq!(bus.sub_channels.load(Ordering::Relaxed), 0);
    assert_eq!(
        world.ask(Operation::CREATE_SUB_CHANNELS, &wanted(3)).status,
        Status::SUCCESS
    );
    assert_eq!(bus.sub_channels.load(Ordering::Relaxed), 3);
}

#[test]
fn units_come_and_go_and_the_guest_is_told() {
    let (controller, bus) = (controller(), bus());
    let mut world = World::ready(&controller, &bus);
    let disk = || LogicalUnit::disk(RamDisk::new(8, SectorSize::Bytes512), id(), "2".to_string());
    assert_eq!(controller.attach(Some(0), disk()), Err(AttachError::Taken(0)));
    assert_eq!(controller.attach(Some(64), disk()), Err(AttachError::TooHigh(64)));
    assert_eq!(controller.attach(None, disk()), Ok(1));
    world.step();
    let told = world.come();
    assert_eq!((told.len(), told[0].0, told[0].1), (1, PacketType::IN_BAND, 0));
    assert_eq!(told[0].2.operation, Operation::ENUMERATE_BUS);
    assert_eq!(world.command(1, &[0; 6]), Ok(()));
    assert!(controller.detach(1).is_some());
    world.step();
    assert_eq!(world.come().len(), 1);
    assert_eq!(world.command(1, &[0; 6]), Err([SrbStatus::INVALID_LUN.0, 0, 0]));
    assert_eq!(world.command(0, &[0; 6]), Ok(()));
}

#[test]
fn a_guest_that_does_not_drain_gets_all_answers_once_it_does() {
    let (controller, bus) = (controller(), bus());
    let mut world = World::ready(&controller, &bus);
    let packet = Packet::new(Operation::QUERY_PROPERTIES, REQUEST_COMPLETION, &0_u32);
    let (mut asked, mut seen) = (0, Vec::new());
    for _ in 0..10 {
        while world
            .rings
            .outgoing
            .send(asked, PacketFlags::COMPLETION_REQUESTED, &[packet.as_bytes()])
            .is_ok()
        {
            asked += 1;
        }
        world.step();
    }
    assert!(asked > 500, "both rings are full: {asked}");
    for _ in 0..100 {
        seen.extend(world.come().iter().map(|packet| packet.1));
        world.step();
    }
    assert_eq!(seen, (0..asked).collect::<Vec<_>>());
}

#[test]
fn a_number_that_is_used_again_before_its_answer_is_answered_each_time() {
    let ((controller, disk), bus) = (faulty(), bus());
    let mut world = World::ready(&controller, &bus);
    disk.set_held(true);
    for _ in 0..3 {
        world.submit(0, &READ_10, DataDirection::READ, KIB);
        world.next -= 1;
    }
    world.step();
    assert!(world.come().is_empty());
    disk.set_held(false);
    world.step();
    let answered: Vec<_> = world.come().iter().map(|packet| packet.1).collect();
    assert_eq!(answered, [world.next + 1; 3]);
    assert_eq!(world.command(0, &[0; 6]), Ok(()));
}
