//! Calls about device interrupts.

use super::own_partition;
use crate::device_interrupt::{self, Pin, Request};
use crate::partition::vp::Vp;
use hypercall_api::id::VpIndex;
use hypercall_api::interrupt::{
    Device, InterruptEntry, MapDeviceInterrupt, MappedDeviceInterrupt, TRIGGER_EDGE, TRIGGER_LEVEL,
    UnmapDeviceInterrupt,
};
use hypercall_api::status::HvStatus;

/// `HvCallMapDeviceInterrupt`.
pub(super) fn map(vp: &mut Vp, input: &MapDeviceInterrupt) -> Result<MappedDeviceInterrupt, HvStatus> {
    own_partition(vp, input.partition)?;
    let device = input.device.device().ok_or(HvStatus::INVALID_PARAMETER)?;
    let pin = match (device, input.entry.source) {
        (Device::Pci { .. }, InterruptEntry::MSI) => None,
        (Device::IoApic(io_apic), InterruptEntry::IO_APIC) => Some(Pin {
            io_apic,
            pin: input.entry.data as u8,
        }),
        _ => return Err(HvStatus::INVALID_PARAMETER),
    };
    let plain = input.flags == 0
        && input.base_table_index == 0
        && input.interrupt_type == 0
        && input.vector_count == 1
        && input.target_flags == 0;
    let level = match input.trigger_mode {
        TRIGGER_EDGE => false,
        TRIGGER_LEVEL if pin.is_some() => true,
        _ => return Err(HvStatus::INVALID_PARAMETER),
    };
    let vector = u8::try_from(input.vector)
        .ok()
        .filter(|&vector| vector >= 16)
        .ok_or(HvStatus::INVALID_PARAMETER)?;
    if !plain || input.vp_mask == 0 {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let target = VpIndex(input.vp_mask.trailing_zeros());
    let entry = device_interrupt::map(
        vp.partition,
        &Request {
            device,
            pin,
            vp: target,
            vector,
            level,
        },
    )?;
    Ok(MappedDeviceInterrupt {
        entry,
        extended_status: [0; 5],
    })
}

/// `HvCallUnmapDeviceInterrupt`.
pub(super) fn unmap(vp: &mut Vp, input: &UnmapDeviceInterrupt) -> Result<(), HvStatus> {
    own_partition(vp, input.partition)?;
    let device = input.device.device().ok_or(HvStatus::INVALID_PARAMETER)?;
    device_interrupt::unmap(device, input.entry)
}
