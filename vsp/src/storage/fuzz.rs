//! Entry for fuzzers: a guest that sends a controller what it likes, while its disks fail, stand still, come and go. Nothing panics, every
//! request that asks for an answer gets one, and memory of the guest that it did not name stays as it is.

use super::channel::{Role, serve};
use super::controller::Controller;
use super::disk::{DiskError, SectorSize};
use super::faulty::FaultyDisk;
use super::guest::{Bus, PAGE};
use super::unit::LogicalUnit;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::Future;
use core::task::{Context, Waker};
use uuid::Uuid;
use vmbus::fuzz::Input;
use vmbus::protocol::scsi::operation;
use vmbus::protocol::storage::{
    CreateSubChannels, DataDirection, MAX_CDB, Operation, Packet, ProtocolVersion, REQUEST_COMPLETION,
    ScsiRequest, Version,
};
use vmbus::ring::gpa::GpaRange;
use vmbus::ring::loopback::{Which, channel};
use vmbus::ring::{self, PacketFlags, PacketType};
use zerocopy::{FromZeros, IntoBytes};

/// Pages of the guest.
const RAM: usize = 40;
/// The page that the guest never names.
const UNTOUCHED: usize = RAM - 1;
/// The disks' own type is shared, so that the fuzzer keeps a hand in each.
type Shared = Arc<FaultyDisk>;

fn disk(disks: &mut Vec<Shared>) -> Shared {
    let disk = Arc::new(FaultyDisk::new(64, SectorSize::Bytes512));
    disks.push(disk.clone());
    disk
}

fn unit(optical: bool, disks: &mut Vec<Shared>) -> LogicalUnit<Shared> {
    let disk = disk(disks);
    match optical {
        true => LogicalUnit::optical(Some(disk), Uuid::nil(), String::from("drive")),
        false => LogicalUnit::disk(disk, Uuid::nil(), String::from("disk")),
    }
}

/// A guest that lies, against a controller with two disks and a drive. Returns how many answers it got.
pub fn guest(data: &[u8]) -> usize {
    let mut input = Input::new(data);
    let controller = Controller::new(2);
    // Every disk that there was, as those that a guest ejects may hold requests.
    let mut disks = Vec::new();
    for optical in [false, false, true] {
        let _ = controller.attach(None, unit(optical, &mut disks));
    }
    let bus = Bus::new(RAM);
    let _ = bus.ram.copy_from(UNTOUCHED * PAGE, &[0xa5; PAGE]);
    let Ok((mut rings, host, hand)) = channel(4) else {
        return 0;
    };
    let mut host = Box::pin(serve(&controller, Role::Primary, host, &bus));
    let (mut wanted, mut answers) = (Vec::new(), 0);
    let (mut next, mut broken) = (1_u64, false);
    while !input.is_empty() && !broken {
        match input.small(16) {
            0 => operator(&controller, &mut disks, &mut input),
            // One case in a few breaks the ring.
            1 if input.small(16) == 0 => hand.poke(Which::FromGuest, input.index(16), input.byte()),
            _ => {
                if let Some(asked) = send(&mut rings, &mut input, next) {
                    wanted.extend(asked.then_some(next));
                    next += 1;
                }
            }
        }
        broken = !step(&mut host, &bus);
        answers += drain(&mut rings, &mut wanted);
    }
    // Whatever stood still goes on, and then nothing is left without an answer.
    disks.iter().for_each(|disk| disk.set_held(false));
    for _ in 0..40 {
        if broken {
            break;
        }
        broken = !step(&mut host, &bus);
        answers += drain(&mut rings, &mut wanted);
    }
    if !broken {
        assert!(wanted.is_empty(), "requests {wanted:?} were never answered");
    }
    let mut untouched = [0; PAGE];
    let _ = bus.ram.copy_to(UNTOUCHED * PAGE, &mut untouched);
    assert!(
        untouched.iter().all(|&byte| byte == 0xa5),
        "memory was written that nobody named"
    );
    answers
}

/// Lets the host work; `false` once it has given the ring up.
fn step<F: Future>(host: &mut core::pin::Pin<Box<F>>, bus: &Bus) -> bool {
    for _ in 0..3 {
        bus.ring();
        if host
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
        {
            return false;
        }
    }
    true
}

/// Takes what has come: each transaction that asked is answered once, and no other.
fn drain(rings: &mut ring::Channel, wanted: &mut Vec<u64>) -> usize {
    let mut batch = rings.incoming.batch();
    let mut count = 0;
    while let Ok(Some(packet)) = batch.next() {
        if packet.kind() == PacketType::COMPLETION {
            let transaction = packet.transaction();
            let at = wanted.iter().position(|&asked| asked == transaction);
            assert!(at.is_some(), "transaction {transaction} did not ask");
            at.map(|at| wanted.swap_remove(at));
            count += 1;
        }
    }
    let _ = batch.finish();
    count
}

