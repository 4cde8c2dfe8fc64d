//! Disks that fail, and what the guest is told.

use super::*;
use crate::storage::disk::DiskError;
use core::pin::pin;

const SYNCHRONIZE_CACHE: [u8; 10] = [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

/// What a read of sectors 3 and 4 ends with.
fn read(world: &mut World<'_>) -> ScsiRequest {
    world.scsi(0, &READ_10, DataDirection::READ, KIB)
}

#[test]
fn a_sector_that_cannot_be_read_or_written_is_named_and_the_others_go_on() {
    let ((controller, disk), bus) = (faulty(), bus());
    let mut world = World::ready(&controller, &bus);
    disk.spoil_reads(4..5);
    disk.spoil_writes(3..4);
    let answer = read(&mut world);
    assert_eq!(outcome(&answer), sense(Sense::READ_ERROR));
    assert_eq!(answer.transfer_length, 0);
    assert_eq!(
        (answer.cdb[0], &answer.cdb[3..7]),
        (0xf0, &[0, 0, 0, 4][..]),
        "the sector, in the field of information"
    );
    assert_eq!(world.write(0, &WRITE_10, &[1; 1024]), sense(Sense::WRITE_ERROR));
    let mut elsewhere = WRITE_10;
    elsewhere[5] = 9;
    assert_eq!(world.write(0, &elsewhere, &[1; 1024]), Ok(()));
}

#[test]
fn each_failure_of_a_disk_has_its_sense() {
    let ((controller, disk), bus) = (faulty(), bus());
    let mut world = World::ready(&controller, &bus);
    for (error, expected) in [
        (DiskError::Gone, Sense::NO_MEDIUM),
        (DiskError::Reset, Sense::RESET),
        (DiskError::Failed, Sense::TARGET_FAILURE),
    ] {
        disk.set_broken(Some(error));
        assert_eq!(outcome(&read(&mut world)), sense(expected), "{error}");
        assert_eq!(world.command(0, &SYNCHRONIZE_CACHE), sense(expected));
    }
    disk.set_broken(None);
    assert_eq!(
        outcome(&read(&mut world)),
        Ok(()),
        "it is used again when it is back"
    );
}

#[test]
fn a_disk_that_is_full_fails_writes_and_gives_what_it_has() {
    let ((controller, disk), bus) = (faulty(), bus());
    let mut world = World::ready(&controller, &bus);
    disk.set_unwilling(Some(DiskError::Full));
    assert_eq!(
        world.write(0, &WRITE_10, &[1; 1024]),
        sense(Sense::SPACE_ALLOCATION)
    );
    assert_eq!(outcome(&read(&mut world)), Ok(()));
}

#[test]
fn what_was_flushed_or_written_through_outlives_a_loss_of_power_and_other_writes_need_not() {
    let ((controller, disk), bus) = (faulty(), bus());
    let mut world = World::ready(&controller, &bus);
    let caching = world.read(0, &[0x1a, 8, 8, 0, 255, 0], 255).unwrap();
    assert_eq!(caching[4 + 2] & 4, 4, "the guest is told that there is a cache");

    world.write(0, &WRITE_10, &[1; 1024]).unwrap();
    assert_eq!(world.command(0, &SYNCHRONIZE_CACHE), Ok(()));
    let mut through = WRITE_10;
    (through[1], through[5]) = (8, 20);
    world.write(0, &through, &[2; 1024]).unwrap();
    let mut cached = WRITE_10;
    cached[5] = 40;
    world.write(0, &cached, &[3; 1024]).unwrap();

    now(disk.lose_power()).unwrap();
    let mut at = |sector: u8| {
        let mut cdb = READ_10;
        cdb[5] = sector;
        world.read(0, &cdb, 1024).unwrap()[0]
    };
    assert_eq!((at(3), at(20), at(40)), (1, 2, 0));
}

#[test]
fn a_disk_that_stands_still_holds_up_no_other() {
    let ((controller, disk), bus) = (faulty(), bus());
    let second = FaultyDisk::new(2048, SectorSize::Bytes512);
    controller
        .attach(None, LogicalUnit::disk(second, id(), "sound".to_string()))
        .unwrap();
    controller.take_change();
    let mut world = World::ready(&controller, &bus);
    disk.set_held(true);
    world.submit(0, &READ_10, DataDirection::READ, KIB);
    assert_eq!(world.command(1, &[0; 6]), Ok(()));
    assert_eq!(world.write(1, &WRITE_10, &[5; 1024]), Ok(()));
}
