//! The one type that disks of all kinds have, so that a virtual machine's controller is the same over each: a backend, the
//! part of it that the disk is, and counters.

use super::archive::ArchiveDisk;
use super::ram::RamDisk;
use crate::drivers::nvme::namespace::Namespace;
use crate::drivers::pci::device::PciDevice;
use crate::shell::disks::DiskCounters;
use alloc::sync::Arc;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use vsp::buffer::Buffer;
use vsp::storage::disk::{Disk, DiskError, Durability, Geometry, Request};

/// What is behind a disk.
#[derive(Clone)]
pub enum Backend {
    /// A namespace of an NVMe controller.
    Nvme(Namespace<PciDevice>),
    /// Memory of the root.
    Ram(Arc<RamDisk>),
    /// A file of the boot archive.
    Archive(ArchiveDisk),
}

/// A disk of the root, whole or a partition of one.
#[derive(Clone)]
pub struct RootDisk {
    backend: Backend,
    /// The sectors of the backend that are the disk.
    part: Range<u64>,
    read_only: bool,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    reads: AtomicU64,
    bytes_read: AtomicU64,
    writes: AtomicU64,
    bytes_written: AtomicU64,
    flushes: AtomicU64,
    discards: AtomicU64,
    errors: AtomicU64,
}

impl RootDisk {
    /// All of `backend`.
    pub fn whole(backend: Backend) -> Self {
        let geometry = backend.geometry();
        Self {
            backend,
            part: 0..geometry.sectors,
            read_only: geometry.read_only,
            counters: Arc::default(),
        }
    }

    /// The sectors `part` of this disk, as a disk with counters of its own. `None` where they are not inside.
    pub fn part(&self, part: Range<u64>) -> Option<Self> {
        let start = self.part.start.checked_add(part.start)?;
        let end = self.part.start.checked_add(part.end)?;
        (start <= end && end <= self.part.end).then(|| Self {
            part: start..end,
            counters: Arc::default(),
            ..self.clone()
        })
    }

    /// The same disk, which refuses to be written.
    pub fn read_only(&self) -> Self {
        Self {
            read_only: true,
            ..self.clone()
        }
    }

    /// What is behind it.
    pub const fn backend(&self) -> &Backend {
        &self.backend
    }

    /// The sectors of the backend that are the disk.
    pub const fn sectors(&self) -> &Range<u64> {
        &self.part
    }

