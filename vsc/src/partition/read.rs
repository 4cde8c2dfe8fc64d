//! Reading a table, from the disk's beginning or else from its end.

use super::Partition;
use super::layout::{Entry, Header, SIGNATURE};
use crate::block::BlockDevice;
use crate::checksum::Crc32;
use crate::memory::Buffer;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use uuid::Uuid;
use zerocopy::FromBytes;

/// Most bytes of a table; 16 KiB are usual.
const MOST_BYTES: u64 = 256 << 10;

/// Why there are no partitions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TableError<E> {
    /// There is no table.
    #[error("there is no GUID partition table on it")]
    Missing,
    /// Neither the table nor its copy is sound.
    #[error("its partition table is damaged: {0}")]
    Damaged(&'static str),
    /// The guest system has no memory left.
    #[error("there is not enough memory")]
    NoMemory,
    /// The disk is too small for one.
    #[error("it is too small for a partition table")]
    TooSmall,
    /// The disk fails.
    #[error(transparent)]
    Device(#[from] E),
}

/// The partitions of `device`. `allocate` gives buffers.
pub async fn read<D: BlockDevice>(
    device: &D,
    allocate: impl Fn(usize) -> Option<Buffer>,
) -> Result<Vec<Partition>, TableError<D::Error>> {
    let first = match read_at(device, 1, &allocate).await {
        Ok(partitions) => return Ok(partitions),
        Err(error) => error,
    };
    match device.geometry().blocks.checked_sub(1) {
        Some(last) if last > 1 => {
            let second = read_at(device, last, &allocate).await;
            second.map_err(|second| match first {
                TableError::Missing => second,
                first => first,
            })
        }
        _ => Err(first),
    }
}

async fn read_at<D: BlockDevice>(
    device: &D,
    at: u64,
    allocate: &impl Fn(usize) -> Option<Buffer>,
) -> Result<Vec<Partition>, TableError<D::Error>> {
    let geometry = device.geometry();
    if at >= geometry.blocks {
        return Err(TableError::Missing);
    }
    let block = bytes(device, at, geometry.block_size.into(), allocate).await?;
    let header = parse(&block, at, geometry.blocks)?;
    let size = u64::from(header.count.get()) * u64::from(header.entry_size.get());
    let table = bytes(device, header.entries.get(), size, allocate).await?;
    if Crc32::of(&table) != header.entries_checksum.get() {
        return Err(TableError::Damaged("the entries' checksum is wrong"));
    }
    Ok(partitions(&table, &header))
}

/// `length` bytes from `block` on.
async fn bytes<D: BlockDevice>(
    device: &D,
    block: u64,
    length: u64,
    allocate: &impl Fn(usize) -> Option<Buffer>,
) -> Result<Vec<u8>, TableError<D::Error>> {
    let size = length.next_multiple_of(device.geometry().block_size.max(1).into()) as usize;
    let buffer = Arc::new(allocate(size).ok_or(TableError::NoMemory)?);
    device.read(block, &buffer).await?;
    let mut bytes = vec![0; length as usize];
    buffer.copy_to(0, &mut bytes).map_err(|_| TableError::NoMemory)?;
    Ok(bytes)
}

/// The header in `block`, which lies at `at` of a disk of `blocks` blocks.
fn parse<E>(block: &[u8], at: u64, blocks: u64) -> Result<Header, TableError<E>> {
    let damaged = |why| Err(TableError::Damaged(why));
    let Ok((header, _)) = Header::read_from_prefix(block) else {
        return Err(TableError::Missing);
    };
    if header.signature != SIGNATURE {
        return Err(TableError::Missing);
    }
    let size = header.size.get() as usize;
    let Some(whole) = block.get(..size).filter(|_| size >= size_of::<Header>()) else {
        return damaged("the header's length is wrong");
    };
    if Header::checksum_of(whole) != header.checksum.get() {
        return damaged("the header's checksum is wrong");
    }
    if header.here.get() != at {
        return damaged("the header belongs elsewhere");
    }
    let entry_size = header.entry_size.get();
    if (entry_size as usize) < size_of::<Entry>() || !entry_size.is_multiple_of(8) {
        return damaged("the entries' size is wrong");
    }
    let bytes = u64::from(header.count.get()) * u64::from(entry_size);
    if bytes == 0 || bytes > MOST_BYTES {
        return damaged("the number of entries is wrong");
    }
    let (first, last) = (header.first_usable.get(), header.last_usable.get());
    if first > last || last >= blocks || header.entries.get() < 2 {
        return damaged("it is for a larger disk");
    }
    Ok(header)
}

/// The entries that are in use and lie inside the usable blocks, without those that lie over one before them.
fn partitions(table: &[u8], header: &Header) -> Vec<Partition> {
    let usable = header.first_usable.get()..=header.last_usable.get();
    let mut found: Vec<Partition> = Vec::new();
    for (number, entry) in (1..).zip(table.chunks_exact(header.entry_size.get() as usize)) {
        let Ok((entry, _)) = Entry::read_from_prefix(entry) else {
            break;
        };
        let (first, last) = (entry.first.get(), entry.last.get());
        if entry.kind() == Uuid::nil() {
            continue;
        }
        let over = |other: &Partition| first < other.first + other.blocks && other.first <= last;
        if first > last || !usable.contains(&first) || !usable.contains(&last) || found.iter().any(over) {
            log::warn!("partition {number} lies where none can, and is left out");
            continue;
        }
        let units = entry.name.map(|unit| unit.get());
        let end = units.iter().position(|unit| *unit == 0).unwrap_or(units.len());
        found.push(Partition {
            number,
            kind: entry.kind(),
            id: Uuid::from_bytes_le(entry.id),
            first,
            blocks: last - first + 1,
            name: String::from_utf16_lossy(units.get(..end).unwrap_or_default()),
        });
    }
    found
}
