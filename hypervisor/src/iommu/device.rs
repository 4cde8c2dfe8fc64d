//! Which device is whose, and in which domain. A device that is in none reaches nothing. It has one owner at a time, and
//! between two owners it is in no domain, so that the root can reset it.

use super::context::Context;
use super::domain::{self, ROOT_DOMAIN};
use super::{Iommu, device_memory};
use crate::device_interrupt;
use crate::memory::frames::FrameSource;
use crate::partition::Partition;
use crate::partition::lifecycle::Progress;
use crate::partition::table::ROOT_ID;
use crate::system::FRAMES;
use arrayvec::ArrayVec;
use core::fmt;
use hypercall_api::id::PartitionId;
use hypercall_api::status::HvStatus;
use spin::Mutex;

/// Most devices that are kept account of.
pub const MAX_DEVICES: usize = 256;
/// Faults of a device after which it is silenced.
pub const MOST_FAULTS: u32 = 64;

/// A PCI function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceName {
    /// Segment group.
    pub segment: u16,
    /// Bus in 15:8, device in 7:3, function in 2:0.
    pub rid: u16,
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, rid } = self;
        write!(
            f,
            "{segment:04x}:{:02x}:{:02x}.{}",
            rid >> 8,
            rid >> 3 & 0x1f,
            rid & 7
        )
    }
}

/// What is known of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Device {
    /// Its name.
    pub name: DeviceName,
    /// Who has it; meaningful while it is in a domain.
    pub owner: PartitionId,
    /// The number of its domain.
    pub domain: Option<u16>,
    /// Firmware has reserved memory for it: it stays the root's.
    pub has_reserved_memory: bool,
    /// Faults since it came into its domain.
    pub faults: u32,
    /// It has had so many that it is out of its domain and not heard any more.
    pub silenced: bool,
}

impl Device {
    /// Whether it is still to enter domain `number`; false where it is in it. One that firmware has reserved memory for stays in the
    /// root's domain, as it may use that memory at any time.
    fn may_enter(&self, number: u16) -> Result<bool, HvStatus> {
        match self.domain {
            Some(domain) if domain == number => Ok(false),
            _ if self.has_reserved_memory && number != ROOT_DOMAIN => {
                Err(forbidden(self.name, "firmware has reserved memory for it (RMRR)"))
            }
            Some(_) => Err(HvStatus::INVALID_DEVICE_STATE),
            None => Ok(true),
        }
    }

    /// Whether its owner may take it out of its domain.
    fn may_leave(&self) -> Result<(), HvStatus> {
        match self.has_reserved_memory {
            true => Err(forbidden(self.name, "firmware has reserved memory for it (RMRR)")),
            false => Ok(()),
        }
    }
}

static DEVICES: Mutex<ArrayVec<Device, MAX_DEVICES>> = Mutex::new(ArrayVec::new_const());

/// Every device of which there is something to tell.
pub fn all() -> ArrayVec<Device, MAX_DEVICES> {
    DEVICES.lock().clone()
}

/// The entry of a device, made where there is none.
fn entry(devices: &mut ArrayVec<Device, MAX_DEVICES>, name: DeviceName) -> Option<&mut Device> {
    let index = match devices.iter().position(|device| device.name == name) {
        Some(index) => index,
        None => {
            let new = Device {
                name,
                owner: ROOT_ID,
                domain: None,
                has_reserved_memory: false,
                faults: 0,
                silenced: false,
            };
            devices.try_push(new).ok()?;
            devices.len() - 1
        }
    };
    devices.get_mut(index)
}

/// Lets a device into a domain of `owner`, in which nothing else of it is yet.
fn enter(
    iommu: &Iommu,
    device: &mut Device,
    owner: PartitionId,
    number: u16,
    source: &mut dyn FrameSource,
) -> Result<(), HvStatus> {
    let joined = domain::with(number, |domain| {
        domain.devices += 1;
        domain.space.root()
    });
    let (root, width) = joined.ok_or(HvStatus::INVALID_PARAMETER)?;
    let context = Context::Translated {
        domain: number,
        root,
        width,
    };
    if let Err(status) = iommu.set_context(device.name, context, source) {
        domain::with(number, |domain| domain.devices -= 1);
        return Err(status);
    }
    *device = Device {
        owner,
        domain: Some(number),
        faults: 0,
        silenced: false,
        ..*device
    };
    Ok(())
}

