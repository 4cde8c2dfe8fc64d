//! Domains by their numbers, which the hardware knows them by: each partition's default domain, which is its memory, and those
//! that were made for it.

use super::second_stage::{AddressSpace, DmaAccess};
use super::{Iommu, unit::UnitError};
use crate::memory::address::Spa;
use crate::memory::frames::FrameSource;
use crate::memory::tables::{Mapping, TableError};
use hypercall_api::id::PartitionId;
use hypercall_api::status::HvStatus;
use spin::Mutex;

/// Most domains; number 0 is none, as units that cache absent entries use it for them (VT-d, 6.1).
pub const MAX_DOMAINS: usize = 128;
/// Number of the root's default domain.
pub const ROOT_DOMAIN: u16 = 1;

/// A domain.
pub struct Domain {
    /// The partition that it belongs to.
    pub owner: PartitionId,
    /// How its owner names it; 0 for the default domain.
    pub id: u32,
    /// Devices in it.
    pub devices: u32,
    /// What they reach.
    pub space: AddressSpace,
    /// Of a child's default domain: GPAs below this one have been copied into it.
    pub copied: u64,
}

static DOMAINS: [Mutex<Option<Domain>>; MAX_DOMAINS] = [const { Mutex::new(None) }; MAX_DOMAINS];

fn numbers(iommu: &Iommu) -> core::ops::Range<u16> {
    ROOT_DOMAIN..(iommu.abilities.domains.min(MAX_DOMAINS as u32) as u16)
}

/// Works with a domain; `None` where there is none of this number.
pub fn with<R>(number: u16, work: impl FnOnce(&mut Domain) -> R) -> Option<R> {
    DOMAINS.get(number as usize)?.lock().as_mut().map(work)
}

/// The number of a partition's domain.
pub fn find(owner: PartitionId, id: u32) -> Option<u16> {
    (ROOT_DOMAIN..MAX_DOMAINS as u16)
        .find(|&number| with(number, |domain| domain.owner == owner && domain.id == id) == Some(true))
}

/// Makes a domain without devices or mappings. Callers take turns.
pub fn create(
    iommu: &Iommu,
    owner: PartitionId,
    id: u32,
    source: &mut dyn FrameSource,
) -> Result<u16, HvStatus> {
    if find(owner, id).is_some() {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let number = numbers(iommu)
        .find(|&number| DOMAINS[number as usize].lock().is_none())
        .ok_or(HvStatus::NO_RESOURCES)?;
    let space = iommu.new_space(source)?;
    *DOMAINS[number as usize].lock() = Some(Domain {
        owner,
        id,
        devices: 0,
        space,
        copied: 0,
    });
    Ok(number)
}

/// Ends a domain without devices; its tables go to `source`, from which they came.
pub fn delete(number: u16, source: &mut dyn FrameSource) -> Result<(), HvStatus> {
    let mut place = DOMAINS
        .get(number as usize)
        .ok_or(HvStatus::INVALID_PARAMETER)?
        .lock();
    match place.take() {
        None => Err(HvStatus::INVALID_PARAMETER),
        Some(domain) if domain.devices != 0 => {
            *place = Some(domain);
            Err(HvStatus::INVALID_DEVICE_STATE)
        }
        Some(domain) => {
            domain.space.destroy(source);
            Ok(())
        }
    }
}

/// Numbers of a partition's domains.
pub fn of(owner: PartitionId) -> impl Iterator<Item = u16> {
    (ROOT_DOMAIN..MAX_DOMAINS as u16)
        .filter(move |&number| with(number, |domain| domain.owner == owner) == Some(true))
}

/// Domains that there are.
pub fn count() -> u32 {
    DOMAINS.iter().filter(|place| place.lock().is_some()).count() as u32
}

/// Maps `size` bytes at `address` in a domain, where there is one.
pub fn map(
    number: u16,
    address: u64,
    spa: Spa,
    size: u64,
    access: DmaAccess,
    source: &mut dyn FrameSource,
) -> Result<(), TableError> {
    with(number, |domain| {
        domain.space.map(address, spa, size, access, source)
    })
    .unwrap_or(Ok(()))
}

/// Unmaps what is mapped of `size` bytes at `address`, where there is a domain. Devices may still reach it until
/// [`forget`] has returned.
pub fn unmap(number: u16, address: u64, size: u64, source: &mut dyn FrameSource) -> Result<(), TableError> {
    with(number, |domain| domain.space.unmap(address, size, source)).unwrap_or(Ok(()))
}

/// What an address of a domain leads to.
pub fn translate(number: u16, address: u64) -> Option<Mapping<DmaAccess>> {
    with(number, |domain| domain.space.translate(address)).flatten()
}

/// Most runs of pages that are forgotten one by one; of more, the whole domain is.
const MOST_RUNS: usize = 8;

/// Has the units forget runs of pages (address, number) that were unmapped in a domain: no device reaches them when this
/// returns.
pub fn forget(number: u16, runs: &[(u64, u64)]) -> Result<(), UnitError> {
    let Some(iommu) = super::get() else { return Ok(()) };
    // What has no devices is in no cache: the last device to leave has had it all forgotten.
    if runs.is_empty() || with(number, |domain| domain.devices).unwrap_or(0) == 0 {
        return Ok(());
    }
    iommu.forget(number, if runs.len() <= MOST_RUNS { runs } else { &[] })
}

/// Makes a new mapping seen by units that cache absent entries, or that buffer writes.
pub fn announce(number: u16, address: u64, pages: u64) -> Result<(), UnitError> {
    let Some(iommu) = super::get() else { return Ok(()) };
    if with(number, |domain| domain.devices).unwrap_or(0) == 0 {
        return Ok(());
    }
    for unit in &iommu.units {
        if unit.capability.caches_absent_entries() {
            unit.invalidate(&[unit.invalidation_of(number, address, pages)])?;
        } else {
            unit.flush_write_buffer()?;
        }
    }
    Ok(())
}
