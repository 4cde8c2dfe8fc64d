//! A controller against a guest that speaks the protocol by hand.

use super::channel::{Link, Role, serve};
use super::controller::{AttachError, Controller};
use super::disk::SectorSize;
use super::ram::RamDisk;
use super::scsi::sense::Sense;
use super::unit::LogicalUnit;
use crate::buffer::{self, Buffer};
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use core::task::{Context, Poll, Waker};
use proptest::prelude::*;
use uuid::Uuid;
use vmbus::protocol::storage::*;
use vmbus::ring::gpa::GpaRange;
use vmbus::ring::loopback::channel;
use vmbus::ring::{self, PacketFlags, PacketType, RingError};
use zerocopy::{FromZeros, IntoBytes};

const PAGE: usize = 4096;
/// Pages of the guest.
const RAM: usize = 300;

/// The bus of a guest that has `RAM` pages, from address 0 on.
struct Bus {
    ram: Arc<Buffer>,
    signalled: AtomicBool,
    sub_channels: AtomicU16,
}

impl Link for Bus {
    fn wait(&self) -> impl Future<Output = ()> + Send {
        poll_fn(|_| match self.signalled.swap(false, Ordering::Relaxed) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
    }

    fn signal(&self) {}

    fn buffer(&self, pieces: impl IntoIterator<Item = (u64, usize)>) -> Option<Arc<Buffer>> {
        let pieces = pieces.into_iter().map(|(gpa, length)| (gpa as usize, length));
        self.ram.parts(pieces).map(Arc::new)
    }

    fn offer_sub_channels(&self, count: u16) -> u16 {
        self.sub_channels.store(count, Ordering::Relaxed);
        count
    }
}

struct World<'a> {
    rings: ring::Channel,
    bus: &'a Bus,
    host: Pin<alloc::boxed::Box<dyn Future<Output = RingError> + 'a>>,
    broken: Option<RingError>,
    next: u64,
}

fn bus() -> Bus {
    Bus {
        ram: buffer::owned(RAM * PAGE),
        signalled: AtomicBool::new(false),
        sub_channels: AtomicU16::new(0),
    }
}

impl<'a> World<'a> {
    fn new(controller: &'a Controller<RamDisk>, bus: &'a Bus) -> Self {
        let (guest, host, _) = channel(8).unwrap();
        let host = alloc::boxed::Box::pin(serve(controller, Role::Primary, host, bus));
        Self {
            rings: guest,
            bus,
            host,
            broken: None,
            next: 1,
        }
    }

    /// A world whose guest has set the controller up.
    fn ready(controller: &'a Controller<RamDisk>, bus: &'a Bus) -> Self {
        let mut world = Self::new(controller, bus);
        assert_eq!(
            world.ask(Operation::BEGIN_INITIALIZATION, &0_u32).status,
            Status::SUCCESS
        );
        let version = ProtocolVersion {
            version: Version::V6_2,
            revision: 0,
        };
        assert_eq!(
            world.ask(Operation::QUERY_PROTOCOL_VERSION, &version).status,
            Status::SUCCESS
        );
        assert_eq!(
            world.ask(Operation::END_INITIALIZATION, &0_u32).status,
            Status::SUCCESS
        );
        world
    }

    fn step(&mut self) {
        self.bus.signalled.store(true, Ordering::Relaxed);
        for _ in 0..4 {
            if self.broken.is_none()
                && let Poll::Ready(error) = self.host.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            {
                self.broken = Some(error);
            }
        }
    }

    /// What has come: type, transaction, packet.
    fn come(&mut self) -> Vec<(PacketType, u64, Packet)> {
        let mut batch = self.rings.incoming.batch();
        let mut packets = Vec::new();
        while let Some(packet) = batch.next().unwrap() {
            packets.push((packet.kind(), packet.transaction(), packet.read(0).unwrap()));
        }
        let _ = batch.finish();
        packets
    }

    fn ask(&mut self, operation: Operation, body: &(impl IntoBytes + zerocopy::Immutable)) -> Packet {
        self.next += 1;
        let packet = Packet::new(operation, REQUEST_COMPLETION, body);
        let flags = PacketFlags::COMPLETION_REQUESTED;
        let _ = self
            .rings
            .outgoing
            .send(self.next, flags, &[packet.as_bytes()])
            .unwrap();
        self.answer()
    }

    fn answer(&mut self) -> Packet {
        self.step();
        let answers = self.come();
        let [(PacketType::COMPLETION, transaction, answer)] = answers[..] else {
            panic!("not one completion: {answers:?}");
        };
        assert_eq!(
            (transaction, answer.operation),
            (self.next, Operation::COMPLETE_IO)
        );
        answer
    }

    fn scsi(&mut self, lun: u8, cdb: &[u8], direction: DataDirection, data: GpaRange<'_>) -> ScsiRequest {
        let mut request = ScsiRequest::new_zeroed();
        request.length = size_of::<ScsiRequest>() as u16;
        request.lun = lun;
        request.cdb_length = cdb.len() as u8;
        request.cdb[..cdb.len()].copy_from_slice(cdb);
        request.direction = direction;
        request.transfer_length = data.byte_count;
        request.sense_length = 20;
        self.execute(request, data)
    }

    fn execute(&mut self, request: ScsiRequest, data: GpaRange<'_>) -> ScsiRequest {
        self.next += 1;
        let packet = Packet::new(Operation::EXECUTE_SRB, REQUEST_COMPLETION, &request);
        let mut batch = self.rings.outgoing.batch().unwrap();
        let flags = PacketFlags::COMPLETION_REQUESTED;
        batch
            .push_gpa_direct(self.next, flags, &[data], packet.as_bytes())
            .unwrap();
        let _ = batch.commit();
        self.answer().body()
    }

