//! A disk in somebody's hands.

use super::Registry;
use crate::disk::root_disk::RootDisk;
use alloc::string::String;
use alloc::sync::Arc;
use core::future::Future;
use vsp::buffer::Buffer;
use vsp::storage::disk::{Disk, DiskError, Durability, Geometry, Request};

/// What a disk is claimed for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Others may read it too.
    Read,
    /// Nobody else may use any of it.
    Write,
}

/// A disk that is in somebody's hands. Dropping it gives it back.
pub struct Claim {
    pub(super) registry: Arc<Registry>,
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) disk: RootDisk,
}

impl Claim {
    /// What it was claimed as.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The disk.
    pub const fn disk(&self) -> &RootDisk {
        &self.disk
    }
}

impl Disk for Claim {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    fn at_once(&self, request: Request<'_>) -> Option<Result<(), DiskError>> {
        self.disk.at_once(request)
    }

    fn read(&self, sector: u64, buffer: &Arc<Buffer>) -> impl Future<Output = Result<(), DiskError>> + Send {
        self.disk.read(sector, buffer)
    }

    fn write(
        &self,
        sector: u64,
        buffer: &Arc<Buffer>,
        durability: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + Send {
        self.disk.write(sector, buffer, durability)
    }

    fn flush(&self) -> impl Future<Output = Result<(), DiskError>> + Send {
        self.disk.flush()
    }

    fn discard(&self, sector: u64, count: u64) -> impl Future<Output = Result<(), DiskError>> + Send {
        self.disk.discard(sector, count)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.registry.release(self.id);
    }
}
