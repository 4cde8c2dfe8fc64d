//! Putting a table on a disk.

use super::layout::{ENTRIES, Entry, Header, REVISION, SIGNATURE};
use super::read::TableError;
use crate::block::{BlockDevice, Durability};
use crate::checksum::Crc32;
use crate::memory::Buffer;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use uuid::Uuid;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

/// A partition that is to be.
#[derive(Clone, Copy, Debug)]
pub struct NewPartition<'a> {
    /// What it is for.
    pub kind: Uuid,
    /// Its name for ever.
    pub id: Uuid,
    /// Its name for people; 36 units of UTF-16 of it count.
    pub name: &'a str,
}

/// Where a table's parts lie on a disk.
struct Places {
    block_size: usize,
    last: u64,
    /// Blocks of the entries.
    entry_blocks: u64,
}

/// Puts a table on `device`, with one partition over all that it can hold. What was there is lost.
pub async fn create<D: BlockDevice>(
    device: &D,
    disk: Uuid,
    partition: NewPartition<'_>,
    allocate: impl Fn(usize) -> Option<Buffer>,
) -> Result<(), TableError<D::Error>> {
    let geometry = device.geometry();
    let block_size = geometry.block_size as usize;
    let places = Places {
        block_size,
        last: geometry.blocks.saturating_sub(1),
        entry_blocks: (ENTRIES as usize * size_of::<Entry>()).div_ceil(block_size) as u64,
    };
    let (first, last) = places.usable();
    if first > last {
        return Err(TableError::TooSmall);
    }
    let mut entry = Entry::new_zeroed();
    entry.kind = partition.kind.to_bytes_le();
    entry.id = partition.id.to_bytes_le();
    (entry.first, entry.last) = (U64::new(first), U64::new(last));
    let units = partition.name.encode_utf16();
    entry
        .name
        .iter_mut()
        .zip(units)
        .for_each(|(to, unit)| *to = U16::new(unit));
    let mut entries = vec![0; ENTRIES as usize * size_of::<Entry>()];
    entries[..size_of::<Entry>()].copy_from_slice(entry.as_bytes());

    // The copy first, so that there is a sound one if the disk fails in between.
    let mut copy = entries.clone();
    copy.resize(places.entry_blocks as usize * block_size, 0);
    copy.extend(places.header(disk, &entries, places.last, 1));
    let mut main = protective(&places);
    main.extend(places.header(disk, &entries, 1, places.last));
    main.extend(&entries);
    for (block, bytes) in [(places.last - places.entry_blocks, copy), (0, main)] {
        let size = bytes.len().next_multiple_of(block_size);
        let buffer = Arc::new(allocate(size).ok_or(TableError::NoMemory)?);
        buffer.copy_from(0, &bytes).map_err(|_| TableError::NoMemory)?;
        device.write(block, &buffer, Durability::Cached).await?;
    }
    Ok(device.flush().await?)
}

impl Places {
    /// First and last block that partitions can have.
    const fn usable(&self) -> (u64, u64) {
        (
            2 + self.entry_blocks,
            self.last.saturating_sub(self.entry_blocks + 1),
        )
    }

    /// The block of the header that lies at `here`.
    fn header(&self, disk: Uuid, entries: &[u8], here: u64, other: u64) -> Vec<u8> {
        let (first, last) = self.usable();
        let mut header = Header {
            signature: SIGNATURE,
            revision: U32::new(REVISION),
            size: U32::new(size_of::<Header>() as u32),
            checksum: U32::ZERO,
            reserved: U32::ZERO,
            here: U64::new(here),
            other: U64::new(other),
            first_usable: U64::new(first),
            last_usable: U64::new(last),
            disk: disk.to_bytes_le(),
            entries: U64::new(if here == 1 { 2 } else { here - self.entry_blocks }),
            count: U32::new(ENTRIES),
            entry_size: U32::new(size_of::<Entry>() as u32),
            entries_checksum: U32::new(Crc32::of(entries)),
        };
        header.checksum = U32::new(Crc32::of(header.as_bytes()));
        let mut block = header.as_bytes().to_vec();
        block.resize(self.block_size, 0);
        block
    }
}

/// Block 0, by which systems that do not know the table take the disk for full.
fn protective(places: &Places) -> Vec<u8> {
    let mut block = vec![0; places.block_size];
    let blocks = u32::try_from(places.last).unwrap_or(u32::MAX);
    // One partition: not active, from block 1 on.
    block[446..454].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff]);
    block[454..458].copy_from_slice(&1_u32.to_le_bytes());
    block[458..462].copy_from_slice(&blocks.to_le_bytes());
    block[510..512].copy_from_slice(&[0x55, 0xaa]);
    block
}