/// Takes a device out of its domain: when this returns it reaches nothing, and raises no interrupt.
fn leave(
    iommu: &Iommu,
    device: &mut Device,
    context: Context,
    source: &mut dyn FrameSource,
) -> Result<(), HvStatus> {
    iommu.set_context(device.name, context, source)?;
    device_interrupt::release(device.name);
    if let Some(number) = device.domain.take() {
        domain::with(number, |domain| domain.devices = domain.devices.saturating_sub(1));
    }
    Ok(())
}

/// Works with the hypervisor's own frames.
fn with_frames<R>(work: impl FnOnce(&mut dyn FrameSource) -> Result<R, HvStatus>) -> Result<R, HvStatus> {
    let frames = FRAMES.get().ok_or(HvStatus::OPERATION_FAILED)?;
    work(&mut *frames.lock())
}

/// Lets a device for which firmware has reserved memory into the root's domain, before translation starts.
pub(super) fn reserve(iommu: &Iommu, name: DeviceName, source: &mut dyn FrameSource) -> Result<(), HvStatus> {
    let segment = iommu.segment(name.segment).ok_or(HvStatus::INVALID_DEVICE_ID)?;
    let joined = domain::with(ROOT_DOMAIN, |domain| {
        domain.devices += 1;
        domain.space.root()
    });
    let (root, width) = joined.ok_or(HvStatus::OPERATION_FAILED)?;
    let context = Context::Translated {
        domain: ROOT_DOMAIN,
        root,
        width,
    };
    if !segment.contexts.set(name.rid, context, source) {
        return Err(HvStatus::INSUFFICIENT_MEMORY);
    }
    let mut devices = DEVICES.lock();
    let device = entry(&mut devices, name).ok_or(HvStatus::NO_RESOURCES)?;
    (device.domain, device.has_reserved_memory) = (Some(ROOT_DOMAIN), true);
    Ok(())
}

/// Attaches a device to a domain of `owner` (0: its default domain). A device that is in another must be detached first.
pub fn attach(owner: &Partition, id: u32, name: DeviceName) -> Result<(), HvStatus> {
    let Some(iommu) = super::get() else {
        // Without translation the root's devices reach everything as it is.
        return match owner.is_root() && id == 0 {
            true => Ok(()),
            false => Err(forbidden(name, "DMA is not translated")),
        };
    };
    if !owner.is_root() && !iommu.abilities.remaps_interrupts {
        return Err(forbidden(name, "interrupts are not remapped (ECAP.IR)"));
    }
    let number = domain::find(owner.id, id).ok_or(HvStatus::INVALID_PARAMETER)?;
    let mut devices = DEVICES.lock();
    attach_to(iommu, &mut devices, owner, number, name)
}

fn attach_to(
    iommu: &Iommu,
    devices: &mut ArrayVec<Device, MAX_DEVICES>,
    owner: &Partition,
    number: u16,
    name: DeviceName,
) -> Result<(), HvStatus> {
    let device = entry(devices, name).ok_or(HvStatus::NO_RESOURCES)?;
    if !device.may_enter(number)? {
        return Ok(());
    }
    with_frames(|frames| enter(iommu, device, owner.id, number, frames))?;
    log::info!("device {name} reaches domain {number}, of {}", owner.id);
    Ok(())
}

fn forbidden(name: DeviceName, why: &str) -> HvStatus {
    crate::rate_limited!(log::Level::Warn, "device {name} cannot be assigned: {why}");
    HvStatus::OPERATION_DENIED
}

/// Detaches a device from the domain of `owner` that it is in.
pub fn detach(owner: &Partition, name: DeviceName) -> Result<(), HvStatus> {
    let Some(iommu) = super::get() else {
        return Err(HvStatus::INVALID_DEVICE_STATE);
    };
    let mut devices = DEVICES.lock();
    let device = devices
        .iter_mut()
        .find(|device| device.name == name && device.owner == owner.id)
        .filter(|device| device.domain.is_some() || device.silenced)
        .ok_or(HvStatus::INVALID_DEVICE_STATE)?;
    device.may_leave()?;
    with_frames(|frames| leave(iommu, device, Context::Blocked, frames))?;
    (device.owner, device.faults, device.silenced) = (ROOT_ID, 0, false);
    log::info!("device {name} reaches nothing any more of {}", owner.id);
    Ok(())
}

