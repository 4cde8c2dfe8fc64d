//! Drives and their media.

use super::*;

#[test]
fn a_drive_tells_of_its_medium() {
    let controller = Controller::new(0);
    let drive = LogicalUnit::optical(None, id(), "1".to_string());
    controller.attach(Some(2), drive).unwrap();
    let bus = bus();
    let mut world = World::ready(&controller, &bus);
    assert_eq!(world.command(2, &[0; 6]), sense(Sense::NO_MEDIUM));
    let iso = RamDisk::new(40, SectorSize::Bytes512)
        .with_contents(&[5; 20480])
        .read_only();
    controller.unit(2).unwrap().change_medium(Some(iso));
    assert_eq!(world.command(2, &[0; 6]), sense(Sense::MEDIUM_CHANGED));
    assert_eq!(world.command(2, &[0; 6]), Ok(()));
    assert_eq!(
        world.read(2, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8).unwrap(),
        [0, 0, 0, 9, 0, 0, 8, 0]
    );
    assert_eq!(
        world.read(2, &[0x28, 0, 0, 0, 0, 9, 0, 0, 1, 0], 2048),
        Ok(vec![5; 2048])
    );
    assert_eq!(
        world
            .read(2, &[0x43, 0, 0, 0, 0, 0, 0, 0, 20, 0], 20)
            .unwrap()
            .len(),
        20
    );
    assert_eq!(world.command(2, &[0x1e, 0, 0, 0, 1, 0]), Ok(()));
    assert_eq!(
        world.command(2, &[0x1b, 0, 0, 0, 2, 0]),
        sense(Sense::REMOVAL_PREVENTED)
    );
    assert_eq!(world.command(2, &[0x1e, 0, 0, 0, 0, 0]), Ok(()));
    assert_eq!(world.command(2, &[0x1b, 0, 0, 0, 2, 0]), Ok(()));
    assert_eq!(world.command(2, &[0; 6]), sense(Sense::NO_MEDIUM));
}

#[test]
fn a_medium_is_one_track_that_is_found_by_block_track_and_session() {
    let (controller, bus) = (controller(), bus());
    with_drive(&controller);
    let mut world = World::ready(&controller, &bus);
    let mut track = |by: u8, number: u8| world.read(1, &[0x52, by, 0, 0, 0, number, 0, 0, 36, 0], 36);
    for (by, number) in [(0, 9), (1, 1), (2, 1)] {
        let told = track(by, number).unwrap();
        assert_eq!((told.len(), told[2], &told[8..12]), (36, 1, &[0; 4][..]));
        assert_eq!(told[24..28], [0, 0, 0, 10], "blocks");
    }
    for (by, number) in [(0, 10), (1, 2), (1, 0), (3, 1)] {
        assert_eq!(track(by, number).map(drop), sense(Sense::INVALID_FIELD));
    }
}

/// A world with a drive of one medium, 40 sectors of `byte`, as unit 1.
fn with_drive(controller: &Controller<RamDisk>) {
    let drive = LogicalUnit::optical(Some(medium(5)), id(), "1".to_string());
    assert_eq!(controller.attach(None, drive), Ok(1));
    controller.take_change();
}

fn medium(byte: u8) -> RamDisk {
    RamDisk::new(40, SectorSize::Bytes512)
        .with_contents(&[byte; 20480])
        .read_only()
}

const FIRST_BLOCK: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];

#[test]
fn a_change_of_media_is_told_once_and_then_the_other_one_is_read() {
    let (controller, bus) = (controller(), bus());
    with_drive(&controller);
    let mut world = World::ready(&controller, &bus);
    assert_eq!(world.read(1, &FIRST_BLOCK, 2048), Ok(vec![5; 2048]));
    let drive = controller.unit(1).unwrap();
    assert!(drive.change_medium(Some(medium(6))).is_some());
    // Asking for events does not take the news away.
    let events = world.read(1, &[0x4a, 1, 0, 0, 1 << 4, 0, 0, 0, 8, 0], 8).unwrap();
    assert_eq!((events[2], events[5]), (4, 2), "there is a medium");
    assert_eq!(
        world.read(1, &FIRST_BLOCK, 2048).map(drop),
        sense(Sense::MEDIUM_CHANGED)
    );
    assert_eq!(world.read(1, &FIRST_BLOCK, 2048), Ok(vec![6; 2048]));
}

#[test]
fn what_is_taken_out_by_the_operator_is_gone_even_when_the_guest_has_locked_it() {
    let (controller, bus) = (controller(), bus());
    with_drive(&controller);
    let mut world = World::ready(&controller, &bus);
    assert_eq!(world.command(1, &[0x1e, 0, 0, 0, 1, 0]), Ok(()));
    let taken = controller.unit(1).unwrap().change_medium(None);
    assert!(taken.is_some());
    assert_eq!(world.command(1, &[0; 6]), sense(Sense::MEDIUM_CHANGED));
    for _ in 0..2 {
        assert_eq!(
            world.read(1, &FIRST_BLOCK, 2048).map(drop),
            sense(Sense::NO_MEDIUM)
        );
    }
    assert_eq!(
        world.read(1, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8).map(drop),
        sense(Sense::NO_MEDIUM)
    );
}
