//! Calls about processors.

use super::own_partition;
use crate::partition::vp::Vp;
use crate::platform::clock;
use crate::platform::registers::tsc;
use crate::processor::local::Processor;
use core::sync::atomic::Ordering;
use hypercall_api::processor::{
    GetLogicalProcessorRunTime, InitialVpContext, LogicalProcessorRunTime, StartVirtualProcessor,
};
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

/// `HvCallStartVirtualProcessor`.
pub(super) fn start(vp: &mut Vp, input: &StartVirtualProcessor) -> Result<(), HvStatus> {
    own_partition(vp, input.partition)?;
    if input.target_vtl != 0 || input.reserved != [0; 3] {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let target = vp.partition.vp(input.vp).ok_or(HvStatus::INVALID_VP_INDEX)?;
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
