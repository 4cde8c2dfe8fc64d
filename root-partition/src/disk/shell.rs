//! The disks as the shell's commands see them.

use super::measure;
use super::registry::{Access, Claim, DiskRefused, Registry, info};
use super::root_disk::{Backend, RootDisk};
use crate::memory::dma;
use crate::shell::disks::{DiskFigure, DiskInfo, Disks, OpenDisk, Purpose};
use crate::shell::system::{Pending, SystemError};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use vsp::buffer::Buffer;
use vsp::storage::disk::{Disk, DiskError, Durability};

/// Who the shell is when it writes a disk.
const SHELL: &str = "the shell";
/// Most bytes of one request.
const MOST_BYTES: usize = 1 << 20;

impl From<DiskRefused> for SystemError {
    fn from(refused: DiskRefused) -> Self {
        Self::new(refused)
    }
}

impl Disks for Arc<Registry> {
    fn list(&self) -> Pending<'_, Vec<DiskInfo>> {
        Box::pin(async move {
            self.ready().await;
            Registry::list(self)
        })
    }

    fn names(&self) -> Vec<String> {
        Registry::names(self)
    }

    fn create(&self, name: &str, bytes: u64) -> Result<(), SystemError> {
        Ok(Registry::create(self, name, bytes)?)
    }

    fn delete(&self, name: &str) -> Result<(), SystemError> {
        Ok(Registry::delete(self, name)?)
    }

    fn open<'a>(
        &'a self,
        name: &'a str,
        purpose: Purpose,
    ) -> Pending<'a, Result<Box<dyn OpenDisk>, SystemError>> {
        Box::pin(async move {
            let (disk, claim) = match purpose {
                Purpose::Look => (self.look(name).await?, None),
                Purpose::Write => {
                    let claim = self.claim(name, SHELL, Access::Write).await?;
                    (claim.disk().clone(), Some(claim))
                }
            };
            let opened: Box<dyn OpenDisk> = Box::new(Opened {
                name: name.to_string(),
                disk,
                buffer: dma::buffer(MOST_BYTES)
                    .ok_or_else(|| SystemError::new("there is too little memory"))?,
                _claim: claim,
            });
            Ok(opened)
        })
    }

    fn scan<'a>(&'a self, name: &'a str) -> Pending<'a, Result<usize, SystemError>> {
        Box::pin(async move {
            self.ready().await;
            Ok(Registry::scan(self, name).await?)
        })
    }

    fn reset<'a>(&'a self, name: &'a str) -> Pending<'a, Result<(), SystemError>> {
        Box::pin(async move {
            let disk = self.look(name).await?;
            let Backend::Nvme(namespace) = disk.backend() else {
                return Err(SystemError(format!(
                    "'{name}' has no controller that could be reset"
                )));
            };
            match namespace.controller().reset().await {
                true => Ok(()),
                false => Err(SystemError(format!("the controller of '{name}' has failed"))),
            }
        })
    }

    fn measure<'a>(&'a self, name: &'a str, depth: usize) -> Pending<'a, Result<DiskFigure, SystemError>> {
        Box::pin(async move {
            let disk = self.look(name).await?;
            let measured = measure::reads(&disk, depth).await;
            measured.map_err(|error| SystemError(format!("{name}: {error}")))
        })
    }
}

struct Opened {
    name: String,
    disk: RootDisk,
    /// For requests of up to 1 MiB, one at a time.
    buffer: Arc<Buffer>,
    _claim: Option<Claim>,
}

impl Opened {
    /// A buffer of `bytes` bytes.
    fn buffer(&self, bytes: usize) -> Result<Arc<Buffer>, DiskError> {
        match bytes {
            MOST_BYTES => Ok(self.buffer.clone()),
            0..MOST_BYTES => dma::buffer(bytes).ok_or(DiskError::Failed),
            _ => Err(DiskError::BufferSize),
        }
    }
}

impl OpenDisk for Opened {
    fn info(&self) -> DiskInfo {
        info(&self.name, &self.disk, false)
    }

    fn read<'a>(
        &'a self,
        sector: u64,
        count: u64,
        bytes: Option<&'a mut Vec<u8>>,
    ) -> Pending<'a, Result<(), DiskError>> {
        Box::pin(async move {
            let length = count.saturating_mul(self.disk.geometry().sector_size.bytes().into());
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let buffer = self.buffer(length)?;
            self.disk.read(sector, &buffer).await?;
            if let Some(bytes) = bytes {
                bytes.resize(length, 0);
                buffer.copy_to(0, bytes).map_err(|_| DiskError::BufferSize)?;
            }
            Ok(())
        })
    }

    fn write<'a>(&'a self, sector: u64, bytes: &'a [u8]) -> Pending<'a, Result<(), DiskError>> {
        Box::pin(async move {
            let buffer = self.buffer(bytes.len())?;
            buffer.copy_from(0, bytes).map_err(|_| DiskError::BufferSize)?;
            self.disk.write(sector, &buffer, Durability::Cached).await
        })
    }

    fn flush(&self) -> Pending<'_, Result<(), DiskError>> {
        Box::pin(self.disk.flush())
    }

    fn discard(&self, sector: u64, count: u64) -> Pending<'_, Result<(), DiskError>> {
        Box::pin(self.disk.discard(sector, count))
    }
}
