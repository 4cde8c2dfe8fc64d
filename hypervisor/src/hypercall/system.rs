//! Calls about the machine as a whole.

use super::named_partition;
use crate::partition::vp::Vp;
use crate::power;
use hypercall_api::id::VpIndex;
use hypercall_api::status::HvStatus;
use hypercall_api::system::{
    EnterSleepState, GetSystemProperty, MappedStatsPage, PROPERTY_SCHEDULER_TYPE, PROPERTY_SLEEP_STATE,
    SCHEDULER_TYPE_LP, SLEEP_STATE_S5, SetSleepState, StatsObject, VpStatsPage,
};

/// `HvCallMapStatsPage`: the root's view of a VP's counters. The page is the hypervisor's and is readable by the root at
/// its own address from the VP's creation.
pub(super) fn map_stats_page(vp: &mut Vp, input: &VpStatsPage) -> Result<MappedStatsPage, HvStatus> {
    if input.object != StatsObject::VP || input.reserved != 0 || input.flags != 0 {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let partition = named_partition(vp, input.partition)?;
    let index = if input.vp == VpIndex::SELF {
        vp.shared.index
    } else {
        input.vp
    };
    let target = partition.vp(index).ok_or(HvStatus::INVALID_VP_INDEX)?;
    Ok(MappedStatsPage {
        page: target.shared.statistics.page().number(),
    })
}

/// `HvCallUnmapStatsPage`: the page stays readable, so there is nothing to undo.
pub(super) fn unmap_stats_page(vp: &mut Vp, input: &VpStatsPage) -> Result<(), HvStatus> {
    map_stats_page(vp, input).map(|_| ())
}

/// `HvCallSetSystemProperty`.
pub(super) fn set_property(_: &mut Vp, input: &SetSleepState) -> Result<(), HvStatus> {
    if input.property != PROPERTY_SLEEP_STATE {
        return Err(HvStatus::UNKNOWN_PROPERTY);
    }
    let known = input.reserved == 0 && input.sleep_state == SLEEP_STATE_S5;
    if known && power::set_off_types(input.pm1a_slp_typ, input.pm1b_slp_typ) {
        Ok(())
    } else {
        Err(HvStatus::INVALID_PARAMETER)
    }
}

/// `HvCallGetSystemProperty`.
pub(super) fn get_property(_: &mut Vp, input: &GetSystemProperty) -> Result<u64, HvStatus> {
    match input.property {
        PROPERTY_SCHEDULER_TYPE => Ok(SCHEDULER_TYPE_LP),
        _ => Err(HvStatus::UNKNOWN_PROPERTY),
    }
}

/// `HvCallEnterSleepState`.
pub(super) fn enter_sleep_state(_: &mut Vp, input: &EnterSleepState) -> Result<(), HvStatus> {
    if input.sleep_state != SLEEP_STATE_S5 {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    power::off();
    Err(HvStatus::OPERATION_FAILED)
}
