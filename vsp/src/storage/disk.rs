//! What a disk is to a storage provider, whatever is behind it.

use crate::buffer::Buffer;
use alloc::sync::Arc;
use core::future::Future;

/// Bytes of a sector, the unit of every address and length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum SectorSize {
    /// 512 bytes.
    Bytes512 = 9,
    /// 4096 bytes.
    Bytes4096 = 12,
}

impl SectorSize {
    /// Bytes.
    pub const fn bytes(self) -> u32 {
        1 << self.shift()
    }

    /// The power of two.
    pub const fn shift(self) -> u32 {
        self as u32
    }
}

/// What a disk holds and can do. It may change, as when a medium is taken out; a request for sectors that are not there fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Sectors.
    pub sectors: u64,
    /// Bytes of one.
    pub sector_size: SectorSize,
    /// Writes are refused.
    pub read_only: bool,
    /// What is written may be lost before a flush.
    pub write_cache: bool,
    /// Sectors can be given up.
    pub discard: bool,
}

impl Geometry {
    /// Bytes, if that many can be counted.
    pub const fn bytes(&self) -> Option<u64> {
        self.sectors.checked_mul(self.sector_size.bytes() as u64)
    }
}

/// When a write counts as done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// As soon as a later read sees it.
    Cached,
    /// When it is on the medium ("force unit access").
    OnMedium,
}

/// Why a request failed. A failed write may have written any part of its range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DiskError {
    /// The range is not inside the disk.
    #[error("the sectors are beyond the disk's end")]
    OutOfRange,
    /// The buffer's size is not the range's.
    #[error("the buffer does not fit the sectors")]
    BufferSize,
    /// The medium could not be read.
    #[error("the medium cannot be read at sector {0}")]
    Unreadable(u64),
    /// The medium could not be written.
    #[error("the medium cannot be written at sector {0}")]
    Unwritable(u64),
    /// The disk is not to be written.
    #[error("the disk is read-only")]
    ReadOnly,
    /// What backs the disk is full.
    #[error("what backs the disk is full")]
    Full,
    /// The disk or its medium is gone.
    #[error("the disk is gone")]
    Gone,
    /// The device was reset while it worked on this; it may be tried again.
    #[error("the device was reset")]
    Reset,
    /// The device has failed and does not come back.
    #[error("the device has failed")]
    Failed,
    /// The disk cannot do this.
    #[error("the disk cannot do this")]
    Unsupported,
}

/// A request of a kind that some disks can carry out without waiting.
#[derive(Clone, Copy)]
pub enum Request<'a> {
    /// As [`Disk::read`].
    Read {
        /// First sector.
        sector: u64,
        /// Where to, and how much.
        buffer: &'a Buffer,
    },
    /// As [`Disk::write`].
    Write {
        /// First sector.
        sector: u64,
        /// All that is written.
        buffer: &'a Buffer,
        /// When it counts as done.
        durability: Durability,
    },
    /// As [`Disk::flush`].
    Flush,
}

/// A disk. Requests run side by side and end in any order.
///
/// A future that is dropped gives up the result, not the transfer: the disk keeps the buffer's `Arc` until its device is
/// done. What a completed [`flush`](Self::flush) or [`Durability::OnMedium`] write has acknowledged is on the medium.
pub trait Disk: Send + Sync {
    /// What it holds and can do.
    fn geometry(&self) -> Geometry;

    /// Carries out a request if that takes no waiting, and returns its result; `None` leaves it undone, for the methods below. What
    /// a disk of memory does at once costs its caller no task.
    fn at_once(&self, request: Request<'_>) -> Option<Result<(), DiskError>> {
        let _ = request;
        None
    }

    /// Reads from `sector` on, as much as `buffer` holds.
    fn read(&self, sector: u64, buffer: &Arc<Buffer>) -> impl Future<Output = Result<(), DiskError>> + Send;

    /// Writes all of `buffer` from `sector` on.
    fn write(
        &self,
        sector: u64,
        buffer: &Arc<Buffer>,
        durability: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + Send;

    /// Brings to the medium all that was acknowledged before.
    fn flush(&self) -> impl Future<Output = Result<(), DiskError>> + Send;

    /// Gives up `count` sectors from `sector` on; what they read afterwards is the disk's choice, but stays the same.
    fn discard(&self, sector: u64, count: u64) -> impl Future<Output = Result<(), DiskError>> + Send;
}
