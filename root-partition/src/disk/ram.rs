//! A disk of memory. It forgets everything when the machine ends, so a flush has nothing to do.

use crate::memory::pages::Pages;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::{Future, ready};
use spin::Mutex;
use vsp::buffer::Buffer;
use vsp::storage::disk::{Disk, DiskError, Durability, Geometry, Request, SectorSize};

/// Bytes of a block, which one processor at a time reads or writes.
const BLOCK: usize = 128 << 10;
const SECTOR: SectorSize = SectorSize::Bytes512;

/// A disk of memory.
#[derive(Clone)]
pub struct RamDisk {
    blocks: Arc<Vec<Mutex<Pages>>>,
    sectors: u64,
}

impl RamDisk {
    /// A disk of `bytes` bytes, rounded up to whole blocks of 128 KiB, all zero; `None` where there is no such memory.
    pub fn new(bytes: u64) -> Option<Self> {
        let count = usize::try_from(bytes.div_ceil(BLOCK as u64)).ok()?;
        let mut blocks = Vec::new();
        // What can never be had must not be begun with.
        blocks.try_reserve_exact(count).ok()?;
        for _ in 0..count {
            blocks.push(Mutex::new(Pages::allocate(BLOCK)?));
        }
        Some(Self {
            sectors: (count as u64 * BLOCK as u64) >> SECTOR.shift(),
            blocks: Arc::new(blocks),
        })
    }

    /// Calls `each` with a block, the offset in it, and the offset in the range and length, for `length` bytes from `sector` on.
    fn walk(
        &self,
        sector: u64,
        length: usize,
        mut each: impl FnMut(&mut [u8], usize) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        if !length.is_multiple_of(SECTOR.bytes() as usize) {
            return Err(DiskError::BufferSize);
        }
        let count = (length >> SECTOR.shift()) as u64;
        let inside = sector.checked_add(count).is_some_and(|end| end <= self.sectors);
        if !inside {
            return Err(DiskError::OutOfRange);
        }
        let mut at = (sector << SECTOR.shift()) as usize;
        let mut done = 0;
        while done < length {
            let within = at % BLOCK;
            let here = (BLOCK - within).min(length - done);
            let block = self.blocks.get(at / BLOCK).ok_or(DiskError::OutOfRange)?;
            let mut block = block.lock();
            let part = block
                .get_mut(within..within + here)
                .ok_or(DiskError::OutOfRange)?;
            each(part, done)?;
            done += here;
            at += here;
        }
        Ok(())
    }
}

impl RamDisk {
    fn copy_to(&self, sector: u64, buffer: &Buffer) -> Result<(), DiskError> {
        self.walk(sector, buffer.size(), |part, offset| {
            buffer.copy_from(offset, part).map_err(|_| DiskError::BufferSize)
        })
    }

    fn copy_from(&self, sector: u64, buffer: &Buffer) -> Result<(), DiskError> {
        self.walk(sector, buffer.size(), |part, offset| {
            buffer.copy_to(offset, part).map_err(|_| DiskError::BufferSize)
        })
    }
}

impl Disk for RamDisk {
    fn geometry(&self) -> Geometry {
        Geometry {
            sectors: self.sectors,
            sector_size: SECTOR,
            read_only: false,
            write_cache: false,
            discard: true,
        }
    }

    fn at_once(&self, request: Request<'_>) -> Option<Result<(), DiskError>> {
        Some(match request {
            Request::Read { sector, buffer } => self.copy_to(sector, buffer),
            Request::Write { sector, buffer, .. } => self.copy_from(sector, buffer),
            Request::Flush => Ok(()),
        })
    }

    fn read(&self, sector: u64, buffer: &Arc<Buffer>) -> impl Future<Output = Result<(), DiskError>> + Send {
        ready(self.copy_to(sector, buffer))
    }

    fn write(
        &self,
        sector: u64,
        buffer: &Arc<Buffer>,
        _: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + Send {
        ready(self.copy_from(sector, buffer))
    }

    fn flush(&self) -> impl Future<Output = Result<(), DiskError>> + Send {
        ready(Ok(()))
    }

    fn discard(&self, sector: u64, count: u64) -> impl Future<Output = Result<(), DiskError>> + Send {
        let bytes = count.checked_mul(SECTOR.bytes().into());
        let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
        ready(match bytes {
            Some(bytes) => self.walk(sector, bytes, |part, _| {
                part.fill(0);
                Ok(())
            }),
            None => Err(DiskError::OutOfRange),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::fake::block_on;
    use vsp::buffer::owned;

    #[test]
    fn what_is_written_across_blocks_is_read_and_what_is_discarded_is_zero() {
        let disk = RamDisk::new(300_000).unwrap();
        assert_eq!(disk.geometry().sectors, 3 * 256);
        let bytes: Vec<u8> = (0..2048).map(|at| at as u8 | 1).collect();
        let buffer = owned(2048);
        buffer.copy_from(0, &bytes).unwrap();
        block_on(disk.write(254, &buffer, Durability::Cached)).unwrap();
        block_on(disk.discard(255, 2)).unwrap();
        let read = owned(2048);
        block_on(disk.read(254, &read)).unwrap();
        let mut seen = vec![0; 2048];
        read.copy_to(0, &mut seen).unwrap();
        assert_eq!((&seen[..512], &seen[1536..]), (&bytes[..512], &bytes[1536..]));
        assert!(seen[512..1536].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn nothing_is_reached_outside() {
        let disk = RamDisk::new(BLOCK as u64).unwrap();
        for sector in [256, u64::MAX, u64::MAX - 1, 1 << 55] {
            assert_eq!(
                block_on(disk.read(sector, &owned(512))),
                Err(DiskError::OutOfRange)
            );
            assert_eq!(
                block_on(disk.discard(sector, u64::MAX)),
                Err(DiskError::OutOfRange)
            );
        }
        assert_eq!(block_on(disk.read(255, &owned(1024))), Err(DiskError::OutOfRange));
        assert_eq!(block_on(disk.read(0, &owned(100))), Err(DiskError::BufferSize));
    }
}
