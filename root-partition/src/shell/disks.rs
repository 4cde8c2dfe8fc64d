//! What the shell knows of disks: the trait [`Disks`] and the plain data that it returns.

use super::system::{Pending, SystemError};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use vsp::storage::disk::{DiskError, SectorSize};

/// A disk, or a partition of one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskInfo {
    /// Its name: `nvme0`, `nvme0n2`, `nvme0p1`, `scratch`, `archive:disks/web.img`.
    pub name: String,
    /// What is behind it: `nvme`, `partition`, `ram`, `archive`.
    pub kind: &'static str,
    /// Sectors.
    pub sectors: u64,
    /// Bytes of one.
    pub sector_size: SectorSize,
    /// It cannot be written.
    pub read_only: bool,
    /// It forgets what was not flushed.
    pub write_cache: bool,
    /// Its sectors can be given up.
    pub discard: bool,
    /// What it is: a device's model, a partition's name.
    pub model: Option<String>,
    /// Who uses it.
    pub users: Vec<String>,
    /// What was done with it.
    pub counters: DiskCounters,
}

impl DiskInfo {
    /// Bytes.
    pub const fn bytes(&self) -> u64 {
        self.sectors.saturating_mul(self.sector_size.bytes() as u64)
    }
}

/// What was done with a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DiskCounters {
    /// Reads that ended well.
    pub reads: u64,
    /// Bytes that they read.
    pub bytes_read: u64,
    /// Writes that ended well.
    pub writes: u64,
    /// Bytes that they wrote.
    pub bytes_written: u64,
    /// Flushes that ended well.
    pub flushes: u64,
    /// Discards that ended well.
    pub discards: u64,
    /// Requests that failed.
    pub errors: u64,
}

/// What a disk is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// To look at it, whoever uses it.
    Look,
    /// To write it; nobody else may use it meanwhile.
    Write,
}

/// What reading costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskFigure {
    /// Requests that were under way at a time.
    pub depth: u64,
    /// Requests in all.
    pub rounds: u64,
    /// Time that the root's VPs ran, the hypervisor's part included, in ns a request.
    pub run_time: u64,
    /// The hypervisor's part of it.
    pub hypervisor_time: u64,
    /// Time that passed, in ns a request.
    pub elapsed: u64,
}

/// The disks as the shell's commands see them. They go by their names.
pub trait Disks: Sync {
    /// The disks, by name. Waits until the drivers have looked for them.
    fn list(&self) -> Pending<'_, Vec<DiskInfo>>;
    /// The names that are known now.
    fn names(&self) -> Vec<String>;
    /// Makes a disk of memory.
    fn create(&self, name: &str, bytes: u64) -> Result<(), SystemError>;
    /// Forgets a disk of memory that nobody uses, and all that is on it.
    fn delete(&self, name: &str) -> Result<(), SystemError>;
    /// Opens a disk, until the value is dropped.
    fn open<'a>(
        &'a self,
        name: &'a str,
        purpose: Purpose,
    ) -> Pending<'a, Result<Box<dyn OpenDisk>, SystemError>>;
    /// Reads the disk's partition table; completes with the number of partitions.
    fn scan<'a>(&'a self, name: &'a str) -> Pending<'a, Result<usize, SystemError>>;
    /// Resets the disk's controller. What is under way is done again.
    fn reset<'a>(&'a self, name: &'a str) -> Pending<'a, Result<(), SystemError>>;
    /// Measures reads of 4 KiB, with `depth` of them under way.
    fn measure<'a>(&'a self, name: &'a str, depth: usize) -> Pending<'a, Result<DiskFigure, SystemError>>;
}

/// A disk that was opened.
pub trait OpenDisk: Send + Sync {
    /// What it is.
    fn info(&self) -> DiskInfo;
    /// Reads `count` sectors (at most 1 MiB) from `sector` on; into `bytes`, which becomes that long, where it is given.
    fn read<'a>(
        &'a self,
        sector: u64,
        count: u64,
        bytes: Option<&'a mut Vec<u8>>,
    ) -> Pending<'a, Result<(), DiskError>>;
    /// Writes whole sectors (at most 1 MiB) from `sector` on.
    fn write<'a>(&'a self, sector: u64, bytes: &'a [u8]) -> Pending<'a, Result<(), DiskError>>;
    /// Brings what was written to the medium.
    fn flush(&self) -> Pending<'_, Result<(), DiskError>>;
    /// Gives up `count` sectors from `sector` on.
    fn discard(&self, sector: u64, count: u64) -> Pending<'_, Result<(), DiskError>>;
}
