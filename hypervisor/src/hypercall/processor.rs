//! Calls about processors.

use super::{named_child, named_partition};
use crate::memory::address::Frame;
use crate::partition::lifecycle::{self, Progress};
use crate::partition::vp::Vp;
use crate::platform::clock;
use crate::platform::registers::tsc;
use crate::processor::local::Processor;
use core::sync::atomic::Ordering;
use hypercall_api::processor::{
    CreateVp, DeleteVp, GetLogicalProcessorRunTime, GetVpIndexFromApicId, InitialVpContext,
    LogicalProcessorRunTime, StartVirtualProcessor,
};
use hypercall_api::state::{MapVpStatePage, VpStatePage};
use hypercall_api::status::HvStatus;

/// `HvCallGetLogicalProcessorRunTime`.
pub(super) fn run_time(
    _: &mut Vp,
    input: &GetLogicalProcessorRunTime,
) -> Result<LogicalProcessorRunTime, HvStatus> {
    let processor = Processor::get(input.lp).ok_or(HvStatus::INVALID_LP_INDEX)?;
    let global = crate::log::ticks_since_start(tsc());
    let idle = processor.idle_ticks.load(Ordering::Relaxed);
    Ok(LogicalProcessorRunTime {
        global_time: clock::reference_units(global),
        local_run_time: clock::reference_units(global.saturating_sub(idle)),
        reserved: 0,
        hypervisor_time: 0,
    })
}

/// `HvCallNotifyLongSpinWait`: the caller waits for somebody who may need its processor.
pub(super) fn long_spin_wait(vp: &mut Vp, _: &u64) -> Result<(), HvStatus> {
    // Its turn ends: the processor looks for another VP to run.
    vp.shared.poke();
    Ok(())
}

/// `HvCallCreateVp`.
pub(super) fn create(vp: &mut Vp, input: &CreateVp) -> Result<(), HvStatus> {
    lifecycle::create_vp(named_child(vp, input.partition)?, input.vp)
}

/// `HvCallDeleteVp`.
pub(super) fn delete(vp: &mut Vp, input: &DeleteVp) -> Result<Progress, HvStatus> {
    let child = named_child(vp, input.partition)?;
    lifecycle::delete_vp(child, child.vp(input.vp).ok_or(HvStatus::INVALID_VP_INDEX)?)
}

/// `HvCallMapVpStatePage`: where the parent reads the VP's intercept messages. The page is readable from the VP's creation.
pub(super) fn map_state_page(vp: &mut Vp, input: &MapVpStatePage) -> Result<u64, HvStatus> {
    if input.page != VpStatePage::INTERCEPT_MESSAGE {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let slot = named_child(vp, input.partition)?
        .vp(input.vp)
        .ok_or(HvStatus::INVALID_VP_INDEX)?;
    slot.shared
        .intercept_page
        .map(Frame::number)
        .ok_or(HvStatus::INVALID_VP_STATE)
}

/// `HvCallUnmapVpStatePage`: the page stays readable until the VP is deleted, so there is nothing to undo.
pub(super) fn unmap_state_page(vp: &mut Vp, input: &MapVpStatePage) -> Result<(), HvStatus> {
    map_state_page(vp, input).map(|_| ())
}

/// `HvCallStartVirtualProcessor`.
pub(super) fn start(vp: &mut Vp, input: &StartVirtualProcessor) -> Result<(), HvStatus> {
    let partition = named_partition(vp, input.partition)?;
    if input.target_vtl != 0 || input.reserved != [0; 3] {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let target = partition.vp(input.vp).ok_or(HvStatus::INVALID_VP_INDEX)?;
    if !is_valid(&input.context) {
        return Err(HvStatus::INVALID_REGISTER_VALUE);
    }
    if target.shared.start(input.context) {
        Ok(())
    } else {
        Err(HvStatus::INVALID_VP_STATE)
    }
}

/// Whether a processor could be in this state: what VMRUN itself would refuse is refused here (APM 2, 15.5.1).
fn is_valid(context: &InitialVpContext) -> bool {
    const PE: u64 = 1;
    const CD: u64 = 1 << 30;
    const NW: u64 = 1 << 29;
    const PG: u64 = 1 << 31;
    const PAE: u64 = 1 << 5;
    const LME: u64 = 1 << 8;
    const EFER_VALID: u64 = 0xcd01;
    let long = context.efer & LME != 0 && context.cr0 & PG != 0;
    context.cr0 >> 32 == 0
        && (context.cr0 & NW == 0 || context.cr0 & CD != 0)
        && (context.cr0 & PG == 0 || context.cr0 & PE != 0)
        && context.cr4 >> 32 == 0
        && context.efer & !EFER_VALID == 0
        && (!long || context.cr4 & PAE != 0)
        && !(long && context.cs.attributes & 1 << 13 != 0 && context.cs.attributes & 1 << 14 != 0)
        && context
            .pat
            .to_le_bytes()
            .iter()
            .all(|entry| matches!(entry, 0 | 1 | 4..=7))
}

/// `HvCallGetVpIndexFromApicId`: an element is an APIC id.
pub(super) fn index_from_apic_id(
    vp: &mut Vp,
    input: &GetVpIndexFromApicId,
    apic_id: &u32,
    _: u16,
) -> Result<u32, HvStatus> {
    let partition = named_partition(vp, input.partition)?;
    let slot = partition
        .vp_by_apic_id(*apic_id)
        .ok_or(HvStatus::INVALID_PARAMETER)?;
    Ok(slot.shared.index.0)
}
