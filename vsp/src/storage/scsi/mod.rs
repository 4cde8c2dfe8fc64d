//! SCSI: what a unit does with a command. Pure: what needs the disk comes back as [`Work`], for the controller to do.
//!
//! | file | what it is |
//! |---|---|
//! | [`cdb`] | the commands and their fields |
//! | [`sense`] | why a command was not carried out |
//! | [`inquiry`] | what a unit says of itself |
//! | [`mode`] | its parameters |
//! | [`capacity`] | its size |
//! | [`transfer`] | reads and writes |
//! | [`block`] | other commands on blocks |
//! | [`optical`] | commands of optical drives |

pub mod block;
pub mod capacity;
pub mod cdb;
pub mod inquiry;
pub mod mode;
pub mod optical;
pub mod sense;
pub mod transfer;

use super::disk::{Disk, Durability};
use super::unit::{Kind, Layout, LogicalUnit};
use alloc::sync::Arc;
use alloc::vec::Vec;
use cdb::{Cdb, Operation};
use sense::{SENSE, Sense};

/// What is to be done for a command.
#[derive(Debug)]
pub enum Work<D> {
    /// Nothing more.
    Nothing,
    /// These bytes go to the guest, as far as it has room for them.
    Reply(Vec<u8>),
    /// The disk has to do something.
    Disk {
        /// The disk.
        disk: Arc<D>,
        /// How the unit's blocks lie on it.
        layout: Layout,
        /// What.
        task: Task,
    },
}

/// What a disk has to do. Sectors are the disk's, and are all there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Task {
    /// Read `bytes` into the guest's memory.
    Read {
        /// First sector.
        sector: u64,
        /// Bytes.
        bytes: usize,
    },
    /// Write `bytes` of the guest's memory.
    Write {
        /// First sector.
        sector: u64,
        /// Bytes.
        bytes: usize,
        /// When it counts as done.
        durability: Durability,
    },
    /// Flush.
    Flush,
    /// Give up what a list in `bytes` of the guest's memory names.
    Unmap {
        /// Bytes of the list.
        bytes: usize,
    },
    /// Write one block of the guest's memory, or zeros, many times.
    WriteSame {
        /// First sector.
        sector: u64,
        /// Sectors.
        count: u64,
        /// The guest names no block: zeros.
        zeros: bool,
    },
}

impl Task {
    /// Whether the guest's memory is needed for it.
    pub(super) const fn has_data(self) -> bool {
        !matches!(self, Self::Flush | Self::WriteSame { zeros: true, .. })
    }
}

/// What `unit` does for the command `cdb`, which is no [`transfer`]; `luns` are the units of its target.
pub fn execute<D: Disk>(
    unit: &LogicalUnit<D>,
    cdb: &Cdb,
    luns: impl Fn() -> Vec<u8>,
) -> Result<Work<D>, Sense> {
    use Operation::*;
    // These tell of a unit whatever has happened to it (SPC-4, 5.14; MMC-6, 4.1.6.1).
    match cdb.operation {
        GetConfiguration if unit.kind() == Kind::Optical => {
            return optical::get_configuration(unit, cdb).map(Work::Reply);
        }
        GetEventStatus if unit.kind() == Kind::Optical => {
            return optical::get_event_status(unit, cdb).map(Work::Reply);
        }
        Inquiry => return inquiry::inquiry(unit, cdb).map(Work::Reply),
        ReportLuns => return report_luns(cdb, &luns()).map(Work::Reply),
        RequestSense => return Ok(Work::Reply(request_sense(unit, cdb))),
        _ => {}
    }
    if let Some(attention) = unit.take_attention() {
        return Err(attention);
    }
    match cdb.operation {
        GetConfiguration | GetEventStatus | ReadToc | ReadDiscInformation | ReadTrackInformation
            if unit.kind() == Kind::Disk =>
        {
            Err(Sense::INVALID_COMMAND)
        }
        ReadToc => optical::read_toc(unit, cdb).map(Work::Reply),
        ReadDiscInformation => optical::read_disc_information(unit, cdb).map(Work::Reply),
        ReadTrackInformation => optical::read_track_information(unit, cdb).map(Work::Reply),
        ModeSense6 | ModeSense10 => mode::mode_sense(unit, cdb).map(Work::Reply),
        ReadCapacity10 => capacity::read_capacity_10(unit).map(Work::Reply),
        ServiceActionIn16 => capacity::service_action_in(unit, cdb).map(Work::Reply),
        StartStopUnit => start_stop(unit, cdb),
        PreventAllow => {
            unit.lock(cdb.byte(4) & 1 != 0);
            Ok(Work::Nothing)
        }
        TestUnitReady => unit.ready().map(|_| Work::Nothing),
        _ => block::execute(unit, cdb),
    }
}

/// What a missing unit of a target that has others says: only that it is not there (SPC-4, 6.6).
pub fn execute_missing<D: Disk>(cdb: &Cdb, luns: impl Fn() -> Vec<u8>) -> Result<Work<D>, Sense> {
    match cdb.operation {
        Operation::Inquiry => inquiry::missing(cdb).map(Work::Reply),
        Operation::ReportLuns => report_luns(cdb, &luns()).map(Work::Reply),
        Operation::RequestSense => Ok(Work::Reply(cut(
            Sense::NO_UNIT.encode().to_vec(),
            cdb.byte(4).into(),
        ))),
        _ => Err(Sense::NO_UNIT),
    }
}

fn request_sense<D: Disk>(unit: &LogicalUnit<D>, cdb: &Cdb) -> Vec<u8> {
    let sense = unit.take_attention().unwrap_or(Sense::NONE);
    cut(sense.encode().to_vec(), usize::from(cdb.byte(4)).min(SENSE))
}

/// The list of units (SPC-4, 6.33).
fn report_luns(cdb: &Cdb, luns: &[u8]) -> Result<Vec<u8>, Sense> {
    const ALL: u8 = 2;
    if cdb.byte(2) > ALL {
        return Err(Sense::INVALID_FIELD);
    }
    let mut data = ((luns.len() * 8) as u32).to_be_bytes().to_vec();
    data.extend([0; 4]);
    for &lun in luns {
        data.extend([0, lun, 0, 0, 0, 0, 0, 0]);
    }
    Ok(cut(data, cdb.u32(6) as usize))
}

/// START STOP UNIT (SBC-3, 5.25). Disks run always; stopping one brings its data to the medium.
fn start_stop<D: Disk>(unit: &LogicalUnit<D>, cdb: &Cdb) -> Result<Work<D>, Sense> {
    let (start, load_eject) = (cdb.byte(4) & 1 != 0, cdb.byte(4) & 2 != 0);
    let power_condition = cdb.byte(4) >> 4;
    match (power_condition, load_eject, start) {
        (0, true, false) if unit.kind() == Kind::Optical => unit.eject().map(|()| Work::Nothing),
        (0, true, true) if unit.kind() == Kind::Optical => unit.ready().map(|_| Work::Nothing),
        (0, true, _) => Err(Sense::INVALID_FIELD),
        (0, false, false) => {
            let (disk, layout) = unit.ready()?;
            let task = Task::Flush;
            Ok(Work::Disk { disk, layout, task })
        }
        _ => Ok(Work::Nothing),
    }
}

/// The first `length` bytes.
fn cut(mut data: Vec<u8>, length: usize) -> Vec<u8> {
    data.truncate(length);
    data
}
