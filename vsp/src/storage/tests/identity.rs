//! What units say of themselves.

use super::*;

#[test]
fn a_disk_says_what_it_is() {
    let (controller, bus) = (controller(), bus());
    let mut world = World::ready(&controller, &bus);
    let inquiry = world.read(0, &[0x12, 0, 0, 0, 96, 0], 96).unwrap();
    assert_eq!(
        (inquiry.len(), inquiry[0], &inquiry[8..32]),
        (36, 0, &b"Msft    Virtual Disk    "[..])
    );
    assert_eq!(
        world.read(0, &[0x12, 0, 0, 0, 5, 0], 96).unwrap().len(),
        5,
        "no more than it has room for"
    );
    let page = |world: &mut World<'_>, page| world.read(0, &[0x12, 1, page, 0, 255, 0], 255);
    assert_eq!(
        page(&mut world, 0).unwrap()[4..],
        [0, 0x80, 0x83, 0xb0, 0xb1, 0xb2]
    );
    assert_eq!(page(&mut world, 0x80).unwrap()[4..], *b"serial1");
    let names = page(&mut world, 0x83).unwrap();
    assert_eq!(names[4..12], [1, 3, 0, 16, 0x60, 0x02, 0x24, 0x80]);
    assert_eq!(usize::from(names[3]) + 4, names.len());
    assert_eq!(page(&mut world, 0xb0).unwrap().len(), 64);
    assert_eq!(page(&mut world, 0xb1).unwrap()[4..6], [0, 1]);
    assert_eq!(page(&mut world, 0xb2).unwrap()[5] & 0x80, 0x80);
    assert_eq!(page(&mut world, 0xb7).map(|_| ()), sense(Sense::INVALID_FIELD));
    let capacity = world.read(0, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8).unwrap();
    assert_eq!(capacity, [0, 0, 7, 255, 0, 0, 2, 0]);
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[13]) = (0x9e, 0x10, 32);
    let capacity = world.read(0, &cdb, 32).unwrap();
    assert_eq!(
        (&capacity[6..12], capacity[14]),
        (&[7, 255, 0, 0, 2, 0][..], 0x80)
    );
    let mode = world.read(0, &[0x1a, 0, 0x3f, 0, 255, 0], 255).unwrap();
    assert_eq!((usize::from(mode[0]) + 1, mode[2]), (mode.len(), 0x10));
    assert_eq!(
        world
            .read(0, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0], 4096)
            .unwrap()[..10],
        [0, 0, 0, 8, 0, 0, 0, 0, 0, 0]
    );
}

#[test]
fn a_capacity_beyond_ten_bytes_is_told_by_sixteen() {
    let controller = Controller::new(0);
    let huge = RamDisk::new(0, SectorSize::Bytes4096);
    controller
        .attach(None, LogicalUnit::disk(huge, id(), "0".to_string()))
        .unwrap();
    let bus = bus();
    let mut world = World::ready(&controller, &bus);
    assert_eq!(
        world.read(0, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8).unwrap()[4..],
        [0, 0, 16, 0]
    );
}

#[test]
fn units_and_targets_that_are_not_there_are_shown_so() {
    let (controller, bus) = (controller(), bus());
    let mut world = World::ready(&controller, &bus);
    assert_eq!(world.read(5, &[0x12, 0, 0, 0, 36, 0], 36).unwrap()[0], 0x7f);
    assert_eq!(world.command(5, &[0; 6]), Err([SrbStatus::INVALID_LUN.0, 0, 0]));
    let data = GpaRange {
        byte_count: 36,
        byte_offset: 0,
        pages: &[10],
    };
    for (path, target) in [(0, 1), (1, 0)] {
        let mut request = ScsiRequest::new_zeroed();
        (request.path, request.target) = (path, target);
        (request.cdb_length, request.cdb[0], request.cdb[4]) = (6, 0x12, 36);
        (request.direction, request.transfer_length) = (DataDirection::READ, 36);
        let answer = world.execute(request, data);
        let mut first = [0];
        bus.ram.copy_to(10 * PAGE, &mut first).unwrap();
        assert_eq!((answer.transfer_length, first), (36, [0x7f]));
        request.cdb = [0; 20];
        assert_eq!(world.execute(request, data).srb_status, SrbStatus::INVALID_LUN);
    }
}

#[test]
fn what_a_disk_does_not_know_is_said_so() {
    let (controller, bus) = (controller(), bus());
    let mut world = World::ready(&controller, &bus);
    assert_eq!(world.command(0, &[0xff; 16]), sense(Sense::INVALID_COMMAND));
    assert_eq!(
        world.command(0, &[0x46, 0, 0, 0, 0, 0, 0, 0, 8, 0]),
        sense(Sense::INVALID_COMMAND)
    );
    assert_eq!(world.command(0, &[0x28, 0]), sense(Sense::INVALID_FIELD));
    assert_eq!(
        world.command(0, &[0x1b, 0, 0, 0, 2, 0]),
        sense(Sense::INVALID_FIELD),
        "a disk is not ejected"
    );
}

#[test]
fn both_forms_of_mode_sense_tell_the_same_pages() {
    let (controller, bus) = (controller(), bus());
    let mut world = World::ready(&controller, &bus);
    let short = world.read(0, &[0x1a, 8, 0x3f, 0, 255, 0], 255).unwrap();
    let long = world
        .read(0, &[0x5a, 8, 0x3f, 0, 0, 0, 0, 0, 255, 0], 255)
        .unwrap();
    assert_eq!(short[4..], long[8..]);
    assert_eq!(
        usize::from(u16::from_be_bytes([long[0], long[1]])) + 2,
        long.len()
    );
    assert_eq!(
        world.read(0, &[0x1a, 8, 0x3e, 0, 255, 0], 255).map(drop),
        sense(Sense::INVALID_FIELD),
        "a page that there is not"
    );
}

#[test]
fn what_a_unit_has_to_say_is_said_by_request_sense_too_and_once() {
    let (controller, bus) = (controller(), bus());
    let mut world = World::ready(&controller, &bus);
    controller.unit(0).unwrap().raise(Sense::CAPACITY_CHANGED);
    let request_sense = [0x03, 0, 0, 0, 18, 0];
    assert_eq!(
        world.read(0, &request_sense, 18).unwrap(),
        Sense::CAPACITY_CHANGED.encode()
    );
    assert_eq!(world.read(0, &request_sense, 18).unwrap(), Sense::NONE.encode());
    assert_eq!(world.command(0, &[0; 6]), Ok(()));
}
