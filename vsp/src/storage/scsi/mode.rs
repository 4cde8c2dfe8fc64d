//! MODE SENSE: parameters of a unit, none of which can be changed (SPC-4, 6.11 and 7.5).

use super::cdb::{Cdb, Operation};
use super::cut;
use super::sense::Sense;
use crate::storage::disk::{Disk, Geometry};
use crate::storage::unit::{Kind, LogicalUnit};
use alloc::vec::Vec;
use vmbus::protocol::scsi::{WRITE_CACHE, WRITE_PROTECTED, mode};

/// Bit of the parameter: reads and writes may ask for the medium itself.
const UNDERSTANDS_FUA: u8 = 0x10;

/// Answers MODE SENSE (6) and (10).
pub(super) fn mode_sense<D: Disk>(unit: &LogicalUnit<D>, cdb: &Cdb) -> Result<Vec<u8>, Sense> {
    let (control, page, subpage) = (cdb.byte(2) >> 6, cdb.byte(2) & 0x3f, cdb.byte(3));
    if subpage != 0 && subpage != 0xff {
        return Err(Sense::INVALID_FIELD);
    }
    const CHANGEABLE: u8 = 1;
    const SAVED: u8 = 3;
    if control == SAVED {
        return Err(Sense::INVALID_FIELD);
    }
    let geometry = unit.medium().map(|disk| disk.geometry());
    let mut pages = Vec::new();
    for &known in pages_of(unit.kind()) {
        if page == known || page == mode::ALL {
            let mut body = body(known, geometry);
            if control == CHANGEABLE {
                body.fill(0);
            }
            pages.extend([known, body.len() as u8]);
            pages.append(&mut body);
        }
    }
    if pages.is_empty() {
        return Err(Sense::INVALID_FIELD);
    }
    let parameter = match unit.kind() {
        Kind::Optical => 0,
        Kind::Disk => {
            let read_only = geometry.is_none_or(|geometry| geometry.read_only);
            UNDERSTANDS_FUA | if read_only { WRITE_PROTECTED } else { 0 }
        }
    };
    Ok(if cdb.operation == Operation::ModeSense6 {
        let mut data = alloc::vec![(pages.len() + 3) as u8, 0, parameter, 0];
        data.append(&mut pages);
        cut(data, cdb.byte(4).into())
    } else {
        let mut data = ((pages.len() + 6) as u16).to_be_bytes().to_vec();
        data.extend([0, parameter, 0, 0, 0, 0]);
        data.append(&mut pages);
        cut(data, cdb.u16(7).into())
    })
}

const fn pages_of(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::Disk => &[mode::CACHING, mode::CONTROL],
        Kind::Optical => &[mode::CONTROL, mode::CAPABILITIES],
    }
}

/// A page behind its code and length.
fn body(page: u8, geometry: Option<Geometry>) -> Vec<u8> {
    match page {
        mode::CACHING => {
            let mut body = alloc::vec![0; 18];
            if geometry.is_some_and(|geometry| geometry.write_cache) {
                body[0] = WRITE_CACHE;
            }
            body
        }
        mode::CAPABILITIES => {
            /// Reads CD-R, CD-RW and DVD-ROM.
            const READS: u8 = 0x0b;
            /// A tray that can be locked and ejected.
            const TRAY: u8 = 0x29;
            let mut body = alloc::vec![0; 18];
            body[0] = READS;
            body[4] = TRAY;
            body
        }
        _ => alloc::vec![0; 10],
    }
}
