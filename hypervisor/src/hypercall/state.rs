//! Calls that save and restore a VP's state.

use super::named_child;
use crate::partition::shared::VpSlot;
use crate::partition::state;
use crate::partition::synic::Synic;
use crate::partition::vp::Vp;
use hypercall_api::address::{Gpa, Gpfn};
use hypercall_api::state::{SyntheticTimersState, VpState, VpStateType};
use hypercall_api::status::HvStatus;
use zerocopy::{FromBytes, IntoBytes};

fn target(vp: &Vp, input: &VpState) -> Result<&'static VpSlot, HvStatus> {
    if input.input_vtl != 0 || input.reserved != [0; 3] || input.padding != 0 || input.xsave_flags != 0 {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    named_child(vp, input.partition)?
        .vp(input.vp)
        .ok_or(HvStatus::INVALID_VP_INDEX)
}

/// The one page of the caller's that a state fills.
fn page_of(list: &[u8]) -> Result<Gpa, HvStatus> {
    let page = u64::read_from_bytes(list).map_err(|_| HvStatus::INVALID_HYPERCALL_INPUT)?;
    Gpfn(page).base().ok_or(HvStatus::INVALID_PARAMETER)
}

/// Bytes of output of `HvCallGetVpState` for its input.
pub(super) fn output_size(input: &[u8]) -> usize {
    match VpState::read_from_prefix(input) {
        Ok((input, _)) if input.state == VpStateType::SYNTHETIC_TIMERS => size_of::<SyntheticTimersState>(),
        _ => 0,
    }
}

/// `HvCallGetVpState`.
pub(super) fn get(vp: &mut Vp, input: &[u8], output: &mut [u8]) -> Result<(), HvStatus> {
    let (header, list) = VpState::read_from_prefix(input).map_err(|_| HvStatus::INVALID_HYPERCALL_INPUT)?;
    let mut guard = target(vp, &header)?.stop_and_lock();
    let target = guard.as_mut().ok_or(HvStatus::INVALID_VP_STATE)?;
    if header.state == VpStateType::SYNTHETIC_TIMERS {
        output.copy_from_slice(target.synic.state().as_bytes());
        return Ok(());
    }
    let gpa = page_of(list)?;
    let mut page = [0; 4096];
    state::get(target, header.state, &mut page)?;
    vp.partition
        .write(gpa, &page)
        .map_err(|_| HvStatus::INVALID_PARAMETER)
}

/// `HvCallSetVpState`.
pub(super) fn set(vp: &mut Vp, input: &[u8], _: &mut [u8]) -> Result<(), HvStatus> {
    let (header, list) = VpState::read_from_prefix(input).map_err(|_| HvStatus::INVALID_HYPERCALL_INPUT)?;
    let mut guard = target(vp, &header)?.stop_and_lock();
    let target = guard.as_mut().ok_or(HvStatus::INVALID_VP_STATE)?;
    if header.state == VpStateType::SYNTHETIC_TIMERS {
        let timers =
            SyntheticTimersState::read_from_bytes(list).map_err(|_| HvStatus::INVALID_HYPERCALL_INPUT)?;
        return Synic::set_state(target, &timers);
    }
    let gpa = page_of(list)?;
    let mut page = [0; 4096];
    vp.partition
        .read(gpa, &mut page)
        .map_err(|_| HvStatus::INVALID_PARAMETER)?;
    state::set(target, header.state, &page)
}
