//! What partitions map in their domains. A child's default domain follows its GPA map; in the domains that were made for a
//! partition, pages are mapped one by one, and each holds its frame, so that it cannot be deposited.

use super::domain;
use super::second_stage::DmaAccess;
use super::unit::UnitError;
use super::unit_failed;
use crate::memory::address::{FRAME_SIZE, Frame, Spa};
use crate::memory::frames::FrameSource;
use crate::memory::nested::{Access, MemoryType};
use crate::memory::tables::TableError;
use crate::partition::Partition;
use crate::partition::lifecycle::Progress;
use crate::partition::memory::status_of;
use crate::system;
use core::sync::atomic::Ordering;
use hypercall_api::address::{Gpa, Gpfn};
use hypercall_api::status::HvStatus;

/// Pages or mappings that are seen to in one piece of a long call.
const PIECE: usize = 64;

/// What devices may do where the partition may do this; `None` for nothing, as where it is uncached: registers of devices.
fn dma_access(access: Access) -> Option<DmaAccess> {
    let dma = DmaAccess {
        read: access.read,
        write: access.read && access.write,
    };
    (dma.read && access.memory_type == MemoryType::WriteBack).then_some(dma)
}

/// Makes the default domain of a child, which copies its GPA map, a piece a call.
pub fn prepare_default(partition: &Partition) -> Result<Progress, HvStatus> {
    let Some(iommu) = super::get() else {
        return Ok(Progress::Done);
    };
    if partition.is_root() {
        return Ok(Progress::Done);
    }
    let memory = partition.memory.lock();
    let memory = memory.as_ref().ok_or(HvStatus::INVALID_PARTITION_STATE)?;
    let mut pool = partition.pool.lock();
    let number = match partition.device_domain.load(Ordering::Acquire) {
        0 => {
            let number = domain::create(iommu, partition.id, 0, &mut *pool)?;
            partition.device_domain.store(number, Ordering::Release);
            number
        }
        number => number,
    };
    let mut at = domain::with(number, |domain| domain.copied).unwrap_or(u64::MAX);
    for _ in 0..PIECE {
        let Some(next) = memory.next_mapped(Gpa(at)) else {
            domain::with(number, |domain| domain.copied = u64::MAX);
            return Ok(Progress::Done);
        };
        let mapping = memory.translate(next).ok_or(HvStatus::OPERATION_FAILED)?;
        let (size, access) = (mapping.size.bytes(), dma_access(mapping.access));
        if let Some(access) = access {
            domain::map(number, next.0, mapping.spa, size, access, &mut *pool).map_err(status_of)?;
        }
        at = next.0 + size;
        domain::with(number, |domain| domain.copied = at);
    }
    Ok(Progress::Again)
}

/// Has the default domain follow a mapping in a child's GPA map, whose lock is held.
pub fn follow_map(
    partition: &Partition,
    gpa: Gpa,
    spa: Spa,
    size: u64,
    access: Access,
    pool: &mut dyn FrameSource,
) -> Result<(), TableError> {
    match (
        partition.device_domain.load(Ordering::Acquire),
        dma_access(access),
    ) {
        (0, _) | (_, None) => Ok(()),
        (number, Some(access)) => domain::map(number, gpa.0, spa, size, access, pool),
    }
}

/// Has the default domain follow the end of a mapping, by the same rule. Devices may still reach it until [`forget`] has
/// returned.
pub fn follow_unmap(
    partition: &Partition,
    gpa: Gpa,
    size: u64,
    pool: &mut dyn FrameSource,
) -> Result<(), TableError> {
    match partition.device_domain.load(Ordering::Acquire) {
        0 => Ok(()),
        number => domain::unmap(number, gpa.0, size, pool),
    }
}

/// Returns when no device in the default domain reaches these runs of pages any more.
#[inline]
pub fn forget(partition: &Partition, runs: &[(u64, u64)]) -> Result<(), UnitError> {
    match partition.device_domain.load(Ordering::Acquire) {
        0 => Ok(()),
        number => domain::forget(number, runs),
    }
}

