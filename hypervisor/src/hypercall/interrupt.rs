//! Calls about device interrupts.

use super::{named_child, named_partition};
use crate::device_interrupt::{self, Pin, Request};
use crate::partition::shared::VpSlot;
use crate::partition::virtual_apic;
use crate::partition::vp::Vp;
use hypercall_api::flush::{SendIpi, SendIpiEx, VpSet};
use hypercall_api::id::VpIndex;
use hypercall_api::interrupt::{
    AssertVirtualInterrupt, ClearVirtualInterrupt, Device, InterruptEntry, InterruptType, MapDeviceInterrupt,
    MappedDeviceInterrupt, RetargetDeviceInterrupt, TRIGGER_EDGE, TRIGGER_LEVEL, UnmapDeviceInterrupt,
};
use hypercall_api::status::HvStatus;

/// `HvCallAssertVirtualInterrupt`.
pub(super) fn assert(vp: &mut Vp, input: &AssertVirtualInterrupt) -> Result<(), HvStatus> {
    let child = named_child(vp, input.partition)?;
    let vector = u8::try_from(input.vector).map_err(|_| HvStatus::INVALID_PARAMETER)?;
    let logical = input.flags & AssertVirtualInterrupt::LOGICAL_DESTINATION != 0;
    let destination = u32::try_from(input.destination).map_err(|_| HvStatus::INVALID_PARAMETER)?;
    let targets = |id: u32| match logical {
        true => virtual_apic::logical_match(destination, id),
        false => destination == id || destination == u32::MAX,
    };
    let mut slots = child.vps().filter(|slot| targets(slot.shared.apic_id)).peekable();
    if slots.peek().is_none() {
        return Err(HvStatus::INVALID_VP_INDEX);
    }
    let is_level = input.flags & AssertVirtualInterrupt::LEVEL_TRIGGERED != 0;
    let request = |slot: &VpSlot| {
        slot.shared.set_level(vector, is_level);
        slot.shared.request_interrupt(vector);
    };
    match input.interrupt_type {
        InterruptType::FIXED if vector >= 16 => slots.for_each(request),
        InterruptType::LOWEST_PRIORITY if vector >= 16 => slots.take(1).for_each(request),

        InterruptType::NMI => slots.for_each(|slot| slot.shared.request_nmi()),
        _ => return Err(HvStatus::INVALID_PARAMETER),
    }
    Ok(())
}

/// `HvCallClearVirtualInterrupt`: clears a pending interrupt of the kind that a PIC raises. None can be asserted, so none is
/// ever pending.
pub(super) fn clear(vp: &mut Vp, input: &ClearVirtualInterrupt) -> Result<(), HvStatus> {
    named_child(vp, input.partition).map(|_| ())
}

/// `HvCallSendSyntheticClusterIpi`.
pub(super) fn send_ipi(vp: &mut Vp, input: &SendIpi) -> Result<(), HvStatus> {
    let vector = ipi_vector(input.vector, input.reserved)?;
    let wanted = || {
        (0..64)
            .filter(|index| input.processor_mask & 1 << index != 0)
            .map(VpIndex)
    };
    if wanted().any(|index| vp.partition.vp(index).is_none()) {
        return Err(HvStatus::INVALID_VP_INDEX);
    }
    let slots = wanted().filter_map(|index| vp.partition.vp(index));
    slots.for_each(|slot| slot.shared.request_interrupt(vector));
    Ok(())
}

/// `HvCallSendSyntheticClusterIpiEx`.
pub(super) fn send_ipi_ex(vp: &mut Vp, input: &SendIpiEx, banks: &[u8]) -> Result<(), HvStatus> {
    let vector = ipi_vector(input.vector, input.reserved)?;
    let all = match input.set_format {
        VpSet::ALL => true,
        VpSet::SPARSE => false,
        _ => return Err(HvStatus::INVALID_PARAMETER),
    };
    if !all && banks.len() != input.valid_banks.count_ones() as usize * 8 {
        return Err(HvStatus::INVALID_HYPERCALL_INPUT);
    }
    let bank_of = |index: u32| {
        let bank = index / 64;
        let before = (input.valid_banks & ((1u64 << bank) - 1)).count_ones() as usize;
        let word = banks
            .get(before * 8..before * 8 + 8)
            .and_then(|bytes| bytes.try_into().ok());
        if input.valid_banks & 1 << bank != 0 {
            word.map_or(0, u64::from_le_bytes)
        } else {
            0
        }
    };
    for slot in vp.partition.vps() {
        let index = slot.shared.index.0;
        if all || bank_of(index) & 1 << (index % 64) != 0 {
            slot.shared.request_interrupt(vector);
        }
    }
    Ok(())
}

fn ipi_vector(vector: u32, reserved: u32) -> Result<u8, HvStatus> {
    let vector = u8::try_from(vector)
        .ok()
        .filter(|&vector| vector >= 16 && reserved == 0);
    vector.ok_or(HvStatus::INVALID_PARAMETER)
}

/// `HvCallMapDeviceInterrupt`.
pub(super) fn map(vp: &mut Vp, input: &MapDeviceInterrupt) -> Result<MappedDeviceInterrupt, HvStatus> {
    let partition = named_partition(vp, input.partition)?;
    let device = input.device.device().ok_or(HvStatus::INVALID_PARAMETER)?;
    let pin = match (device, input.entry.source) {
        (Device::Pci { .. }, InterruptEntry::MSI) => None,
        (Device::IoApic(io_apic), InterruptEntry::IO_APIC) if partition.is_root() => Some(Pin {
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
        partition,
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
    let partition = named_partition(vp, input.partition)?;
    let device = input.device.device().ok_or(HvStatus::INVALID_PARAMETER)?;
    device_interrupt::unmap(partition, device, input.entry)
}

/// `HvCallRetargetDeviceInterrupt`.
pub(super) fn retarget(vp: &mut Vp, input: &RetargetDeviceInterrupt) -> Result<(), HvStatus> {
    let partition = named_partition(vp, input.partition)?;
    let device = input.device.device().ok_or(HvStatus::INVALID_PARAMETER)?;
    let vector = ipi_vector(input.vector, input.target_flags)?;
    if input.reserved != 0 || input.vp_mask == 0 {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let target = VpIndex(input.vp_mask.trailing_zeros());
    device_interrupt::retarget(partition, device, input.entry, target, vector)
}
