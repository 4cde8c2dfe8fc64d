//! Reading a table, from the disk's beginning or else from its end.

use super::Partition;
use super::table::{Table, Unsound};
use crate::block::BlockDevice;
use crate::memory::Buffer;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

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
    let table = Table::parse(&block, at, geometry.blocks).map_err(unsound)?;
    let entries = bytes(device, table.first_block(), table.bytes(), allocate).await?;
    table.partitions(&entries).map_err(unsound)
}

fn unsound<E>(why: Unsound) -> TableError<E> {
    match why {
        Unsound::Missing => TableError::Missing,
        Unsound::Damaged(how) => TableError::Damaged(how),
    }
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
