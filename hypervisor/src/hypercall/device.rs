//! Calls about device domains.

use super::named_partition;
use crate::iommu::device::{self, DeviceName};
use crate::iommu::second_stage::DmaAccess;
use crate::iommu::{device_memory, report};
use crate::partition::Partition;
use crate::partition::lifecycle::Progress;
use crate::partition::vp::Vp;
use hypercall_api::address::Gpfn;
use hypercall_api::device::{
    AttachDeviceDomain, CreateDeviceDomain, DetachDeviceDomain, DeviceDomain, MapDeviceGpaPages,
    UnmapDeviceGpaPages,
};
use hypercall_api::interrupt::{Device, DeviceId};
use hypercall_api::memory::MapGpaFlags;
use hypercall_api::operator::IommuState;
use hypercall_api::status::HvStatus;

/// Largest address that a device can use.
const ADDRESS_LIMIT: u64 = 1 << 48;

/// The partition and the number that name a domain.
fn named_domain(vp: &Vp, domain: &DeviceDomain) -> Result<(&'static Partition, u32), HvStatus> {
    let number = domain.domain.number().ok_or(HvStatus::INVALID_PARAMETER)?;
    if domain.owner_vtl != 0 || domain.padding != [0; 7] {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    Ok((named_partition(vp, domain.partition)?, number))
}

/// The PCI function that a call names.
fn named_device(device: DeviceId) -> Result<DeviceName, HvStatus> {
    match device.device() {
        Some(Device::Pci { segment, rid }) => Ok(DeviceName { segment, rid }),
        _ => Err(HvStatus::INVALID_DEVICE_ID),
    }
}

/// `HvCallCreateDeviceDomain`.
pub(super) fn create(vp: &mut Vp, input: &CreateDeviceDomain) -> Result<(), HvStatus> {
    let (partition, number) = named_domain(vp, &input.domain)?;
    if input.flags != 0 || input.padding != 0 {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    device_memory::create(partition, number)
}

/// `HvCallDeleteDeviceDomain`.
pub(super) fn delete(vp: &mut Vp, input: &DeviceDomain) -> Result<Progress, HvStatus> {
    let (partition, number) = named_domain(vp, input)?;
    device_memory::delete(partition, device_memory::made_domain(partition, number)?)
}

/// `HvCallAttachDeviceDomain`.
pub(super) fn attach(vp: &mut Vp, input: &AttachDeviceDomain) -> Result<Progress, HvStatus> {
    let (partition, number) = named_domain(vp, &input.domain)?;
    let name = named_device(input.device)?;
    if number == 0
        && let Progress::Again = device_memory::prepare_default(partition)?
    {
        return Ok(Progress::Again);
    }
    device::attach(partition, number, name).map(|()| Progress::Done)
}

/// `HvCallDetachDeviceDomain`.
pub(super) fn detach(vp: &mut Vp, input: &DetachDeviceDomain) -> Result<(), HvStatus> {
    device::detach(named_partition(vp, input.partition)?, named_device(input.device)?)
}

/// The address that element `index` of a list is about.
fn address_of(first: u64, index: u16) -> Result<u64, HvStatus> {
    first
        .checked_add(u64::from(index) * 4096)
        .filter(|address| address.is_multiple_of(4096) && *address < ADDRESS_LIMIT)
        .ok_or(HvStatus::INVALID_PARAMETER)
}

/// `HvCallMapDeviceGpaPages`.
pub(super) fn map(vp: &mut Vp, input: &MapDeviceGpaPages, page: &u64, index: u16) -> Result<(), HvStatus> {
    let (partition, number) = named_domain(vp, &input.domain)?;
    let flags = MapGpaFlags::from_bits(input.flags).ok_or(HvStatus::INVALID_PARAMETER)?;
    if input.target_vtl != 0 || input.padding != [0; 3] || flags.contains(MapGpaFlags::LARGE_PAGE) {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let access = DmaAccess {
        read: flags.contains(MapGpaFlags::READABLE),
        write: flags.contains(MapGpaFlags::WRITABLE),
    };
    let domain = device_memory::made_domain(partition, number)?;
    let address = address_of(input.address, index)?;
    device_memory::map_page(partition, domain, address, Gpfn(*page), access)
}

/// `HvCallUnmapDeviceGpaPages`.
pub(super) fn unmap(vp: &mut Vp, input: &UnmapDeviceGpaPages, _: &(), index: u16) -> Result<(), HvStatus> {
    let (partition, number) = named_domain(vp, &input.domain)?;
    let domain = device_memory::made_domain(partition, number)?;
    device_memory::unmap_page(partition, domain, address_of(input.address, index)?)
}

/// `HvCallPartitaQueryIommu`.
pub(super) fn query(_: &mut Vp, (): &()) -> Result<IommuState, HvStatus> {
    Ok(report::state())
}
