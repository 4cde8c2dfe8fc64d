//! The order of a partition's life.

use super::VP;
use crate::hypervisor::hypercalls;
use crate::selftest::report::{Report, text};
use crate::vm::host::Host;
use crate::vm::pool::{self, with_deposits};
use crate::vm::root_host::RootHost;
use alloc::string::String;
use hypercall_api::call::{PartitionCalls, VpCalls};
use hypercall_api::id::{PartitionId, VpIndex};
use hypercall_api::register::RegisterName;
use hypercall_api::status::HvStatus;

/// Makes a child.
pub(in crate::selftest) fn create() -> Result<PartitionId, String> {
    with_deposits(&RootHost, PartitionId::SELF, || RootHost.create_partition()).map_err(text)
}

/// The order of a partition's life.
pub(super) fn states(report: &mut Report, child: PartitionId) -> Result<(), String> {
    let calls = hypercalls();
    let state = HvStatus::INVALID_PARTITION_STATE;
    let early = calls.create_vp(child, VP);
    report.refuses(
        "HvCallCreateVp",
        "before the partition is initialized, it is refused",
        early,
        state,
    );
    with_deposits(&RootHost, child, || calls.initialize_partition(child)).map_err(text)?;
    let again = calls.initialize_partition(child);
    report.refuses(
        "HvCallInitializePartition",
        "a second time is refused",
        again,
        state,
    );
    let active = calls.delete_partition(child);
    report.refuses(
        "HvCallDeletePartition",
        "an active partition is refused",
        active,
        state,
    );

    // Without memory nothing is half done.
    pool::drain(&RootHost, child).map_err(text)?;
    let balance = || {
        calls
            .memory_balance(child)
            .map(|balance| (balance.in_use, balance.available))
    };
    let before = balance();
    let short = calls.create_vp(child, VP);
    report.refuses(
        "HvCallCreateVp",
        "without memory it says so",
        short,
        HvStatus::INSUFFICIENT_MEMORY,
    );
    report.equal("HvCallCreateVp", "and has taken none", balance(), before);
    let missing = calls.get_vp_register(child, VP, RegisterName::RIP);
    report.refuses(
        "HvCallCreateVp",
        "and has made no VP",
        missing,
        HvStatus::INVALID_VP_INDEX,
    );
    with_deposits(&RootHost, child, || calls.create_vp(child, VP)).map_err(text)
}

/// Ends a child, whatever state it is in.
pub(in crate::selftest) fn end(report: &mut Report, child: PartitionId) -> Result<(), String> {
    let calls = hypercalls();
    calls.finalize_partition(child).map_err(text)?;
    let late = calls.create_vp(child, VpIndex(1));
    let state = HvStatus::INVALID_PARTITION_STATE;
    report.refuses(
        "HvCallCreateVp",
        "of a finalized partition is refused",
        late,
        state,
    );
    if calls.memory_balance(child).map_err(text)?.available != 0 {
        let early = calls.delete_partition(child);
        let denied = HvStatus::OPERATION_DENIED;
        report.refuses(
            "HvCallDeletePartition",
            "with memory in its pool it is refused",
            early,
            denied,
        );
    }
    pool::drain(&RootHost, child).map_err(text)?;
    calls.delete_partition(child).map_err(text)
}
