//! Commands on blocks.

use super::*;

#[test]
fn what_is_written_is_read_back_from_scattered_pages() {
    let (controller, bus) = (controller(), bus());
    let mut world = World::ready(&controller, &bus);
    let bytes: Vec<u8> = (0..1024).map(|byte| (byte * 7) as u8).collect();
    assert_eq!(world.write(0, &WRITE_10, &bytes), Ok(()));
    assert_eq!(world.read(0, &READ_10, 1024), Ok(bytes.clone()));
    let scattered = GpaRange {
        byte_count: 1024,
        byte_offset: 3900,
        pages: &[7, 5],
    };
    let answer = world.scsi(0, &READ_10, DataDirection::READ, scattered);
    assert_eq!((outcome(&answer), answer.transfer_length), (Ok(()), 1024));
    let mut seen = vec![0; 1024];
    bus.ram.copy_to(7 * PAGE + 3900, &mut seen[..196]).unwrap();
    bus.ram.copy_to(5 * PAGE, &mut seen[196..]).unwrap();
    assert_eq!(seen, bytes);
}

#[test]
fn the_ends_of_the_disk_are_kept() {
    let (controller, bus) = (controller(), bus());
    let mut world = World::ready(&controller, &bus);
    let at = |first: u64, count: u32| {
        let mut cdb = [0; 16];
        cdb[0] = 0x88;
        cdb[2..10].copy_from_slice(&first.to_be_bytes());
        cdb[10..14].copy_from_slice(&count.to_be_bytes());
        cdb
    };
    assert_eq!(world.read(0, &at(2047, 1), 512), Ok(vec![0; 512]));
    assert_eq!(world.read(0, &at(2048, 0), 0), Ok(vec![]));
    for (first, count) in [
        (2048, 1),
        (2047, 2),
        (u64::MAX, 1),
        (0, u32::MAX),
        (u64::MAX, u32::MAX),
    ] {
        assert_eq!(
            world.read(0, &at(first, count), 1024).map(|_| ()),
            sense(Sense::OUT_OF_RANGE),
            "{first} {count}"
        );
    }
    assert_eq!(
        world.read(0, &at(0, 2048), 1 << 20).map(|bytes| bytes.len()),
        Ok(1 << 20),
        "the longest transfer"
    );
}

#[test]
fn requests_whose_memory_is_not_the_guests_or_too_small_are_refused() {
    let (controller, bus) = (controller(), bus());
    let mut world = World::ready(&controller, &bus);
    let invalid = sense(Sense::INVALID_FIELD);
    for (byte_count, pages) in [
        (1024, &[RAM as u64][..]),
        (1024, &[u64::MAX]),
        (1024, &[1 << 60]),
        (512, &[1]),
        (0, &[]),
    ] {
        let data = GpaRange {
            byte_count,
            byte_offset: 0,
            pages,
        };
        assert_eq!(
            outcome(&world.scsi(0, &READ_10, DataDirection::READ, data)),
            invalid
        );
        assert_eq!(
            outcome(&world.scsi(0, &WRITE_10, DataDirection::READ, data)),
            invalid,
            "the wrong way"
        );
    }
    let mut request = ScsiRequest::new_zeroed();
    request.cdb[..10].copy_from_slice(&READ_10);
    request.cdb_length = 10;
    request.direction = DataDirection::READ;
    request.transfer_length = 1024;
    let half = GpaRange {
        byte_count: 512,
        byte_offset: 0,
        pages: &[1],
    };
    assert_eq!(
        outcome(&world.execute(request, half)),
        invalid,
        "less memory than it says"
    );
}

#[test]
fn unmap_gives_up_all_ranges_or_none() {
    let (controller, bus) = (controller(), bus());
    let mut world = World::ready(&controller, &bus);
    let ones = vec![0xff; 1024];
    world.write(0, &WRITE_10, &ones).unwrap();
    let list = |ranges: &[(u64, u32)]| {
        let mut list = vec![0; 8];
        for (first, count) in ranges {
            list.extend(first.to_be_bytes());
            list.extend(count.to_be_bytes());
            list.extend([0; 4]);
        }
        let length = list.len() as u16;
        list[..2].copy_from_slice(&(length - 2).to_be_bytes());
        list[2..4].copy_from_slice(&(length - 8).to_be_bytes());
        let mut cdb = [0; 10];
        cdb[0] = 0x42;
        cdb[7..9].copy_from_slice(&length.to_be_bytes());
        (cdb, list)
    };
    let (cdb, bytes) = list(&[(3, 1), (2048, 1)]);
    assert_eq!(world.write(0, &cdb, &bytes), sense(Sense::OUT_OF_RANGE));
    assert_eq!(world.read(0, &READ_10, 1024), Ok(ones));
    let (cdb, bytes) = list(&[(3, 1), (4, 1)]);
    assert_eq!(world.write(0, &cdb, &bytes), Ok(()));
    assert_eq!(world.read(0, &READ_10, 1024), Ok(vec![0; 1024]));
    let (cdb, mut bytes) = list(&[(3, 1)]);
    bytes[2..4].copy_from_slice(&[1, 0]);
    assert_eq!(
        world.write(0, &cdb, &bytes),
        sense(Sense::PARAMETER_LENGTH),
        "a list that claims to be longer"
    );
}