    /// What was done with it.
    pub fn counters(&self) -> DiskCounters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DiskCounters {
            reads: get(&self.counters.reads),
            bytes_read: get(&self.counters.bytes_read),
            writes: get(&self.counters.writes),
            bytes_written: get(&self.counters.bytes_written),
            flushes: get(&self.counters.flushes),
            discards: get(&self.counters.discards),
            errors: get(&self.counters.errors),
        }
    }

    /// The backend's sector for the disk's sector `sector`, from which `count` sectors are inside the disk.
    fn locate(&self, sector: u64, count: u64) -> Result<u64, DiskError> {
        let start = self.part.start.checked_add(sector);
        let end = start.and_then(|start| start.checked_add(count));
        match (start, end) {
            (Some(start), Some(end)) if end <= self.part.end => Ok(start),
            _ => Err(DiskError::OutOfRange),
        }
    }

    fn locate_buffer(&self, sector: u64, buffer: &Buffer) -> Result<u64, DiskError> {
        let shift = self.backend.geometry().sector_size.shift();
        let count = (buffer.size() as u64).div_ceil(1 << shift);
        self.locate(sector, count)
    }

    fn writable(&self) -> Result<(), DiskError> {
        match self.read_only {
            true => Err(DiskError::ReadOnly),
            false => Ok(()),
        }
    }

    /// Counts a request's end: once, and `bytes`.
    fn count(
        &self,
        outcome: Result<(), DiskError>,
        requests: &AtomicU64,
        bytes: Option<(&AtomicU64, usize)>,
    ) -> Result<(), DiskError> {
        match outcome {
            Ok(()) => {
                requests.fetch_add(1, Ordering::Relaxed);
                if let Some((counter, length)) = bytes {
                    counter.fetch_add(length as u64, Ordering::Relaxed);
                }
            }
            Err(_) => {
                self.counters.errors.fetch_add(1, Ordering::Relaxed);
            }
        }
        outcome
    }

    async fn read_part(&self, sector: u64, buffer: &Arc<Buffer>) -> Result<(), DiskError> {
        let at = self.locate_buffer(sector, buffer)?;
        match &self.backend {
            Backend::Nvme(disk) => disk.read(at, buffer).await,
            Backend::Ram(disk) => disk.read(at, buffer).await,
            Backend::Archive(disk) => disk.read(at, buffer).await,
        }
        .map_err(|error| self.relative(error))
    }

    async fn write_part(
        &self,
        sector: u64,
        buffer: &Arc<Buffer>,
        durability: Durability,
    ) -> Result<(), DiskError> {
        self.writable()?;
        let at = self.locate_buffer(sector, buffer)?;
        match &self.backend {
            Backend::Nvme(disk) => disk.write(at, buffer, durability).await,
            Backend::Ram(disk) => disk.write(at, buffer, durability).await,
            Backend::Archive(disk) => disk.write(at, buffer, durability).await,
        }
        .map_err(|error| self.relative(error))
    }

    async fn flush_backend(&self) -> Result<(), DiskError> {
        match &self.backend {
            Backend::Nvme(disk) => disk.flush().await,
            Backend::Ram(disk) => disk.flush().await,
            Backend::Archive(disk) => disk.flush().await,
        }
    }

    async fn discard_part(&self, sector: u64, count: u64) -> Result<(), DiskError> {
        self.writable()?;
        let at = self.locate(sector, count)?;
        match &self.backend {
            Backend::Nvme(disk) => disk.discard(at, count).await,
            Backend::Ram(disk) => disk.discard(at, count).await,
            Backend::Archive(disk) => disk.discard(at, count).await,
        }
    }

    /// What the backend can do without waiting; `None` where it cannot.
    fn part_at_once(&self, request: Request<'_>) -> Option<Result<(), DiskError>> {
        let at = |sector, buffer| self.locate_buffer(sector, buffer);
        let request = match request {
            Request::Read { sector, buffer } => {
                at(sector, buffer).map(|sector| Request::Read { sector, buffer })
            }
            Request::Write {
                sector,
                buffer,
                durability,
            } => self.writable().and_then(|()| {
                at(sector, buffer).map(|sector| Request::Write {
                    sector,
                    buffer,
                    durability,
                })
            }),
            Request::Flush => Ok(Request::Flush),
        };
        let request = match request {
            Ok(request) => request,
            Err(error) => return Some(Err(error)),
        };
        let outcome = match &self.backend {
            Backend::Nvme(disk) => disk.at_once(request),
            Backend::Ram(disk) => disk.at_once(request),
            Backend::Archive(disk) => disk.at_once(request),
        };
        outcome.map(|outcome| outcome.map_err(|error| self.relative(error)))
    }

    /// An error of the backend, whose sectors are counted as the disk's user counts.
    fn relative(&self, error: DiskError) -> DiskError {
        let sector = |sector: u64| sector.saturating_sub(self.part.start);
        match error {
            DiskError::Unreadable(at) => DiskError::Unreadable(sector(at)),
            DiskError::Unwritable(at) => DiskError::Unwritable(sector(at)),
            other => other,
        }
    }
}

impl Backend {
    fn geometry(&self) -> Geometry {
        match self {
            Self::Nvme(disk) => disk.geometry(),
            Self::Ram(disk) => disk.geometry(),
            Self::Archive(disk) => disk.geometry(),
        }
    }
}

impl Disk for RootDisk {
    fn geometry(&self) -> Geometry {
        let backend = self.backend.geometry();
        Geometry {
            sectors: self.part.end.saturating_sub(self.part.start),
            read_only: self.read_only,
            discard: backend.discard && !self.read_only,
            ..backend
        }
    }

