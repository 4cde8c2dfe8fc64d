//! Calls about devices: what they reach, and where their interrupts go.

use super::{Hypercalls, Incomplete, rep};
use crate::address::Gpfn;
use crate::code::HypercallCode as Code;
use crate::device::{
    AttachDeviceDomain, CreateDeviceDomain, DetachDeviceDomain, DeviceDomain, MapDeviceGpaPages,
    UnmapDeviceGpaPages,
};
use crate::id::PartitionId;
use crate::interrupt::{DeviceId, RetargetDeviceInterrupt};
use crate::memory::MapGpaFlags;
use crate::operator::IommuState;
use crate::status::HvStatus;

/// Calls about devices: what they reach, and where their interrupts go.
pub trait DeviceCalls: Hypercalls {
    /// `HvCallPartitaQueryIommu`: what the IOMMU does, and what devices have tried.
    fn query_iommu(&self) -> Result<IommuState, HvStatus> {
        // SAFETY: the call only reads.
        unsafe { self.simple(Code::PARTITA_QUERY_IOMMU, &()) }
    }

    /// `HvCallCreateDeviceDomain`: an empty domain, with frames of the partition's pool.
    fn create_device_domain(&self, domain: DeviceDomain) -> Result<(), HvStatus> {
        let input = CreateDeviceDomain {
            domain,
            flags: 0,
            padding: 0,
        };
        // SAFETY: nothing is reached by it yet.
        unsafe { self.simple(Code::CREATE_DEVICE_DOMAIN, &input) }
    }

    /// `HvCallDeleteDeviceDomain`: no device may be in it.
    fn delete_device_domain(&self, domain: DeviceDomain) -> Result<(), HvStatus> {
        // SAFETY: the call only takes from devices.
        unsafe { self.simple(Code::DELETE_DEVICE_DOMAIN, &domain) }
    }

    /// `HvCallAttachDeviceDomain`: the device reaches what the domain maps.
    ///
    /// What it is then told to write is its driver's business, as with any device; that is why the call itself is safe.
    fn attach_device_domain(&self, domain: DeviceDomain, device: DeviceId) -> Result<(), HvStatus> {
        // SAFETY: the device does nothing by itself.
        unsafe { self.simple(Code::ATTACH_DEVICE_DOMAIN, &AttachDeviceDomain { domain, device }) }
    }

    /// `HvCallDetachDeviceDomain`: the device reaches nothing, and raises no interrupt.
    fn detach_device_domain(&self, partition: PartitionId, device: DeviceId) -> Result<(), HvStatus> {
        // SAFETY: the call only takes from the device.
        unsafe {
            self.simple(
                Code::DETACH_DEVICE_DOMAIN,
                &DetachDeviceDomain { partition, device },
            )
        }
    }

    /// `HvCallMapDeviceGpaPages`: devices in the domain reach `pages` of its partition from `address` on.
    ///
    /// # Safety
    /// Devices may read the pages, and write them where `flags` say so, at any time until they are unmapped.
    unsafe fn map_device_pages(
        &self,
        domain: DeviceDomain,
        address: u64,
        flags: MapGpaFlags,
        pages: &[Gpfn],
    ) -> Result<(), Incomplete> {
        let header = |done: usize| MapDeviceGpaPages {
            domain,
            target_vtl: 0,
            padding: [0; 3],
            flags: flags.bits(),
            address: address.wrapping_add(done as u64 * 4096),
        };
        // SAFETY: the caller lends the pages.
        unsafe { rep::input(self, Code::MAP_DEVICE_GPA_PAGES, header, pages) }
    }

    /// `HvCallUnmapDeviceGpaPages`: devices reach nothing any more in `count` pages from `address` on.
    fn unmap_device_pages(&self, domain: DeviceDomain, address: u64, count: usize) -> Result<(), Incomplete> {
        let header = |done: usize| UnmapDeviceGpaPages {
            domain,
            address: address.wrapping_add(done as u64 * 4096),
        };
        // SAFETY: the call only takes from devices.
        unsafe { rep::counted(self, Code::UNMAP_DEVICE_GPA_PAGES, header, count) }
    }

    /// `HvCallRetargetDeviceInterrupt`: the interrupt goes to another VP, or comes at another vector. The device keeps its entry.
    fn retarget_device_interrupt(&self, input: &RetargetDeviceInterrupt) -> Result<(), HvStatus> {
        // SAFETY: an interrupt at a vector of the caller's own choice.
        unsafe { self.simple(Code::RETARGET_DEVICE_INTERRUPT, input) }
    }
}

impl<H: Hypercalls + ?Sized> DeviceCalls for H {}
