//! Commands on blocks but reads and writes: flush, give up, fill (SBC-3).

use super::cdb::{Blocks, Cdb, Operation};
use super::sense::Sense;
use super::{Task, Work};
use crate::storage::disk::Disk;
use crate::storage::unit::{Layout, LogicalUnit};
use alloc::vec::Vec;

/// Most bytes of one read or write.
pub const MAX_TRANSFER: u32 = 1 << 20;
/// Most bytes that one WRITE SAME writes.
pub const MAX_WRITE_SAME: u32 = 32 << 20;
/// Most ranges of one UNMAP.
pub const MAX_UNMAP_DESCRIPTORS: usize = 256;

const UNMAP_HEADER: usize = 8;
const UNMAP_DESCRIPTOR: usize = 16;
const MAX_UNMAP_LIST: usize = UNMAP_HEADER + MAX_UNMAP_DESCRIPTORS * UNMAP_DESCRIPTOR;

/// What is to be done for a command on blocks.
pub(super) fn execute<D: Disk>(unit: &LogicalUnit<D>, cdb: &Cdb) -> Result<Work<D>, Sense> {
    use Operation::*;
    let (disk, layout) = unit.ready()?;
    let task = match cdb.operation {
        Verify10 | Verify16 => verify(&layout, cdb)?,
        SynchronizeCache10 | SynchronizeCache16 => {
            let Blocks { first, count } = cdb.blocks();
            check(&layout, first, count.into())?;
            Some(Task::Flush)
        }
        Unmap => unmap(&layout, cdb)?,
        WriteSame10 | WriteSame16 => write_same(&layout, cdb)?,
        _ => return Err(Sense::INVALID_COMMAND),
    };
    Ok(task.map_or(Work::Nothing, |task| Work::Disk { disk, layout, task }))
}

#[inline]
pub(super) fn check(layout: &Layout, first: u64, count: u64) -> Result<(), Sense> {
    if layout.holds(first, count) {
        Ok(())
    } else {
        Err(Sense::OUT_OF_RANGE)
    }
}

/// VERIFY without comparing: the blocks have to be there, and what was written has to be on the medium.
fn verify(layout: &Layout, cdb: &Cdb) -> Result<Option<Task>, Sense> {
    const COMPARE: u8 = 3 << 1;
    if cdb.byte(1) & COMPARE != 0 {
        return Err(Sense::INVALID_FIELD);
    }
    let Blocks { first, count } = cdb.blocks();
    check(layout, first, count.into())?;
    Ok(Some(Task::Flush))
}

#[inline]
pub(super) fn writable(layout: &Layout) -> Result<(), Sense> {
    if layout.geometry.read_only {
        return Err(Sense::WRITE_PROTECTED);
    }
    Ok(())
}

fn unmap(layout: &Layout, cdb: &Cdb) -> Result<Option<Task>, Sense> {
    if !layout.geometry.discard {
        return Err(Sense::INVALID_COMMAND);
    }
    const ANCHOR: u8 = 1;
    if cdb.byte(1) & ANCHOR != 0 {
        return Err(Sense::INVALID_FIELD);
    }
    writable(layout)?;
    let bytes = usize::from(cdb.u16(7));
    match bytes {
        0 => Ok(None),
        UNMAP_HEADER..=MAX_UNMAP_LIST => Ok(Some(Task::Unmap { bytes })),
        _ => Err(Sense::PARAMETER_LENGTH),
    }
}

/// The ranges that the list of an UNMAP names: first sector of the disk, and count. All are there, or none is given up.
pub(in crate::storage) fn unmap_ranges(layout: &Layout, list: &[u8]) -> Result<Vec<(u64, u64)>, Sense> {
    let length = list
        .get(2..4)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u16::from_be_bytes);
    let body = list.get(UNMAP_HEADER..).unwrap_or_default();
    let body = body.get(..usize::from(length)).ok_or(Sense::PARAMETER_LENGTH)?;
    let range = |descriptor: &[u8]| {
        let field = |at: usize, bytes: usize| {
            descriptor[at..at + bytes]
                .iter()
                .fold(0_u64, |value, &byte| value << 8 | u64::from(byte))
        };
        let (first, count) = (field(0, 8), field(8, 4));
        check(layout, first, count)?;
        Ok((layout.sector(first), layout.sector(count)))
    };
    body.chunks_exact(UNMAP_DESCRIPTOR).map(range).collect()
}

fn write_same(layout: &Layout, cdb: &Cdb) -> Result<Option<Task>, Sense> {
    /// Bits that are refused: protection information, and an anchor.
    const REFUSED: u8 = 7 << 5 | 1 << 4;
    const NO_DATA: u8 = 1;
    let flags = cdb.byte(1);
    let zeros = flags & NO_DATA != 0;
    if flags & REFUSED != 0 || zeros && cdb.operation == Operation::WriteSame10 {
        return Err(Sense::INVALID_FIELD);
    }
    writable(layout)?;
    let Blocks { first, count } = cdb.blocks();
    check(layout, first, count.into())?;
    if count == 0 || count > MAX_WRITE_SAME / layout.block {
        return Err(Sense::INVALID_FIELD);
    }
    Ok(Some(Task::WriteSame {
        sector: layout.sector(first),
        count: layout.sector(count.into()),
        zeros,
    }))
}
