//! Disks for tests of the shell: `nvme0` of 3 MiB, of which tests can break sectors, and `nvme0p1` of it.

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};
use core::future::ready;

use spin::Mutex;
use vsp::storage::disk::{DiskError, SectorSize};

use super::{
    disks::{DiskCounters, DiskFigure, DiskInfo, Disks, OpenDisk, Purpose},
    system::{Pending, SystemError},
};

const SECTOR: usize = 512;

#[derive(Default)]
pub(crate) struct FakeDisks {
    pub(crate) medium: Arc<Mutex<Medium>>,
    pub(crate) calls: Mutex<Vec<String>>,
}

pub(crate) struct Medium {
    pub(crate) bytes: Vec<u8>,
    /// Sectors that cannot be read.
    pub(crate) unreadable: Vec<u64>,
    /// Sectors that take nothing that is written.
    pub(crate) forgetful: Vec<u64>,
    /// Every request fails with this.
    pub(crate) failure: Option<DiskError>,
    pub(crate) flushed: bool,
}

impl Default for Medium {
    fn default() -> Self {
        Self {
            bytes: (0..3 << 20).map(|at| (at >> 9) as u8).collect(),
            unreadable: Vec::new(),
            forgetful: Vec::new(),
            failure: None,
            flushed: false,
        }
    }
}

fn info(name: &str) -> DiskInfo {
    let is_partition = name.contains('p');
    DiskInfo {
        name: name.into(),
        kind: if is_partition { "partition" } else { "nvme" },
        sectors: if is_partition { 2048 } else { 6144 },
        sector_size: SectorSize::Bytes512,
        read_only: false,
        write_cache: true,
        discard: true,
        model: Some(if is_partition { "data" } else { "QEMU NVMe Ctrl" }.into()),
        users: if is_partition {
            alloc::vec!["web".into()]
        } else {
            Vec::new()
        },
        counters: DiskCounters {
            reads: 12,
            bytes_read: 49152,
            ..DiskCounters::default()
        },
    }
}

impl FakeDisks {
    fn note(&self, call: String) -> Result<(), SystemError> {
        self.calls.lock().push(call);
        Ok(())
    }
}

impl Disks for FakeDisks {
    fn list(&self) -> Pending<'_, Vec<DiskInfo>> {
        Box::pin(ready(self.names().iter().map(|name| info(name)).collect()))
    }

    fn names(&self) -> Vec<String> {
        alloc::vec!["nvme0".into(), "nvme0p1".into()]
    }

    fn create(&self, name: &str, bytes: u64) -> Result<(), SystemError> {
        self.note(alloc::format!("create {name} {bytes}"))
    }

    fn delete(&self, name: &str) -> Result<(), SystemError> {
        self.note(alloc::format!("delete {name}"))
    }

    fn open<'a>(
        &'a self,
        name: &'a str,
        purpose: Purpose,
    ) -> Pending<'a, Result<Box<dyn OpenDisk>, SystemError>> {
        let opened = match (name, purpose) {
            ("nvme0", _) => {
                let opened: Box<dyn OpenDisk> = Box::new(Opened(self.medium.clone()));
                Ok(opened)
            }
            (_, Purpose::Write) => Err(SystemError::new("'nvme0p1' is in use by web")),
            _ => Err(SystemError::new("there is no such disk")),
        };
        Box::pin(ready(opened))
    }

    fn scan<'a>(&'a self, name: &'a str) -> Pending<'a, Result<usize, SystemError>> {
        Box::pin(ready(self.note(alloc::format!("scan {name}")).map(|()| 1)))
    }

    fn reset<'a>(&'a self, name: &'a str) -> Pending<'a, Result<(), SystemError>> {
        Box::pin(ready(self.note(alloc::format!("reset {name}"))))
    }

    fn measure<'a>(&'a self, _: &'a str, depth: usize) -> Pending<'a, Result<DiskFigure, SystemError>> {
        Box::pin(ready(Ok(DiskFigure {
            depth: depth as u64,
            rounds: 1024,
            run_time: 4321,
            hypervisor_time: 1000,
            elapsed: 98_765,
        })))
    }
}

struct Opened(Arc<Mutex<Medium>>);

impl OpenDisk for Opened {
    fn info(&self) -> DiskInfo {
        info("nvme0")
    }

    fn read<'a>(
        &'a self,
        sector: u64,
        count: u64,
        bytes: Option<&'a mut Vec<u8>>,
    ) -> Pending<'a, Result<(), DiskError>> {
        let medium = self.0.lock();
        let range = sector as usize * SECTOR..(sector + count) as usize * SECTOR;
        let bad = medium
            .unreadable
            .iter()
            .find(|bad| (sector..sector + count).contains(*bad));
        let outcome = match (medium.failure, bad) {
            (Some(failure), _) => Err(failure),
            (None, Some(_)) => Err(DiskError::Unreadable(sector)),
            (None, None) => {
                if let Some(bytes) = bytes {
                    bytes.clear();
                    bytes.extend_from_slice(&medium.bytes[range]);
                }
                Ok(())
            }
        };
        Box::pin(ready(outcome))
    }

    fn write<'a>(&'a self, sector: u64, bytes: &'a [u8]) -> Pending<'a, Result<(), DiskError>> {
        let medium = &mut *self.0.lock();
        medium.flushed = false;
        for (at, part) in (sector..).zip(bytes.chunks(SECTOR)) {
            if !medium.forgetful.contains(&at) {
                medium.bytes[at as usize * SECTOR..][..SECTOR].copy_from_slice(part);
            }
        }
        Box::pin(ready(medium.failure.map_or(Ok(()), Err)))
    }

    fn flush(&self) -> Pending<'_, Result<(), DiskError>> {
        self.0.lock().flushed = true;
        Box::pin(ready(Ok(())))
    }

    fn discard(&self, sector: u64, count: u64) -> Pending<'_, Result<(), DiskError>> {
        let range = sector as usize * SECTOR..(sector + count) as usize * SECTOR;
        self.0.lock().bytes[range].fill(0);
        Box::pin(ready(Ok(())))
    }
}
