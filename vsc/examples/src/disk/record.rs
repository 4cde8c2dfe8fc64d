//! The partition of this demo's own, and what it writes there: a record in the first block, a pattern behind it.

use crate::{DiskError, allocate};
use alloc::vec;
use alloc::vec::Vec;
use uuid::{Uuid, uuid};
use vsc::block::{BlockDevice, Blocking, Durability};
use vsc::bus::Bus;
use vsc::checksum::Crc32;
use vsc::partition::{self, NewPartition, Partition, TableError};
use vsc::storage::Disk;
use vsc_runtime::hal::Kernel;

/// Kind of the demo's partitions.
const KIND: Uuid = uuid!("70617274-6974-6164-8000-6469736b6465");
/// The disk's and the partition's names, where the demo has made them.
const DISK: Uuid = uuid!("70617274-6974-6164-8000-000000000001");
const PARTITION: Uuid = uuid!("70617274-6974-6164-8000-000000000002");

/// What a record begins with.
const SIGNATURE: [u8; 16] = *b"partita: written";
/// Bytes of the pattern, if the partition holds so many.
const PATTERN: u64 = 1 << 20;

/// What was done.
pub(crate) enum Step {
    /// The pattern was written and flushed.
    Written {
        /// Bytes of it.
        bytes: usize,
    },
    /// The pattern was there, and the record was taken away.
    Verified {
        /// Bytes of it.
        bytes: usize,
    },
}

/// The demo's partition on `disk`, which it makes if the disk has no table.
pub(crate) fn place(bus: &Bus<Kernel>, disk: &Disk) -> Result<Partition, DiskError> {
    let table = match bus.block_on(partition::read(disk, allocate(bus))) {
        Err(TableError::Missing) => {
            let new = NewPartition {
                kind: KIND,
                id: PARTITION,
                name: "demo",
            };
            bus.block_on(partition::create(disk, DISK, new, allocate(bus)))?;
            bus.block_on(partition::read(disk, allocate(bus)))?
        }
        table => table?,
    };
    let ours = table.into_iter().find(|partition| partition.kind == KIND);
    ours.ok_or(DiskError::NotOurs)
}

/// Writes what is not there, or verifies what is.
pub(crate) fn step(disk: &mut Blocking<Kernel, Disk>, place: &Partition) -> Result<Step, DiskError> {
    let size = disk.device().geometry().block_size as usize;
    let mut record = vec![0; size];
    disk.read_bytes(place.first * size as u64, &mut record)?;
    let room = place.blocks.saturating_sub(1).saturating_mul(size as u64);
    let pattern = pattern(room.min(PATTERN) as usize / size * size);
    let expected = expected(&pattern, size);
    if record != expected {
        disk.write(place.first + 1, &pattern, Durability::Cached)?;
        // Whoever finds the record finds the pattern.
        disk.flush()?;
        disk.write(place.first, &expected, Durability::OnMedium)?;
        disk.flush()?;
        return Ok(Step::Written { bytes: pattern.len() });
    }
    let mut found = vec![0; pattern.len()];
    disk.read_bytes((place.first + 1) * size as u64, &mut found)?;
    if let Some(at) = found
        .iter()
        .zip(&pattern)
        .position(|(found, written)| found != written)
    {
        return Err(DiskError::Changed(at));
    }
    disk.write(place.first, &vec![0; size], Durability::OnMedium)?;
    disk.flush()?;
    Ok(Step::Verified { bytes: pattern.len() })
}

/// The record of a pattern: signature, length, checksum.
fn expected(pattern: &[u8], size: usize) -> Vec<u8> {
    let mut record = SIGNATURE.to_vec();
    record.extend((pattern.len() as u64).to_le_bytes());
    record.extend(Crc32::of(pattern).to_le_bytes());
    record.resize(size, 0);
    record
}

/// Bytes that differ from block to block.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let byte = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(byte).collect()
}