#[test]
fn write_same_repeats_a_block() {
    let (controller, bus) = (controller(), bus());
    let mut world = World::ready(&controller, &bus);
    let mut cdb = [0; 16];
    (cdb[0], cdb[9], cdb[12], cdb[13]) = (0x93, 1, 1, 0x2c);
    assert_eq!(world.write(0, &cdb, &[0xab; 512]), Ok(()));
    let mut read = [0x28, 0, 0, 0, 1, 0x2c, 0, 0, 2, 0];
    assert_eq!(
        world.read(0, &read, 1024).unwrap(),
        [vec![0xab; 512], vec![0; 512]].concat()
    );
    // Block 300 is the last of 300 from 1 on; without data, they become zeros.
    cdb[1] = 1;
    assert_eq!(world.command(0, &cdb), Ok(()));
    read[5] = 1;
    assert_eq!(world.read(0, &read, 1024).unwrap(), vec![0; 1024]);
    (cdb[12], cdb[13]) = (0, 0);
    assert_eq!(
        world.command(0, &cdb),
        sense(Sense::INVALID_FIELD),
        "a count of zero"
    );
}

#[test]
fn a_disk_that_is_not_to_be_written_is_not() {
    let controller = Controller::new(0);
    let disk = RamDisk::new(64, SectorSize::Bytes512)
        .with_contents(&[9; 4096])
        .read_only();
    controller
        .attach(None, LogicalUnit::disk(disk, id(), "1".to_string()))
        .unwrap();
    let bus = bus();
    let mut world = World::ready(&controller, &bus);
    assert_eq!(
        world.write(0, &WRITE_10, &[0; 1024]),
        sense(Sense::WRITE_PROTECTED)
    );
    assert_eq!(world.read(0, &READ_10, 1024), Ok(vec![9; 1024]));
    assert_eq!(
        world.read(0, &[0x1a, 0, 8, 0, 255, 0], 255).unwrap()[2] & 0x80,
        0x80
    );
}

/// A command that names 5 sectors from 0x102 on, in each of its forms: of 6, 10, 12 and 16 bytes.
fn forms(codes: [u8; 4]) -> [Vec<u8>; 4] {
    [
        vec![codes[0], 0, 1, 2, 5, 0],
        vec![codes[1], 0, 0, 0, 1, 2, 0, 0, 5, 0],
        vec![codes[2], 0, 0, 0, 1, 2, 0, 0, 0, 5, 0, 0],
        vec![codes[3], 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 5, 0, 0],
    ]
}

#[test]
fn each_form_of_write_and_read_reaches_the_same_sectors() {
    let (controller, bus) = (controller(), bus());
    let mut world = World::ready(&controller, &bus);
    for (byte, write) in (1..).zip(forms([0x0a, 0x2a, 0xaa, 0x8a])) {
        assert_eq!(world.write(0, &write, &[byte; 2560]), Ok(()));
        for read in forms([0x08, 0x28, 0xa8, 0x88]) {
            assert_eq!(world.read(0, &read, 2560), Ok(vec![byte; 2560]), "{read:x?}");
        }
    }
}

#[test]
fn write_same_with_unmap_leaves_zeros_and_nothing_else() {
    let (controller, bus) = (controller(), bus());
    let mut world = World::ready(&controller, &bus);
    world.write(0, &WRITE_10, &[0xff; 1024]).unwrap();
    // Unmap, without data: sector 4 only.
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[9], cdb[13]) = (0x93, 1 << 3 | 1, 4, 1);
    assert_eq!(world.command(0, &cdb), Ok(()));
    let expected = [vec![0xff; 512], vec![0; 512]].concat();
    assert_eq!(world.read(0, &READ_10, 1024), Ok(expected));
    // With data that are not zero, these are what is read.
    cdb[1] = 1 << 3;
    assert_eq!(world.write(0, &cdb, &[0xab; 512]), Ok(()));
    assert_eq!(world.read(0, &READ_10, 1024).unwrap()[512..], [0xab; 512]);
}

#[test]
fn a_disk_of_large_sectors_counts_in_those() {
    let controller = Controller::new(0);
    let disk = RamDisk::new(64, SectorSize::Bytes4096);
    controller
        .attach(None, LogicalUnit::disk(disk, id(), "4k".to_string()))
        .unwrap();
    let bus = bus();
    let mut world = World::ready(&controller, &bus);
    let capacity = world.read(0, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8).unwrap();
    assert_eq!(capacity, [0, 0, 0, 63, 0, 0, 16, 0]);
    assert_eq!(world.write(0, &WRITE_10, &[6; 8192]), Ok(()));
    assert_eq!(world.read(0, &READ_10, 8192), Ok(vec![6; 8192]));
    let mut last = READ_10;
    last[5] = 63;
    assert_eq!(
        world.read(0, &last, 8192).map(drop),
        sense(Sense::OUT_OF_RANGE),
        "two from the last on"
    );
}

#[test]
fn starting_stopping_and_flushing_a_disk_are_done() {
    let (controller, bus) = (controller(), bus());
    let mut world = World::ready(&controller, &bus);
    for cdb in [
        &[0x1b, 0, 0, 0, 1, 0][..],
        &[0x1b, 0, 0, 0, 0, 0],
        &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ] {
        assert_eq!(world.command(0, cdb), Ok(()), "{cdb:x?}");
    }
}
