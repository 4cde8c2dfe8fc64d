//! A disk of memory.

use super::disk::{Disk, DiskError, Durability, Geometry, Request, SectorSize};
use crate::buffer::Buffer;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use spin::Mutex;

/// Bytes that one lock covers.
const STRIPE: usize = 64 << 10;

/// A disk of memory, zeroed at first. What is given up reads as zeros.
pub struct RamDisk {
    geometry: Geometry,
    stripes: Vec<Mutex<Vec<u8>>>,
}

impl RamDisk {
    /// A disk of `sectors` sectors.
    pub fn new(sectors: u64, sector_size: SectorSize) -> Self {
        let geometry = Geometry {
            sectors,
            sector_size,
            read_only: false,
            write_cache: false,
            discard: true,
        };
        let size = geometry
            .bytes()
            .and_then(|bytes| usize::try_from(bytes).ok())
            .unwrap_or(0);
        let stripes =
            (0..size.div_ceil(STRIPE)).map(|stripe| Mutex::new(vec![0; STRIPE.min(size - stripe * STRIPE)]));
        Self {
            geometry,
            stripes: stripes.collect(),
        }
    }

    /// The same, but that it cannot be written.
    pub fn read_only(mut self) -> Self {
        self.geometry.read_only = true;
        self
    }

    /// The same, with `bytes` at its beginning, as far as it holds them.
    pub fn with_contents(self, bytes: &[u8]) -> Self {
        for (stripe, bytes) in self.stripes.iter().zip(bytes.chunks(STRIPE)) {
            let mut stripe = stripe.lock();
            let length = bytes.len().min(stripe.len());
            stripe[..length].copy_from_slice(&bytes[..length]);
        }
        self
    }

    /// Calls `each` for the parts of a range: offset in the range, and the bytes.
    fn parts(
        &self,
        sector: u64,
        bytes: usize,
        mut each: impl FnMut(usize, &mut [u8]) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        let size = self.geometry.sector_size.bytes() as usize;
        let count = (bytes / size) as u64;
        if !bytes.is_multiple_of(size) {
            return Err(DiskError::BufferSize);
        }
        let end = sector.checked_add(count).ok_or(DiskError::OutOfRange)?;
        if end > self.geometry.sectors {
            return Err(DiskError::OutOfRange);
        }
        let mut at = sector as usize * size;
        let mut done = 0;
        while done < bytes {
            let within = at % STRIPE;
            let length = (bytes - done).min(STRIPE - within);
            let mut stripe = self.stripes.get(at / STRIPE).ok_or(DiskError::OutOfRange)?.lock();
            each(
                done,
                stripe
                    .get_mut(within..within + length)
                    .ok_or(DiskError::OutOfRange)?,
            )?;
            (at, done) = (at + length, done + length);
        }
        Ok(())
    }
}

impl RamDisk {
    fn copy_to(&self, sector: u64, buffer: &Buffer) -> Result<(), DiskError> {
        self.parts(sector, buffer.size(), |offset, bytes| {
            buffer.copy_from(offset, bytes).map_err(|_| DiskError::BufferSize)
        })
    }

    fn copy_from(&self, sector: u64, buffer: &Buffer) -> Result<(), DiskError> {
        if self.geometry.read_only {
            return Err(DiskError::ReadOnly);
        }
        self.parts(sector, buffer.size(), |offset, bytes| {
            buffer.copy_to(offset, bytes).map_err(|_| DiskError::BufferSize)
        })
    }
}

impl Disk for RamDisk {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn at_once(&self, request: Request<'_>) -> Option<Result<(), DiskError>> {
        Some(match request {
            Request::Read { sector, buffer } => self.copy_to(sector, buffer),
            Request::Write { sector, buffer, .. } => self.copy_from(sector, buffer),
            Request::Flush => Ok(()),
        })
    }

    async fn read(&self, sector: u64, buffer: &Arc<Buffer>) -> Result<(), DiskError> {
        self.copy_to(sector, buffer)
    }

    async fn write(&self, sector: u64, buffer: &Arc<Buffer>, _: Durability) -> Result<(), DiskError> {
        self.copy_from(sector, buffer)
    }

    async fn flush(&self) -> Result<(), DiskError> {
        Ok(())
    }

    async fn discard(&self, sector: u64, count: u64) -> Result<(), DiskError> {
        if self.geometry.read_only {
            return Err(DiskError::ReadOnly);
        }
        let bytes = count.checked_mul(self.geometry.sector_size.bytes().into());
        let bytes = bytes
            .and_then(|bytes| usize::try_from(bytes).ok())
            .ok_or(DiskError::OutOfRange)?;
        self.parts(sector, bytes, |_, bytes| {
            bytes.fill(0);
            Ok(())
        })
    }
}
