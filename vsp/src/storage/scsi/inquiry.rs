//! INQUIRY: what a unit says of itself (SPC-4, 6.6 and 7.8; SBC-3, 6.6).

use super::cdb::Cdb;
use super::sense::Sense;
use super::{block, cut};
use crate::storage::disk::Disk;
use crate::storage::unit::{Kind, LogicalUnit};
use alloc::vec::Vec;
use vmbus::protocol::scsi::{device_type as types, vital};

/// Vendor, by which guests know that this is a disk of a Hyper-V host.
pub const VENDOR: &[u8; 8] = b"Msft    ";
/// Revision.
pub const REVISION: &[u8; 4] = b"1.0 ";

/// Peripheral qualifier 3 with device type 31: there is no such unit.
const NO_UNIT: u8 = 0x7f;
const REMOVABLE: u8 = 0x80;
/// SPC-3.
const VERSION: u8 = 5;
const RESPONSE_FORMAT: u8 = 2;
const COMMAND_QUEUEING: u8 = 2;

/// Answers INQUIRY.
pub(super) fn inquiry<D: Disk>(unit: &LogicalUnit<D>, cdb: &Cdb) -> Result<Vec<u8>, Sense> {
    let (vital, page) = (cdb.byte(1) & 1 != 0, cdb.byte(2));
    let data = match (vital, page) {
        (false, 0) => standard(device_type(unit.kind()), unit.kind()),
        (false, _) => return Err(Sense::INVALID_FIELD),
        (true, page) => vital_page(unit, page)?,
    };
    Ok(cut(data, cdb.u16(3).into()))
}

/// Answers INQUIRY for a unit that is not there.
pub(super) fn missing(cdb: &Cdb) -> Result<Vec<u8>, Sense> {
    if cdb.byte(1) & 1 != 0 || cdb.byte(2) != 0 {
        return Err(Sense::NO_UNIT);
    }
    Ok(cut(standard(NO_UNIT, Kind::Disk), cdb.u16(3).into()))
}

const fn device_type(kind: Kind) -> u8 {
    match kind {
        Kind::Disk => types::DISK,
        Kind::Optical => types::OPTICAL,
    }
}

const fn product(kind: Kind) -> &'static [u8; 16] {
    match kind {
        Kind::Disk => b"Virtual Disk    ",
        Kind::Optical => b"Virtual DVD-ROM ",
    }
}

fn standard(first: u8, kind: Kind) -> Vec<u8> {
    let removable = if kind == Kind::Optical { REMOVABLE } else { 0 };
    let mut data = alloc::vec![
        first,
        removable,
        VERSION,
        RESPONSE_FORMAT,
        31,
        0,
        0,
        COMMAND_QUEUEING
    ];
    data.extend_from_slice(VENDOR);
    data.extend_from_slice(product(kind));
    data.extend_from_slice(REVISION);
    data
}

fn vital_page<D: Disk>(unit: &LogicalUnit<D>, page: u8) -> Result<Vec<u8>, Sense> {
    let body = match (page, unit.kind()) {
        (vital::LIST, Kind::Disk) => alloc::vec![
            vital::LIST,
            vital::SERIAL,
            vital::IDENTIFICATION,
            vital::BLOCK_LIMITS,
            vital::CHARACTERISTICS,
            vital::PROVISIONING
        ],
        (vital::LIST, Kind::Optical) => alloc::vec![vital::LIST, vital::SERIAL, vital::IDENTIFICATION],
        (vital::SERIAL, _) => unit
            .serial()
            .bytes()
            .filter(u8::is_ascii_graphic)
            .take(64)
            .collect(),
        (vital::IDENTIFICATION, _) => identification(unit),
        (vital::BLOCK_LIMITS, Kind::Disk) => block_limits(unit)?,
        (vital::CHARACTERISTICS, Kind::Disk) => characteristics(),
        (vital::PROVISIONING, Kind::Disk) => provisioning(unit)?,
        _ => return Err(Sense::INVALID_FIELD),
    };
    let mut data = alloc::vec![device_type(unit.kind()), page];
    data.extend((body.len() as u16).to_be_bytes());
    data.extend(body);
    Ok(data)
}

/// Two names: text by the vendor, and a number that is one of its kind in the world.
fn identification<D: Disk>(unit: &LogicalUnit<D>) -> Vec<u8> {
    const ASCII: u8 = 2;
    const BINARY: u8 = 1;
    const T10_VENDOR: u8 = 1;
    const NAA: u8 = 3;
    /// Registered extended (6), and the vendor's number 0x002248.
    const NAA_VENDOR: [u8; 4] = [0x60, 0x02, 0x24, 0x80];

    let id = unit.id();
    let mut text = VENDOR.to_vec();
    text.extend(id.simple().encode_lower(&mut [0; 32]).bytes());
    let mut number = NAA_VENDOR.to_vec();
    number.extend_from_slice(&id.as_bytes()[4..16]);

    let mut data = Vec::new();
    for (code_set, kind, name) in [(BINARY, NAA, number), (ASCII, T10_VENDOR, text)] {
        data.extend([code_set, kind, 0, name.len() as u8]);
        data.extend(name);
    }
    data
}

/// Page 0xB0 behind its header.
fn block_limits<D: Disk>(unit: &LogicalUnit<D>) -> Result<Vec<u8>, Sense> {
    /// A count of zero does not stand for "up to the end".
    const WRITE_SAME_NOT_ZERO: u8 = 1;
    let (disk, layout) = unit.ready()?;
    let mut data = alloc::vec![0; 60];
    data[0] = WRITE_SAME_NOT_ZERO;
    data[4..8].copy_from_slice(&(block::MAX_TRANSFER / layout.block).to_be_bytes());
    if disk.geometry().discard {
        data[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
        data[20..24].copy_from_slice(&(block::MAX_UNMAP_DESCRIPTORS as u32).to_be_bytes());
        data[24..28].copy_from_slice(&1_u32.to_be_bytes());
    }
    data[32..40].copy_from_slice(&u64::from(block::MAX_WRITE_SAME / layout.block).to_be_bytes());
    Ok(data)
}

/// Page 0xB1 behind its header.
fn characteristics() -> Vec<u8> {
    const DOES_NOT_ROTATE: [u8; 2] = [0, 1];
    let mut data = alloc::vec![0; 60];
    data[..2].copy_from_slice(&DOES_NOT_ROTATE);
    data
}

/// Page 0xB2 behind its header.
fn provisioning<D: Disk>(unit: &LogicalUnit<D>) -> Result<Vec<u8>, Sense> {
    const BY_UNMAP: u8 = 0x80;
    const BY_WRITE_SAME: u8 = 0x40 | 0x20;
    const THIN: u8 = 2;
    let (disk, _) = unit.ready()?;
    Ok(if disk.geometry().discard {
        alloc::vec![0, BY_UNMAP | BY_WRITE_SAME, THIN, 0]
    } else {
        alloc::vec![0; 4]
    })
}
