//! A file of the boot archive as a read-only disk. Past the file's end, its last sector is zero.

use alloc::sync::Arc;
use core::future::{Future, ready};
use vsp::buffer::Buffer;
use vsp::storage::disk::{Disk, DiskError, Durability, Geometry, Request, SectorSize};

const SECTOR: SectorSize = SectorSize::Bytes512;

/// A file of the boot archive.
#[derive(Clone, Copy, Debug)]
pub struct ArchiveDisk {
    bytes: &'static [u8],
}

impl ArchiveDisk {
    /// The file with these bytes.
    pub const fn new(bytes: &'static [u8]) -> Self {
        Self { bytes }
    }

    fn copy(&self, sector: u64, buffer: &Buffer) -> Result<(), DiskError> {
        let length = buffer.size();
        if !length.is_multiple_of(SECTOR.bytes() as usize) {
            return Err(DiskError::BufferSize);
        }
        let end = sector.checked_add((length >> SECTOR.shift()) as u64);
        if end.is_none_or(|end| end > self.geometry().sectors) {
            return Err(DiskError::OutOfRange);
        }
        let start = (sector << SECTOR.shift()) as usize;
        let rest = self.bytes.get(start..).unwrap_or_default();
        let there = rest.len().min(length);
        buffer
            .copy_from(0, &rest[..there])
            .map_err(|_| DiskError::BufferSize)?;
        // Less than a sector, as the disk ends with the sector in which the file does.
        let zeros = [0; SECTOR.bytes() as usize];
        let padding = zeros.get(..length - there).ok_or(DiskError::OutOfRange)?;
        buffer
            .copy_from(there, padding)
            .map_err(|_| DiskError::BufferSize)
    }
}

impl Disk for ArchiveDisk {
    fn geometry(&self) -> Geometry {
        Geometry {
            sectors: (self.bytes.len() as u64).div_ceil(SECTOR.bytes().into()),
            sector_size: SECTOR,
            read_only: true,
            write_cache: false,
            discard: false,
        }
    }

    fn at_once(&self, request: Request<'_>) -> Option<Result<(), DiskError>> {
        Some(match request {
            Request::Read { sector, buffer } => self.copy(sector, buffer),
            Request::Write { .. } => Err(DiskError::ReadOnly),
            Request::Flush => Ok(()),
        })
    }

    fn read(&self, sector: u64, buffer: &Arc<Buffer>) -> impl Future<Output = Result<(), DiskError>> + Send {
        ready(self.copy(sector, buffer))
    }

    fn write(
        &self,
        _: u64,
        _: &Arc<Buffer>,
        _: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + Send {
        ready(Err(DiskError::ReadOnly))
    }

    fn flush(&self) -> impl Future<Output = Result<(), DiskError>> + Send {
        ready(Ok(()))
    }

    fn discard(&self, _: u64, _: u64) -> impl Future<Output = Result<(), DiskError>> + Send {
        ready(Err(DiskError::ReadOnly))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::fake::block_on;
    use vsp::buffer::owned;

    #[test]
    fn a_file_is_padded_to_whole_sectors() {
        let disk = ArchiveDisk::new(&[7; 700]);
        assert_eq!(disk.geometry().sectors, 2);
        let buffer = owned(512);
        buffer.copy_from(0, &[9; 512]).unwrap();
        block_on(disk.read(1, &buffer)).unwrap();
        let mut seen = [0; 512];
        buffer.copy_to(0, &mut seen).unwrap();
        assert_eq!((&seen[..188], &seen[188..]), (&[7; 188][..], &[0; 324][..]));
    }

    #[test]
    fn it_ends_where_it_ends_and_cannot_be_written() {
        let disk = ArchiveDisk::new(&[7; 512]);
        for sector in [1, u64::MAX] {
            assert_eq!(
                block_on(disk.read(sector, &owned(512))),
                Err(DiskError::OutOfRange)
            );
        }
        let buffer = owned(512);
        let write = disk.write(0, &buffer, Durability::Cached);
        assert_eq!(block_on(write), Err(DiskError::ReadOnly));
        assert_eq!(ArchiveDisk::new(&[]).geometry().sectors, 0);
    }
}
