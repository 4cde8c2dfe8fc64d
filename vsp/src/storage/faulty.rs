//! A disk that fails as it is told to, for tests: sectors that cannot be read or written, requests that do not end, a disk that is
//! gone, and a write cache that a loss of power empties.

use super::disk::{Disk, DiskError, Durability, Geometry, SectorSize};
use super::ram::RamDisk;
use crate::buffer::{self, Buffer};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::ops::Range;
use core::task::{Poll, Waker};
use spin::Mutex;

/// The disk.
pub struct FaultyDisk {
    /// What a loss of power leaves.
    medium: RamDisk,
    /// What reads see.
    cache: RamDisk,
    faults: Mutex<Faults>,
}

#[derive(Default)]
struct Faults {
    unreadable: Vec<u64>,
    unwritable: Vec<u64>,
    /// What every request fails with.
    broken: Option<DiskError>,
    /// What every write fails with.
    unwilling: Option<DiskError>,
    held: bool,
    waiting: Vec<Waker>,
}

impl FaultyDisk {
    /// A sound disk of `sectors` sectors.
    pub fn new(sectors: u64, sector_size: SectorSize) -> Self {
        Self {
            medium: RamDisk::new(sectors, sector_size),
            cache: RamDisk::new(sectors, sector_size),
            faults: Mutex::default(),
        }
    }

    /// Sectors that cannot be read any more.
    pub fn spoil_reads(&self, sectors: Range<u64>) {
        self.faults.lock().unreadable.extend(sectors);
    }

    /// Sectors that cannot be written any more.
    pub fn spoil_writes(&self, sectors: Range<u64>) {
        self.faults.lock().unwritable.extend(sectors);
    }

    /// Fails every request from now on, or none.
    pub fn set_broken(&self, error: Option<DiskError>) {
        self.faults.lock().broken = error;
    }

    /// Fails every write from now on, or none.
    pub fn set_unwilling(&self, error: Option<DiskError>) {
        self.faults.lock().unwilling = error;
    }

    /// Lets no request end, until it is told the contrary.
    pub fn set_held(&self, held: bool) {
        let waiting = {
            let mut faults = self.faults.lock();
            faults.held = held;
            core::mem::take(&mut faults.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Forgets what is not on the medium.
    pub async fn lose_power(&self) -> Result<(), DiskError> {
        copy(&self.medium, &self.cache).await
    }

    async fn begin(&self) -> Result<(), DiskError> {
        poll_fn(|context| {
            let mut faults = self.faults.lock();
            if faults.held {
                faults.waiting.push(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(faults.broken.map_or(Ok(()), Err))
        })
        .await
    }

    fn sectors(&self, sector: u64, buffer: &Buffer) -> Range<u64> {
        let count = buffer.size() as u64 >> self.geometry().sector_size.shift();
        sector..sector.saturating_add(count)
    }
}

async fn copy(from: &RamDisk, to: &RamDisk) -> Result<(), DiskError> {
    let all = buffer::owned(from.geometry().bytes().unwrap_or(0) as usize);
    from.read(0, &all).await?;
    to.write(0, &all, Durability::OnMedium).await
}

impl Disk for FaultyDisk {
    fn geometry(&self) -> Geometry {
        Geometry {
            write_cache: true,
            ..self.cache.geometry()
        }
    }

    async fn read(&self, sector: u64, buffer: &Arc<Buffer>) -> Result<(), DiskError> {
        self.begin().await?;
        let mut sectors = self.sectors(sector, buffer);
        let bad = {
            let faults = self.faults.lock();
            sectors.find(|sector| faults.unreadable.contains(sector))
        };
        match bad {
            Some(bad) => Err(DiskError::Unreadable(bad)),
            None => self.cache.read(sector, buffer).await,
        }
    }

    async fn write(
        &self,
        sector: u64,
        buffer: &Arc<Buffer>,
        durability: Durability,
    ) -> Result<(), DiskError> {
        self.begin().await?;
        let mut sectors = self.sectors(sector, buffer);
        let bad = {
            let faults = self.faults.lock();
            if let Some(error) = faults.unwilling {
                return Err(error);
            }
            sectors.find(|sector| faults.unwritable.contains(sector))
        };
        if let Some(bad) = bad {
            return Err(DiskError::Unwritable(bad));
        }
        if durability == Durability::OnMedium {
            self.medium.write(sector, buffer, durability).await?;
        }
        self.cache.write(sector, buffer, durability).await
    }

    async fn flush(&self) -> Result<(), DiskError> {
        self.begin().await?;
        copy(&self.cache, &self.medium).await
    }

    async fn discard(&self, sector: u64, count: u64) -> Result<(), DiskError> {
        self.begin().await?;
        self.cache.discard(sector, count).await
    }
}

impl Disk for Arc<FaultyDisk> {
    fn geometry(&self) -> Geometry {
        (**self).geometry()
    }

    fn read(&self, sector: u64, buffer: &Arc<Buffer>) -> impl Future<Output = Result<(), DiskError>> + Send {
        (**self).read(sector, buffer)
    }

    fn write(
        &self,
        sector: u64,
        buffer: &Arc<Buffer>,
        durability: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + Send {
        (**self).write(sector, buffer, durability)
    }

    fn flush(&self) -> impl Future<Output = Result<(), DiskError>> + Send {
        (**self).flush()
    }

    fn discard(&self, sector: u64, count: u64) -> impl Future<Output = Result<(), DiskError>> + Send {
        (**self).discard(sector, count)
    }
}