/// Works with a device of `partition`, which it stays meanwhile. A device of nobody's becomes the root's when the root works
/// with it.
pub fn with_owned<R>(
    partition: &Partition,
    name: DeviceName,
    work: impl FnOnce() -> Result<R, HvStatus>,
) -> Result<R, HvStatus> {
    let Some(iommu) = super::get() else { return work() };
    let mut devices = DEVICES.lock();
    let owner = devices
        .iter()
        .find(|device| device.name == name)
        .and_then(|device| device.domain.map(|_| device.owner));
    match owner {
        Some(owner) if owner == partition.id => {}
        None if partition.is_root() => attach_to(iommu, &mut devices, partition, ROOT_DOMAIN, name)?,
        _ => return Err(HvStatus::OPERATION_DENIED),
    }
    work()
}

/// Takes every device from a partition that ends, and ends its domains, a piece a call.
pub fn release_all(partition: &Partition) -> Result<Progress, HvStatus> {
    let Some(iommu) = super::get() else {
        return Ok(Progress::Done);
    };
    let mut devices = DEVICES.lock();
    for device in devices.iter_mut() {
        if device.owner == partition.id && (device.domain.is_some() || device.silenced) {
            with_frames(|frames| leave(iommu, device, Context::Blocked, frames))?;
            (device.owner, device.faults, device.silenced) = (ROOT_ID, 0, false);
        }
    }
    match domain::of(partition.id).next() {
        None => Ok(Progress::Done),
        Some(number) => device_memory::delete(partition, number).map(|_| Progress::Again),
    }
}

/// Counts a refused access of a device. Returns whether it was silenced for it.
pub(super) fn count_fault(iommu: &Iommu, name: DeviceName) -> bool {
    let mut devices = DEVICES.lock();
    let Some(device) = entry(&mut devices, name) else {
        return false;
    };
    device.faults = device.faults.saturating_add(1);
    if device.faults < MOST_FAULTS || device.silenced {
        return false;
    }
    let silenced = with_frames(|frames| leave(iommu, device, Context::Silenced, frames));
    device.silenced = silenced.is_ok();
    device.silenced
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHILD_DOMAIN: u16 = 5;

    fn device(domain: Option<u16>, has_reserved_memory: bool) -> Device {
        Device {
            name: DeviceName {
                segment: 0,
                rid: 0x0018,
            },
            owner: ROOT_ID,
            domain,
            has_reserved_memory,
            faults: 0,
            silenced: false,
        }
    }

    #[test]
    fn a_device_enters_one_domain_at_a_time() {
        let free = device(None, false);
        assert_eq!(free.may_enter(ROOT_DOMAIN), Ok(true));
        assert_eq!(free.may_enter(CHILD_DOMAIN), Ok(true));
        let roots = device(Some(ROOT_DOMAIN), false);
        assert_eq!(roots.may_enter(ROOT_DOMAIN), Ok(false));
        assert_eq!(roots.may_enter(CHILD_DOMAIN), Err(HvStatus::INVALID_DEVICE_STATE));
        assert_eq!(roots.may_leave(), Ok(()));
    }

    #[test]
    fn a_device_that_firmware_has_reserved_memory_for_stays_the_roots() {
        let reserved = device(Some(ROOT_DOMAIN), true);
        assert_eq!(reserved.may_leave(), Err(HvStatus::OPERATION_DENIED));
        assert_eq!(reserved.may_enter(CHILD_DOMAIN), Err(HvStatus::OPERATION_DENIED));
        // Not even after it has been silenced, which takes it out of its domain.
        let silenced = device(None, true);
        assert_eq!(silenced.may_enter(CHILD_DOMAIN), Err(HvStatus::OPERATION_DENIED));
        assert_eq!(silenced.may_enter(ROOT_DOMAIN), Ok(true));
    }
}
