//! A controller against a guest that speaks the protocol by hand.
//!
//! | file | what it is |
//! |---|---|
//! | [`session`] | what both agree on, and what passes between them besides requests |
//! | [`identity`] | what units say of themselves |
//! | [`blocks`] | commands on blocks |
//! | [`optical`] | drives and their media |
//! | [`faults`] | disks that fail |
//! | [`reset`] | resets, and requests without an answer |
//! | [`hostile`] | guests that send what they like |

mod blocks;
mod faults;
mod hostile;
mod identity;
mod optical;
mod reset;
mod session;

use crate::storage::channel::{Role, serve};
use crate::storage::controller::{AttachError, Controller};
use crate::storage::disk::{Disk, SectorSize};
use crate::storage::faulty::FaultyDisk;
use crate::storage::guest::{Bus, PAGE};
use crate::storage::ram::RamDisk;
use crate::storage::scsi::sense::Sense;
use crate::storage::unit::LogicalUnit;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use uuid::Uuid;
use vmbus::protocol::storage::*;
use vmbus::ring::gpa::GpaRange;
use vmbus::ring::loopback::channel;
use vmbus::ring::{self, PacketFlags, PacketType, RingError};
use zerocopy::{FromZeros, IntoBytes};

/// Pages of the guest.
const RAM: usize = 300;

struct World<'a> {
    rings: ring::Channel,
    bus: &'a Bus,
    host: Pin<alloc::boxed::Box<dyn Future<Output = RingError> + 'a>>,
    broken: Option<RingError>,
    next: u64,
}

fn bus() -> Bus {
    Bus::new(RAM)
}

impl<'a> World<'a> {
    fn new<D: Disk>(controller: &'a Controller<D>, bus: &'a Bus) -> Self {
        Self::on(controller, bus, Role::Primary)
    }

    /// The guest's end of one channel.
    fn on<D: Disk>(controller: &'a Controller<D>, bus: &'a Bus, role: Role) -> Self {
        let (guest, host, _) = channel(8).unwrap();
        let host = alloc::boxed::Box::pin(serve(controller, role, host, bus));
        Self {
            rings: guest,
            bus,
            host,
            broken: None,
            next: 1,
        }
    }

    /// A world whose guest has set the controller up.
    fn ready<D: Disk>(controller: &'a Controller<D>, bus: &'a Bus) -> Self {
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
        self.bus.ring();
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
        self.tell(operation, body);
        self.answer()
    }

    /// Sends a packet, and does not wait for its answer.
    fn tell(&mut self, operation: Operation, body: &(impl IntoBytes + zerocopy::Immutable)) {
        self.next += 1;
        let packet = Packet::new(operation, REQUEST_COMPLETION, body);
        let flags = PacketFlags::COMPLETION_REQUESTED;
        let _ = self
            .rings
            .outgoing
            .send(self.next, flags, &[packet.as_bytes()])
            .unwrap();
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
        self.submit(lun, cdb, direction, data);
        self.answer().body()
    }

    /// Sends a command, and does not wait for its answer.
    fn submit(&mut self, lun: u8, cdb: &[u8], direction: DataDirection, data: GpaRange<'_>) {
        let mut request = ScsiRequest::new_zeroed();
        request.length = size_of::<ScsiRequest>() as u16;
        request.lun = lun;
        request.cdb_length = cdb.len() as u8;
        request.cdb[..cdb.len()].copy_from_slice(cdb);
        request.direction = direction;
        request.transfer_length = data.byte_count;
        request.sense_length = 20;
        self.send(request, data, REQUEST_COMPLETION);
    }

    fn execute(&mut self, request: ScsiRequest, data: GpaRange<'_>) -> ScsiRequest {
        self.send(request, data, REQUEST_COMPLETION);
        self.answer().body()
    }

    /// Sends a request; `wanted` says whether an answer is wanted.
    fn send(&mut self, request: ScsiRequest, data: GpaRange<'_>, wanted: u32) {
        self.next += 1;
        let packet = Packet::new(Operation::EXECUTE_SRB, wanted, &request);
        let mut batch = self.rings.outgoing.batch().unwrap();
        let flags = match wanted {
            0 => PacketFlags::empty(),
            _ => PacketFlags::COMPLETION_REQUESTED,
        };
        batch
            .push_gpa_direct(self.next, flags, &[data], packet.as_bytes())
            .unwrap();
        let _ = batch.commit();
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

/// Two sectors' data, at page 10 of the guest.
const KIB: GpaRange<'_> = GpaRange {
    byte_count: 1024,
    byte_offset: 0,
    pages: &[10],
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

/// A controller with a disk of 1 MiB that can be made to fail, as unit 0, and that disk.
fn faulty() -> (Controller<FaultyDisk>, Arc<FaultyDisk>) {
    let controller = Controller::new(3);
    let disk = FaultyDisk::new(2048, SectorSize::Bytes512);
    let unit = LogicalUnit::disk(disk, id(), "faulty".to_string());
    let disk = unit.medium().unwrap();
    controller.attach(None, unit).unwrap();
    assert!(controller.take_change());
    (controller, disk)
}

const READ_10: [u8; 10] = [0x28, 0, 0, 0, 0, 3, 0, 0, 2, 0];
const WRITE_10: [u8; 10] = [0x2a, 0, 0, 0, 0, 3, 0, 0, 2, 0];
