//! Calls that get and set a VP's registers, and what its CPUID says.

use super::named_child;
use crate::cpuid;
use crate::partition::registers;
use crate::partition::shared::VpSlot;
use crate::partition::vp::Vp;
use hypercall_api::cpuid::{CpuidLeaf, CpuidValues, GetVpCpuidValues};
use hypercall_api::intercept::{InterceptType, RegisterCpuidResult};
use hypercall_api::register::{RegisterAssociation, RegisterName, RegisterValue, VpRegisters};
use hypercall_api::status::HvStatus;

fn target(vp: &Vp, input: &VpRegisters) -> Result<&'static VpSlot, HvStatus> {
    if input.target_vtl & !0x10 != 0 || input.reserved != [0; 3] {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    named_child(vp, input.partition)?
        .vp(input.vp)
        .ok_or(HvStatus::INVALID_VP_INDEX)
}

/// `HvCallGetVpRegisters`.
pub(super) fn get(
    vp: &mut Vp,
    input: &VpRegisters,
    name: &RegisterName,
    _: u16,
) -> Result<RegisterValue, HvStatus> {
    let guard = target(vp, input)?.stop_and_lock();
    registers::get(guard.as_ref().ok_or(HvStatus::INVALID_VP_STATE)?, *name)
}

/// `HvCallSetVpRegisters`.
pub(super) fn set(
    vp: &mut Vp,
    input: &VpRegisters,
    associations: &[RegisterAssociation],
) -> (u16, Result<(), HvStatus>) {
    let mut guard = match target(vp, input) {
        Ok(slot) => slot.stop_and_lock(),
        Err(status) => return (0, Err(status)),
    };
    let Some(target) = guard.as_mut() else {
        return (0, Err(HvStatus::INVALID_VP_STATE));
    };
    for (done, association) in (0..).zip(associations) {
        if let Err(status) = registers::set(target, association.name, association.value) {
            return (done, Err(status));
        }
    }
    (associations.len() as u16, Ok(()))
}

/// `HvCallRegisterInterceptResult`, for CPUID.
pub(super) fn register_cpuid(vp: &mut Vp, input: &RegisterCpuidResult) -> Result<(), HvStatus> {
    if input.intercept != InterceptType::CPUID || input.padding != 0 {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let child = named_child(vp, input.partition)?;
    child.cpuid.lock().set(input, &mut *child.pool.lock())
}

/// `HvCallGetVpCpuidValues`: what CPUID says to the VP now.
pub(super) fn cpuid_values(
    vp: &mut Vp,
    input: &GetVpCpuidValues,
    leaf: &CpuidLeaf,
    _: u16,
) -> Result<CpuidValues, HvStatus> {
    let slot = named_child(vp, input.partition)?
        .vp(input.vp)
        .ok_or(HvStatus::INVALID_VP_INDEX)?;
    let guard = slot.stop_and_lock();
    let target = guard.as_ref().ok_or(HvStatus::INVALID_VP_STATE)?;
    let values = cpuid::values(target, leaf.eax, leaf.ecx);
    Ok(CpuidValues {
        eax: values.eax,
        ebx: values.ebx,
        ecx: values.ecx,
        edx: values.edx,
    })
}