/// Makes a mapping in the default domain seen.
pub fn announce(partition: &Partition, gpa: Gpa, pages: u64) -> Result<(), HvStatus> {
    match partition.device_domain.load(Ordering::Acquire) {
        0 => Ok(()),
        number => domain::announce(number, gpa.0, pages)
            .map_err(|error| unit_failed(error, HvStatus::OPERATION_FAILED)),
    }
}

/// Makes a domain of a partition's own, with frames of its pool.
pub fn create(partition: &Partition, id: u32) -> Result<(), HvStatus> {
    let iommu = super::get().ok_or(HvStatus::FEATURE_UNAVAILABLE)?;
    if id == 0 {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    domain::create(iommu, partition.id, id, &mut *partition.pool.lock()).map(|_| ())
}

/// The number of a domain in which pages are mapped one by one.
pub fn made_domain(partition: &Partition, id: u32) -> Result<u16, HvStatus> {
    if id == 0 {
        return Err(HvStatus::OPERATION_DENIED);
    }
    domain::find(partition.id, id).ok_or(HvStatus::INVALID_PARAMETER)
}

/// Maps a page of `partition` at an address of one of its domains.
pub fn map_page(
    partition: &Partition,
    number: u16,
    address: u64,
    page: Gpfn,
    access: DmaAccess,
) -> Result<(), HvStatus> {
    let ownership = system::ownership().ok_or(HvStatus::OPERATION_FAILED)?;
    let gpa = page.base().ok_or(HvStatus::INVALID_PARAMETER)?;
    // The lock keeps the page the partition's until its frame is held.
    let memory = partition.memory.lock();
    let mapping = memory
        .as_ref()
        .and_then(|memory| memory.translate(gpa))
        .ok_or(HvStatus::INVALID_PARAMETER)?;
    let allowed = mapping.is_ram()
        && mapping.access.read
        && (!access.write || mapping.access.write)
        && !system::is_hypervisors(mapping.spa);
    if !allowed || !access.read {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    if domain::translate(number, address).is_some() {
        return Err(HvStatus::OPERATION_DENIED);
    }
    let frame = Frame::containing(mapping.spa);
    ownership.map(frame)?;
    let mapped = domain::map(
        number,
        address,
        frame.start(),
        FRAME_SIZE,
        access,
        &mut *partition.pool.lock(),
    );
    if let Err(error) = mapped {
        ownership.unmap(frame);
        return Err(status_of(error));
    }
    domain::announce(number, address, 1).map_err(|error| unit_failed(error, HvStatus::OPERATION_FAILED))
}

/// Unmaps a page of a domain. No device reaches it there when this returns.
pub fn unmap_page(partition: &Partition, number: u16, address: u64) -> Result<(), HvStatus> {
    let ownership = system::ownership().ok_or(HvStatus::OPERATION_FAILED)?;
    let mapping = domain::translate(number, address).ok_or(HvStatus::INVALID_PARAMETER)?;
    domain::unmap(number, address, FRAME_SIZE, &mut *partition.pool.lock()).map_err(status_of)?;
    domain::forget(number, &[(address, 1)])
        .map_err(|error| unit_failed(error, HvStatus::OPERATION_FAILED))?;
    ownership.unmap(Frame::containing(mapping.spa));
    Ok(())
}

/// Ends a domain without devices, a piece a call.
pub fn delete(partition: &Partition, number: u16) -> Result<Progress, HvStatus> {
    let (id, devices) =
        domain::with(number, |domain| (domain.id, domain.devices)).ok_or(HvStatus::INVALID_PARAMETER)?;
    if devices != 0 {
        return Err(HvStatus::INVALID_DEVICE_STATE);
    }
    // The frames of the default domain are held by the GPA map.
    if id != 0 {
        for _ in 0..PIECE {
            match domain::with(number, |domain| domain.space.next_mapped(0)).flatten() {
                Some(address) => unmap_page(partition, number, address)?,
                None => break,
            }
        }
        if domain::with(number, |domain| domain.space.next_mapped(0))
            .flatten()
            .is_some()
        {
            return Ok(Progress::Again);
        }
    } else {
        partition.device_domain.store(0, Ordering::Release);
    }
    domain::delete(number, &mut *partition.pool.lock())?;
    Ok(Progress::Done)
}