    /// A command that reads up to `length` bytes: what it read.
    fn read(&mut self, lun: u8, cdb: &[u8], length: u32) -> Result<Vec<u8>, [u8; 3]> {
        let pages: Vec<u64> = (10..10 + u64::from(length).div_ceil(PAGE as u64)).collect();
        let data = GpaRange {
            byte_count: length,
            byte_offset: 0,
            pages: &pages,
        };
        let answer = self.scsi(lun, cdb, DataDirection::READ, data);
        outcome(&answer)?;
        let mut bytes = vec![0; answer.transfer_length as usize];
        self.bus.ram.copy_to(10 * PAGE, &mut bytes).unwrap();
        Ok(bytes)
    }

    fn write(&mut self, lun: u8, cdb: &[u8], bytes: &[u8]) -> Result<(), [u8; 3]> {
        self.bus.ram.copy_from(100 * PAGE, bytes).unwrap();
        let pages: Vec<u64> = (100..100 + bytes.len().div_ceil(PAGE) as u64).collect();
        let data = GpaRange {
            byte_count: bytes.len() as u32,
            byte_offset: 0,
            pages: &pages,
        };
        outcome(&self.scsi(lun, cdb, DataDirection::WRITE, data))
    }

    fn command(&mut self, lun: u8, cdb: &[u8]) -> Result<(), [u8; 3]> {
        outcome(&self.scsi(lun, cdb, DataDirection::NONE, NOTHING))
    }
}

const NOTHING: GpaRange<'_> = GpaRange {
    byte_count: 0,
    byte_offset: 0,
    pages: &[],
};

/// The sense key, code and qualifier of a failure; of one without, the status as the first.
fn outcome(answer: &ScsiRequest) -> Result<(), [u8; 3]> {
    match answer.srb_status {
        SrbStatus::SUCCESS => Ok(()),
        status if status.has_sense() => {
            assert_eq!(
                (answer.scsi_status, answer.sense_length),
                (ScsiStatus::CHECK_CONDITION, 18)
            );
            Err([answer.cdb[2], answer.cdb[12], answer.cdb[13]])
        }
        status => Err([status.0, 0, 0]),
    }
}

fn sense(sense: Sense) -> Result<(), [u8; 3]> {
    let data = sense.encode();
    Err([data[2], data[12], data[13]])
}

fn id() -> Uuid {
    Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff)
}

/// A controller with a disk of 1 MiB as unit 0.
fn controller() -> Controller<RamDisk> {
    let controller = Controller::new(3);
    let disk = RamDisk::new(2048, SectorSize::Bytes512);
    assert_eq!(
        controller.attach(None, LogicalUnit::disk(disk, id(), "serial1".to_string())),
        Ok(0)
    );
    assert!(controller.take_change());
    controller
}

const READ_10: [u8; 10] = [0x28, 0, 0, 0, 0, 3, 0, 0, 2, 0];
const WRITE_10: [u8; 10] = [0x2a, 0, 0, 0, 0, 3, 0, 0, 2, 0];

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

proptest! {
    #[test]
    fn any_command_is_answered_and_breaks_nothing(
        requests in prop::collection::vec(
            (any::<[u8; 52]>(), prop::collection::vec(any::<u64>().prop_map(|page| page % 400), 0..5), 0_u32..20000, 0_u32..4096, any::<bool>()),
            1..40,
        )
    ) {
        let (controller, bus) = (controller(), bus());
        controller.attach(None, LogicalUnit::optical(Some(RamDisk::new(40, SectorSize::Bytes512)), id(), "3".to_string())).unwrap();
        controller.take_change();
        let mut world = World::ready(&controller, &bus);
        for (bytes, pages, byte_count, byte_offset, likely) in requests {
            let mut request = zerocopy::transmute!(bytes);
            let ScsiRequest { path, target, lun, cdb, cdb_length, transfer_length, .. } = &mut request;
            if likely {
                (*path, *target, *lun, *cdb_length) = (0, 0, *lun % 3, 16);
                let known = [0x00, 0x03, 0x08, 0x0a, 0x12, 0x1a, 0x1b, 0x1e, 0x25, 0x28, 0x2a, 0x2f, 0x35, 0x41, 0x42, 0x43,
                    0x46, 0x4a, 0x51, 0x5a, 0x88, 0x8a, 0x8f, 0x91, 0x93, 0x9e, 0xa0, 0xa8, 0xaa];
                cdb[0] = known[usize::from(cdb[0]) % known.len()];
                *transfer_length %= 65536;
            }
            world.execute(request, GpaRange { byte_count, byte_offset, pages: &pages });
        }
        prop_assert!(world.broken.is_none());
        prop_assert!(world.command(0, &[0x12, 0, 0, 0, 0, 0]).is_ok());
    }

    #[test]
    fn packets_of_any_kind_leave_the_channel_alive(
        packets in prop::collection::vec((any::<u16>(), any::<u64>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..100)), 1..40)
    ) {
        let (controller, bus) = (controller(), bus());
        let mut world = World::ready(&controller, &bus);
        for (kind, transaction, ask, payload) in packets {
            let mut batch = world.rings.outgoing.batch().unwrap();
            let flags = if ask { PacketFlags::COMPLETION_REQUESTED } else { PacketFlags::empty() };
            batch.push(PacketType(kind % 16), transaction, flags, &[&payload]).unwrap();
            let _ = batch.commit();
            world.step();
            world.come();
        }
        prop_assert!(world.broken.is_none());
        prop_assert_eq!(world.ask(Operation::RESET_BUS, &0_u32).status, Status::SUCCESS);
    }
}
