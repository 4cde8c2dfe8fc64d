//! READ CAPACITY: how many blocks, of what size (SBC-3, 5.15 and 5.16).

use super::cdb::Cdb;
use super::cut;
use super::sense::Sense;
use crate::storage::disk::Disk;
use crate::storage::unit::LogicalUnit;
use alloc::vec::Vec;
use vmbus::protocol::scsi::READ_CAPACITY_16;

/// Blocks can be given up.
const PROVISIONING: u8 = 0x80;

/// Answers READ CAPACITY (10); a unit that it cannot describe says so by the greatest number.
pub(super) fn read_capacity_10<D: Disk>(unit: &LogicalUnit<D>) -> Result<Vec<u8>, Sense> {
    let (_, layout) = unit.ready()?;
    let last = layout.blocks.saturating_sub(1);
    let mut data = u32::try_from(last).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    data.extend(layout.block.to_be_bytes());
    Ok(data)
}

/// Answers SERVICE ACTION IN (16), of which READ CAPACITY (16) is the one that we know.
pub(super) fn service_action_in<D: Disk>(unit: &LogicalUnit<D>, cdb: &Cdb) -> Result<Vec<u8>, Sense> {
    if cdb.byte(1) & 0x1f != READ_CAPACITY_16 {
        return Err(Sense::INVALID_FIELD);
    }
    let (_, layout) = unit.ready()?;
    let mut data = alloc::vec![0; 32];
    data[..8].copy_from_slice(&layout.blocks.saturating_sub(1).to_be_bytes());
    data[8..12].copy_from_slice(&layout.block.to_be_bytes());
    if layout.geometry.discard {
        data[14] = PROVISIONING;
    }
    Ok(cut(data, cdb.u32(10) as usize))
}
