//! Commands of optical drives: as much as a reader of data media needs (MMC-6).

use super::cdb::Cdb;
use super::cut;
use super::sense::Sense;
use crate::storage::disk::Disk;
use crate::storage::unit::LogicalUnit;
use alloc::vec::Vec;

/// Profile: DVD-ROM.
const DVD_ROM: u16 = 0x10;
/// Data track, copying permitted.
const DATA_TRACK: u8 = 0x14;
/// Number that stands for the track behind the last.
const LEAD_OUT: u8 = 0xaa;

/// Answers GET CONFIGURATION: the list of profiles, which is one.
pub(super) fn get_configuration<D: Disk>(unit: &LogicalUnit<D>, cdb: &Cdb) -> Result<Vec<u8>, Sense> {
    let current = if unit.medium().is_some() { DVD_ROM } else { 0 };
    let mut feature = alloc::vec![0, 0, 3, 4];
    feature.extend(DVD_ROM.to_be_bytes());
    feature.extend([u8::from(current != 0), 0]);
    // Only the list of profiles is feature 0; who starts behind it gets none.
    if cdb.u16(2) > 0 {
        feature.clear();
    }
    let mut data = ((feature.len() + 4) as u32).to_be_bytes().to_vec();
    data.extend([0, 0]);
    data.extend(current.to_be_bytes());
    data.append(&mut feature);
    Ok(cut(data, cdb.u16(7).into()))
}

/// Answers GET EVENT STATUS NOTIFICATION: whether there is a medium.
pub(super) fn get_event_status<D: Disk>(unit: &LogicalUnit<D>, cdb: &Cdb) -> Result<Vec<u8>, Sense> {
    const POLLED: u8 = 1;
    const MEDIA: u8 = 4;
    const NO_EVENT_CLASS: u8 = 0x80;
    if cdb.byte(1) & POLLED == 0 {
        return Err(Sense::INVALID_FIELD);
    }
    let data = if cdb.byte(4) & 1 << MEDIA != 0 {
        let present = if unit.medium().is_some() { 2 } else { 0 };
        alloc::vec![0, 6, MEDIA, 1 << MEDIA, 0, present, 0, 0]
    } else {
        alloc::vec![0, 2, NO_EVENT_CLASS, 1 << MEDIA]
    };
    Ok(cut(data, cdb.u16(7).into()))
}

/// Answers READ TOC: one session with one data track.
pub(super) fn read_toc<D: Disk>(unit: &LogicalUnit<D>, cdb: &Cdb) -> Result<Vec<u8>, Sense> {
    let (_, layout) = unit.ready()?;
    let minutes = cdb.byte(1) & 2 != 0;
    let end = u32::try_from(layout.blocks).unwrap_or(u32::MAX);
    let address = |block: u32| {
        if !minutes {
            return block.to_be_bytes();
        }
        let frames = u64::from(block) + 150;
        [
            0,
            (frames / 75 / 60).min(99) as u8,
            (frames / 75 % 60) as u8,
            (frames % 75) as u8,
        ]
    };
    let mut data = match (cdb.byte(2) & 0xf, cdb.byte(6)) {
        // All tracks from a number on; one, and the one behind the last.
        (0, from) if from <= 1 || from == LEAD_OUT => {
            let mut tracks = Vec::new();
            if from <= 1 {
                tracks.extend([0, DATA_TRACK, 1, 0]);
                tracks.extend(address(0));
            }
            tracks.extend([0, DATA_TRACK, LEAD_OUT, 0]);
            tracks.extend(address(end));
            tracks
        }
        // The last session.
        (1, _) => {
            let mut session = alloc::vec![0, DATA_TRACK, 1, 0];
            session.extend(address(0));
            session
        }
        _ => return Err(Sense::INVALID_FIELD),
    };
    let mut toc = ((data.len() + 2) as u16).to_be_bytes().to_vec();
    toc.extend([1, 1]);
    toc.append(&mut data);
    Ok(cut(toc, cdb.u16(7).into()))
}

/// Answers READ DISC INFORMATION: a finished medium of one session.
pub(super) fn read_disc_information<D: Disk>(unit: &LogicalUnit<D>, cdb: &Cdb) -> Result<Vec<u8>, Sense> {
    unit.ready()?;
    const COMPLETE: u8 = 0x0e;
    let mut data = alloc::vec![0; 34];
    data[..8].copy_from_slice(&[0, 32, COMPLETE, 1, 1, 1, 1, 0]);
    Ok(cut(data, cdb.u16(7).into()))
}

/// Answers READ TRACK INFORMATION: the one track, which is the whole medium.
pub(super) fn read_track_information<D: Disk>(unit: &LogicalUnit<D>, cdb: &Cdb) -> Result<Vec<u8>, Sense> {
    const BY_BLOCK: u8 = 0;
    const BY_TRACK: u8 = 1;
    const BY_SESSION: u8 = 2;
    /// Mode 1, data.
    const DATA: u8 = 1;
    let (_, layout) = unit.ready()?;
    let there = match cdb.byte(1) & 3 {
        BY_BLOCK => u64::from(cdb.u32(2)) < layout.blocks,
        BY_TRACK | BY_SESSION => cdb.u32(2) == 1,
        _ => false,
    };
    if !there {
        return Err(Sense::INVALID_FIELD);
    }
    let mut data = alloc::vec![0; 36];
    data[..7].copy_from_slice(&[0, 34, 1, 1, 0, DATA_TRACK & 0xf, DATA]);
    let size = u32::try_from(layout.blocks).unwrap_or(u32::MAX);
    data[24..28].copy_from_slice(&size.to_be_bytes());
    Ok(cut(data, cdb.u16(7).into()))
}
