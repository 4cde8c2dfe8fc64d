//! Calls that get and set a VP's registers.

use super::named_child;
use crate::partition::registers;
use crate::partition::shared::VpSlot;
use crate::partition::vp::Vp;
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
    association: &RegisterAssociation,
    _: u16,
) -> Result<(), HvStatus> {
    let mut guard = target(vp, input)?.stop_and_lock();
    let target = guard.as_mut().ok_or(HvStatus::INVALID_VP_STATE)?;
    registers::set(target, association.name, association.value)
}