/// What happens to the disks.
fn operator(controller: &Controller<Shared>, disks: &mut Vec<Shared>, input: &mut Input<'_>) {
    let lun = input.small(4) as u8;
    let Some(unit) = controller.unit(lun) else {
        let _ = controller.attach(Some(lun), unit(lun == 2, disks));
        return;
    };
    let Some(disk) = unit.medium() else {
        unit.change_medium(Some(disk(disks)));
        return;
    };
    match input.small(8) {
        0 => disk.spoil_reads(input.small(64).into()..64),
        1 => disk.spoil_writes(input.small(64).into()..64),
        2 => disk.set_broken(Some(
            [DiskError::Gone, DiskError::Reset, DiskError::Failed][input.index(3)],
        )),
        3 => disk.set_unwilling(Some([DiskError::Full, DiskError::ReadOnly][input.index(2)])),
        4 => disk.set_broken(None),
        5 => disk.set_held(true),
        6 => drop(unit.change_medium(None)),
        _ => drop(controller.detach(lun)),
    }
}

/// Sends something; whether it asks for an answer, or `None` where the ring had no room.
fn send(rings: &mut ring::Channel, input: &mut Input<'_>, transaction: u64) -> Option<bool> {
    let asks = input.small(8) > 0;
    let operation = match input.small(16) {
        0..9 => Operation::EXECUTE_SRB,
        9 => Operation::QUERY_PROTOCOL_VERSION,
        _ => Operation(input.small(15)),
    };
    let mut packet = Packet::new(operation, if asks { REQUEST_COMPLETION } else { 0 }, &0_u32);
    match operation {
        Operation::EXECUTE_SRB => packet.set_body(&request(input)),
        Operation::QUERY_PROTOCOL_VERSION => packet.set_body(&ProtocolVersion {
            version: [Version::V6_2, Version::V5_1, Version(7)][input.index(3)],
            revision: 0,
        }),
        Operation::CREATE_SUB_CHANNELS => packet.set_body(&CreateSubChannels {
            count: input.small(4) as u16,
            reserved: 0,
        }),
        _ => {}
    }
    // A packet that is cut short may have lost its flags; those of the ring count as well.
    let length = match input.small(16) {
        0 => input.index(size_of::<Packet>()),
        _ => size_of::<Packet>(),
    };
    let bytes = packet.as_bytes().get(..length).unwrap_or_default();
    let flags = match asks {
        true => PacketFlags::COMPLETION_REQUESTED,
        false => PacketFlags::empty(),
    };
    let count = input.index(5);
    let pages: Vec<u64> = (0..count)
        .map(|_| match input.small(32) {
            0 => u64::from(input.word()) << 30,
            1 => RAM as u64 + u64::from(input.byte()),
            _ => u64::from(input.small(UNTOUCHED as u32)),
        })
        .collect();
    let range = GpaRange {
        byte_count: input.word() % (4 * PAGE as u32),
        byte_offset: match input.small(3) {
            0 => input.word() % 5000,
            _ => 0,
        },
        pages: &pages,
    };
    let mut batch = rings.outgoing.batch().ok()?;
    let sent = match input.small(4) {
        0 => batch.push(PacketType::IN_BAND, transaction, flags, &[bytes]),
        _ => batch.push_gpa_direct(transaction, flags, &[range], bytes),
    };
    let _ = batch.commit();
    sent.ok().map(|()| asks)
}

fn request(input: &mut Input<'_>) -> ScsiRequest {
    let mut request = ScsiRequest::new_zeroed();
    request.lun = input.small(4) as u8;
    if input.small(16) == 0 {
        (request.path, request.target) = (input.byte(), input.byte());
    }
    request.cdb_length = match input.small(8) {
        0 => input.byte(),
        _ => MAX_CDB as u8,
    };
    request.direction = DataDirection(input.small(4) as u8);
    request.transfer_length = match input.small(4) {
        0 => input.word(),
        _ => input.word() % (5 * PAGE as u32),
    };
    // One that is known, so that a case does not have to find it, or the one behind.
    request.cdb[0] = operation::ALL
        .get(input.index(operation::ALL.len() + 1))
        .copied()
        .unwrap_or(0xff);
    // Small numbers make sense more often than large ones.
    for byte in &mut request.cdb[1..] {
        *byte = match input.small(8) {
            0 => input.byte(),
            1 | 2 => input.small(4) as u8,
            _ => 0,
        };
    }
    request
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_guest_that_lies_gets_its_answers_and_nothing_else(data in prop::collection::vec(any::<u8>(), 0..3000)) {
            super::guest(&data);
        }
    }
}