    fn at_once(&self, request: Request<'_>) -> Option<Result<(), DiskError>> {
        let outcome = self.part_at_once(request)?;
        let (requests, bytes) = match request {
            Request::Read { buffer, .. } => {
                let bytes = (&self.counters.bytes_read, buffer.size());
                (&self.counters.reads, Some(bytes))
            }
            Request::Write { buffer, .. } => {
                let bytes = (&self.counters.bytes_written, buffer.size());
                (&self.counters.writes, Some(bytes))
            }
            Request::Flush => (&self.counters.flushes, None),
        };
        Some(self.count(outcome, requests, bytes))
    }

    async fn read(&self, sector: u64, buffer: &Arc<Buffer>) -> Result<(), DiskError> {
        let outcome = self.read_part(sector, buffer).await;
        let bytes = (&self.counters.bytes_read, buffer.size());
        self.count(outcome, &self.counters.reads, Some(bytes))
    }

    async fn write(
        &self,
        sector: u64,
        buffer: &Arc<Buffer>,
        durability: Durability,
    ) -> Result<(), DiskError> {
        let outcome = self.write_part(sector, buffer, durability).await;
        let bytes = (&self.counters.bytes_written, buffer.size());
        self.count(outcome, &self.counters.writes, Some(bytes))
    }

    async fn flush(&self) -> Result<(), DiskError> {
        let outcome = self.flush_backend().await;
        self.count(outcome, &self.counters.flushes, None)
    }

    async fn discard(&self, sector: u64, count: u64) -> Result<(), DiskError> {
        let outcome = self.discard_part(sector, count).await;
        self.count(outcome, &self.counters.discards, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::ram;
    use crate::memory::dma;
    use crate::shell::fake::block_on;

    fn disk() -> RootDisk {
        RootDisk::whole(Backend::Ram(Arc::new(ram::of_size(1 << 20).unwrap())))
    }

    #[test]
    fn a_part_begins_and_ends_where_it_should() {
        let whole = disk();
        let part = whole.part(100..200).unwrap();
        let inner = part.part(10..20).unwrap();
        assert_eq!(
            (inner.sectors().clone(), inner.geometry().sectors),
            (110..120, 10)
        );
        let sector = dma::buffer(512).unwrap();
        sector.copy_from(0, &[5; 512]).unwrap();
        block_on(inner.write(9, &sector, Durability::Cached)).unwrap();
        assert_eq!(
            block_on(inner.write(10, &sector, Durability::Cached)),
            Err(DiskError::OutOfRange)
        );
        assert_eq!(block_on(inner.discard(0, 11)), Err(DiskError::OutOfRange));
        assert_eq!(
            block_on(inner.read(u64::MAX, &sector)),
            Err(DiskError::OutOfRange)
        );
        sector.copy_from(0, &[0; 512]).unwrap();
        block_on(whole.read(119, &sector)).unwrap();
        let mut seen = [0; 512];
        sector.copy_to(0, &mut seen).unwrap();
        assert_eq!(seen, [5; 512]);
        assert!(part.part(0..101).is_none() && part.part(u64::MAX..u64::MAX).is_none());
    }

    #[test]
    fn what_is_done_is_counted() {
        let disk = disk();
        let buffer = dma::buffer(1024).unwrap();
        block_on(disk.read(0, &buffer)).unwrap();
        block_on(disk.write(0, &buffer, Durability::Cached)).unwrap();
        block_on(disk.flush()).unwrap();
        block_on(disk.discard(0, 1)).unwrap();
        assert!(block_on(disk.read(u64::MAX, &buffer)).is_err());
        let expected = DiskCounters {
            reads: 1,
            bytes_read: 1024,
            writes: 1,
            bytes_written: 1024,
            flushes: 1,
            discards: 1,
            errors: 1,
        };
        assert_eq!(disk.counters(), expected);
    }

    #[test]
    fn a_read_only_disk_is_not_written() {
        let disk = disk().read_only();
        let buffer = dma::buffer(512).unwrap();
        assert!(disk.geometry().read_only && !disk.geometry().discard);
        assert_eq!(
            block_on(disk.write(0, &buffer, Durability::Cached)),
            Err(DiskError::ReadOnly)
        );
        assert_eq!(block_on(disk.discard(0, 1)), Err(DiskError::ReadOnly));
        assert_eq!(block_on(disk.read(0, &buffer)), Ok(()));
    }
}
