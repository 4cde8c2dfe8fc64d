//! Resets, and requests that want no answer.

use super::*;

fn list_of_ranges(firsts: &[u64]) -> Vec<u8> {
    let mut list = vec![0; 8];
    for first in firsts {
        list.extend(first.to_be_bytes());
        list.extend([0, 0, 0, 1, 0, 0, 0, 0]);
    }
    let length = list.len() as u16;
    list[..2].copy_from_slice(&(length - 2).to_be_bytes());
    list[2..4].copy_from_slice(&(length - 8).to_be_bytes());
    list
}

#[test]
fn a_reset_is_answered_after_all_that_came_before_it_and_before_all_that_came_behind() {
    let ((controller, disk), bus) = (faulty(), bus());
    let mut world = World::ready(&controller, &bus);
    disk.set_held(true);
    world.submit(0, &READ_10, DataDirection::READ, KIB);
    let read = world.next;
    world.tell(Operation::RESET_BUS, &0_u32);
    let reset = world.next;
    world.submit(0, &[0; 6], DataDirection::NONE, NOTHING);
    let behind = world.next;
    world.step();
    assert!(
        world.come().is_empty(),
        "the disk may still write to the guest's memory"
    );
    disk.set_held(false);
    world.step();
    let answers = world.come();
    let order: Vec<u64> = answers.iter().map(|answer| answer.1).collect();
    assert_eq!(order, [read, reset, behind]);
    assert_eq!(answers[1].2.status, Status::SUCCESS);
    assert_eq!(outcome(&answers[2].2.body()), sense(Sense::RESET));
    assert_eq!(world.command(0, &[0; 6]), Ok(()), "it is said once");
}

#[test]
fn a_reset_waits_for_the_requests_of_other_channels() {
    let ((controller, disk), bus) = (faulty(), bus());
    let mut world = World::ready(&controller, &bus);
    let mut other = World::on(&controller, &bus, Role::SubChannel);
    disk.set_held(true);
    other.submit(0, &READ_10, DataDirection::READ, KIB);
    other.step();
    world.tell(Operation::RESET_ADAPTER, &0_u32);
    world.step();
    assert!(world.come().is_empty());
    disk.set_held(false);
    other.step();
    assert_eq!(other.come().len(), 1);
    assert_eq!(world.answer().status, Status::SUCCESS);
}

#[test]
fn a_reset_gives_up_the_steps_of_a_request_that_are_not_begun() {
    let ((controller, disk), bus) = (faulty(), bus());
    let mut world = World::ready(&controller, &bus);
    world.write(0, &WRITE_10, &[0xff; 1024]).unwrap();
    let list = list_of_ranges(&[3, 4]);
    bus.ram.copy_from(10 * PAGE, &list).unwrap();
    let data = GpaRange {
        byte_count: list.len() as u32,
        ..KIB
    };
    disk.set_held(true);
    let mut cdb = [0; 10];
    (cdb[0], cdb[8]) = (0x42, list.len() as u8);
    world.submit(0, &cdb, DataDirection::WRITE, data);
    world.tell(Operation::RESET_BUS, &0_u32);
    world.step();
    disk.set_held(false);
    world.step();
    let answers = world.come();
    assert_eq!(answers.len(), 2);
    assert_eq!(outcome(&answers[0].2.body()), sense(Sense::RESET));
    assert_eq!(world.command(0, &[0; 6]), sense(Sense::RESET));
    let expected = [vec![0; 512], vec![0xff; 512]].concat();
    assert_eq!(
        world.read(0, &READ_10, 1024),
        Ok(expected),
        "only what was begun is given up"
    );
}

#[test]
fn a_change_of_media_is_not_forgotten_over_a_reset() {
    let (controller, bus) = (controller(), bus());
    let medium = || RamDisk::new(40, SectorSize::Bytes512);
    controller
        .attach(None, LogicalUnit::optical(Some(medium()), id(), "1".to_string()))
        .unwrap();
    controller.take_change();
    let mut world = World::ready(&controller, &bus);
    controller.unit(1).unwrap().change_medium(Some(medium()));
    assert_eq!(world.ask(Operation::RESET_BUS, &0_u32).status, Status::SUCCESS);
    assert_eq!(world.command(1, &[0; 6]), sense(Sense::MEDIUM_CHANGED));
}

#[test]
fn a_request_that_wants_no_answer_is_done_and_gets_none() {
    let ((controller, disk), bus) = (faulty(), bus());
    let mut world = World::ready(&controller, &bus);
    bus.ram.copy_from(10 * PAGE, &[7; 1024]).unwrap();
    let mut request = ScsiRequest::new_zeroed();
    request.cdb[..10].copy_from_slice(&WRITE_10);
    request.cdb_length = 10;
    request.direction = DataDirection::WRITE;
    request.transfer_length = 1024;
    disk.set_held(true);
    world.send(request, KIB, 0);
    world.step();
    disk.set_held(false);
    world.step();
    world.send(request, KIB, 0);
    world.step();
    assert!(
        world.come().is_empty(),
        "neither the one that waited nor the one that did not"
    );
    assert_eq!(world.read(0, &READ_10, 1024), Ok(vec![7; 1024]));
}
