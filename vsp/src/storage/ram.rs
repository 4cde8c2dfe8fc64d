//! A disk of memory. It forgets everything when it goes, so that a flush has nothing to do.

use super::disk::{Disk, DiskError, Durability, Geometry, Request, SectorSize};
use crate::buffer::Buffer;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::DerefMut;
use spin::Mutex;

/// Bytes that one processor at a time reads or writes.
pub const STRIPE: usize = 64 << 10;

/// A disk of memory, zeroed at first. What is given up reads as zeros.
pub struct RamDisk<M = Vec<u8>> {
    geometry: Geometry,
    stripes: Vec<Mutex<M>>,
}

impl RamDisk {
    /// A disk of `sectors` sectors of the heap's memory.
    pub fn new(sectors: u64, sector_size: SectorSize) -> Self {
        let heap = |bytes| Some(vec![0; bytes]);
        Self::over(sectors, sector_size, heap).unwrap_or_else(|| Self {
            geometry: geometry(0, sector_size),
            stripes: Vec::new(),
        })
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
}

const fn geometry(sectors: u64, sector_size: SectorSize) -> Geometry {
    Geometry {
        sectors,
        sector_size,
        read_only: false,
        write_cache: false,
        discard: true,
    }
}

impl<M: DerefMut<Target = [u8]>> RamDisk<M> {
    /// A disk of `sectors` sectors of memory that `allocate` gives in pieces of so many bytes, zeroed; `None` where it does not.
    pub fn over(
        sectors: u64,
        sector_size: SectorSize,
        mut allocate: impl FnMut(usize) -> Option<M>,
    ) -> Option<Self> {
        let geometry = geometry(sectors, sector_size);
        let size = usize::try_from(geometry.bytes()?).ok()?;
        let mut stripes = Vec::new();
        // What can never be had must not be begun with.
        stripes.try_reserve_exact(size.div_ceil(STRIPE)).ok()?;
        for start in (0..size).step_by(STRIPE) {
            stripes.push(Mutex::new(allocate(STRIPE.min(size - start))?));
        }
        Some(Self { geometry, stripes })
    }

    /// The same, but that it cannot be written.
    pub fn read_only(mut self) -> Self {
        self.geometry.read_only = true;
        self
    }

    /// Calls `each` for the parts of a range: offset in the range, and the bytes.
    #[inline(always)]
    fn parts(
        &self,
        sector: u64,
        bytes: usize,
        mut each: impl FnMut(usize, &mut [u8]) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        let shift = self.geometry.sector_size.shift();
        let count = (bytes >> shift) as u64;
        if count << shift != bytes as u64 {
            return Err(DiskError::BufferSize);
        }
        let end = sector.checked_add(count).ok_or(DiskError::OutOfRange)?;
        if end > self.geometry.sectors {
            return Err(DiskError::OutOfRange);
        }
        let mut at = (sector << shift) as usize;
        let mut done = 0;
        while done < bytes {
            let within = at % STRIPE;
            let length = (bytes - done).min(STRIPE - within);
            let mut stripe = self.stripes.get(at / STRIPE).ok_or(DiskError::OutOfRange)?.lock();
            let part = stripe.get_mut(within..within + length);
            each(done, part.ok_or(DiskError::OutOfRange)?)?;
            (at, done) = (at + length, done + length);
        }
        Ok(())
    }

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

impl<M: DerefMut<Target = [u8]> + Send> Disk for RamDisk<M> {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    #[inline(always)]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::owned;
    use core::future::Future;
    use core::pin::pin;
    use core::task::{Context, Poll, Waker};

    fn now<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("memory does not wait"),
        }
    }

    fn disk() -> RamDisk {
        RamDisk::new(768, SectorSize::Bytes512)
    }

    #[test]
    fn what_is_written_across_stripes_is_read_and_what_is_discarded_is_zero() {
        let disk = disk();
        let bytes: Vec<u8> = (0..2048).map(|at| at as u8 | 1).collect();
        let buffer = owned(2048);
        buffer.copy_from(0, &bytes).unwrap();
        now(disk.write(126, &buffer, Durability::Cached)).unwrap();
        now(disk.discard(127, 2)).unwrap();
        let read = owned(2048);
        now(disk.read(126, &read)).unwrap();
        let mut seen = vec![0; 2048];
        read.copy_to(0, &mut seen).unwrap();
        assert_eq!((&seen[..512], &seen[1536..]), (&bytes[..512], &bytes[1536..]));
        assert!(seen[512..1536].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn nothing_is_reached_outside() {
        let disk = disk();
        for sector in [768, u64::MAX, u64::MAX - 1, 1 << 55] {
            assert_eq!(now(disk.read(sector, &owned(512))), Err(DiskError::OutOfRange));
            assert_eq!(now(disk.discard(sector, u64::MAX)), Err(DiskError::OutOfRange));
        }
        assert_eq!(now(disk.read(767, &owned(1024))), Err(DiskError::OutOfRange));
        assert_eq!(now(disk.read(0, &owned(100))), Err(DiskError::BufferSize));
    }

    #[test]
    fn memory_that_cannot_be_had_makes_no_disk() {
        assert!(RamDisk::over(u64::MAX, SectorSize::Bytes4096, |size| Some(vec![0; size])).is_none());
        assert!(RamDisk::over(1 << 54, SectorSize::Bytes512, |_| None::<Vec<u8>>).is_none());
    }
}
