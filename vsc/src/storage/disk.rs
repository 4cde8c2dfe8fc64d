//! A disk as a block device.

use super::controller::{Address, Controller};
use super::error::StorageError;
use super::request::Data;
use super::scsi::{self, Cdb, DeviceType, Sense};
use super::transfer::{Kind, Transfer};
use crate::block::{BlockDevice, Durability, Geometry};
use crate::memory::Buffer;
use alloc::sync::Arc;
use core::future::Future;
use spin::Mutex;
use vmbus::protocol::scsi::vital;
use vmbus::protocol::storage::DataDirection;

/// Sizes of blocks that are believed.
const BLOCK_SIZES: core::ops::RangeInclusive<u32> = 512..=65536;

/// A disk, or a drive with a medium in it.
#[derive(Debug)]
pub struct Disk {
    controller: Arc<Controller>,
    address: Address,
    device_type: DeviceType,
    known: Mutex<Known>,
}

/// What the unit says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Known {
    geometry: Geometry,
    /// Most blocks that are given up at once.
    max_unmap: u32,
}

impl Disk {
    /// The disk at `address`.
    pub async fn open(controller: &Arc<Controller>, address: Address) -> Result<Self, StorageError> {
        let found = controller.look(address).await?.ok_or(StorageError::NoUnit)?;
        let known = Known::ask(controller, address, found.device_type).await?;
        Ok(Self {
            controller: controller.clone(),
            address,
            device_type: found.device_type,
            known: Mutex::new(known),
        })
    }

    /// Where it is.
    pub const fn address(&self) -> Address {
        self.address
    }

    /// Asks anew what it holds and can do, as after the host has said that something has changed.
    pub async fn refresh(&self) -> Result<Geometry, StorageError> {
        let known = Known::ask(&self.controller, self.address, self.device_type).await?;
        *self.known.lock() = known;
        Ok(known.geometry)
    }

    /// Its controller.
    #[inline(always)]
    pub(super) const fn controller(&self) -> &Arc<Controller> {
        &self.controller
    }

    /// Has a command carried out that is no read or write; if the unit says that something has changed, the disk is known anew
    /// before it is tried again.
    async fn command(&self, cdb: Cdb) -> Result<usize, StorageError> {
        let direction = DataDirection::NONE;
        match self.controller.execute(self.address, cdb, direction, None).await {
            Err(StorageError::Sense(sense)) if sense.key == Sense::UNIT_ATTENTION => {
                self.command_again(cdb, direction, None).await
            }
            result => result,
        }
    }

    /// Has a command carried out before which the unit had something else to say.
    pub(super) async fn command_again(
        &self,
        cdb: Cdb,
        direction: DataDirection,
        data: Option<Data<'_>>,
    ) -> Result<usize, StorageError> {
        self.refresh().await?;
        self.controller.command(self.address, cdb, direction, data).await
    }
}

impl BlockDevice for Disk {
    type Error = StorageError;

    fn geometry(&self) -> Geometry {
        self.known.lock().geometry
    }

    #[inline]
    fn read(
        &self,
        block: u64,
        buffer: &Arc<Buffer>,
    ) -> impl Future<Output = Result<(), StorageError>> + Send {
        Transfer::new(self, Kind::Read, block, buffer)
    }

    #[inline]
    fn write(
        &self,
        block: u64,
        buffer: &Arc<Buffer>,
        durability: Durability,
    ) -> impl Future<Output = Result<(), StorageError>> + Send {
        Transfer::new(self, Kind::Write(durability), block, buffer)
    }

    async fn flush(&self) -> Result<(), StorageError> {
        self.command(Cdb::synchronize_cache()).await?;
        Ok(())
    }

    async fn discard(&self, block: u64, count: u64) -> Result<(), StorageError> {
        let Known {
            geometry, max_unmap, ..
        } = *self.known.lock();
        if geometry.read_only {
            return Err(StorageError::ReadOnly);
        }
        if !geometry.discard || max_unmap == 0 {
            return Err(StorageError::Unsupported);
        }
        let end = block.checked_add(count).filter(|end| *end <= geometry.blocks);
        let end = end.ok_or(StorageError::OutOfRange)?;
        let mut block = block;
        while block < end {
            let count = (end - block).min(max_unmap.into());
            let list = scsi::unmap_list(block, count as u32);
            let cdb = Cdb::unmap(scsi::UNMAP_LIST as u16);
            self.controller.tell(self.address, cdb, &list).await?;
            block += count;
        }
        Ok(())
    }
}

impl Known {
    async fn ask(
        controller: &Controller,
        address: Address,
        device_type: DeviceType,
    ) -> Result<Self, StorageError> {
        // Without a medium the capacity is nothing.
        let ready = controller
            .command(address, Cdb::test_unit_ready(), DataDirection::NONE, None)
            .await;
        let (blocks, block_size, unmap) = match ready {
            Err(StorageError::Sense(Sense {
                key: Sense::NOT_READY,
                ..
            })) => (0, *BLOCK_SIZES.start(), false),
            Err(error) => return Err(error),
            Ok(_) => capacity(controller, address).await?,
        };
        if !block_size.is_power_of_two() || !BLOCK_SIZES.contains(&block_size) {
            return Err(StorageError::Protocol);
        }
        let is_disk = device_type == DeviceType::DISK;
        let mode = controller
            .ask(address, Cdb::mode_sense_caching(64), 64)
            .await
            .ok();
        let (protected, write_cache) = mode
            .as_deref()
            .and_then(scsi::mode_caching)
            // Nothing is known: what is written is flushed.
            .unwrap_or((false, true));
        let max_unmap = match unmap && is_disk {
            true => limit_of_unmap(controller, address).await,
            false => 0,
        };
        Ok(Self {
            geometry: Geometry {
                blocks,
                block_size,
                read_only: protected || !is_disk,
                write_cache,
                discard: max_unmap > 0,
            },
            max_unmap,
        })
    }
}

/// Blocks, bytes of one, and whether they can be given up.
async fn capacity(controller: &Controller, address: Address) -> Result<(u64, u32, bool), StorageError> {
    let long = controller.ask(address, Cdb::read_capacity_16(32), 32).await;
    match long {
        Ok(data) => scsi::capacity_16(&data).ok_or(StorageError::Protocol),
        // Drives do not know it.
        Err(StorageError::Sense(Sense {
            key: Sense::ILLEGAL_REQUEST,
            ..
        })) => {
            let data = controller.ask(address, Cdb::read_capacity_10(), 8).await?;
            match scsi::capacity_10(&data) {
                Some((Some(blocks), size)) => Ok((blocks, size, false)),
                _ => Err(StorageError::Protocol),
            }
        }
        Err(error) => Err(error),
    }
}

/// Most blocks that one command may give up; zero where that is not said.
async fn limit_of_unmap(controller: &Controller, address: Address) -> u32 {
    let page = |page| controller.ask(address, Cdb::inquiry(Some(page), 64), 64);
    let understood = page(vital::PROVISIONING)
        .await
        .is_ok_and(|data| scsi::understands_unmap(&data));
    match understood {
        true => page(vital::BLOCK_LIMITS)
            .await
            .map_or(0, |data| scsi::max_unmap(&data)),
        false => 0,
    }
}
