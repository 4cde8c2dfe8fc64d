//! What a parent must not do to its children: wrong calls, each with the status that it must return, and what must not have
//! changed afterwards. One line a rule.
//!
//! | module | holds |
//! |---|---|
//! | [`foreign`] | ids of partitions and VPs that are not there, or not the caller's children |
//! | [`life`] | the order of a partition's life |
//! | [`memory`] | mapping, depositing, reading and writing a child's memory |
//! | [`vp`] | registers, intercepts, interrupts |
//! | [`port`] | ports, connections, messages and events |

mod foreign;
mod life;
mod memory;
mod port;
mod vp;

pub(super) use life::{create, end};

use super::Outcome;
use super::report::{Report, text};
use crate::hypervisor::hypercalls;
use crate::vm::host::{FRAME, Host};
use crate::vm::pool;
use crate::vm::root_host::RootHost;
use alloc::string::String;
use hypercall_api::call::PartitionCalls;
use hypercall_api::id::{PartitionId, VpIndex};
use hypercall_api::message::MessageType;
use hypercall_api::partition::PartitionProperty;
use hypercall_api::status::HvStatus;

const VP: VpIndex = VpIndex(0);
const TYPE: MessageType = MessageType(1);

/// Tries them on a child of its own, which is gone afterwards.
pub(super) fn parent_side() -> Outcome {
    port::use_tables()?;
    let before = balance();
    let mut report = Report::default();
    let (child, page) = (create()?, frame()?);
    let tried = on(&mut report, child, page);
    end(&mut report, child)?;
    RootHost.release(page..page + FRAME);
    tried?;
    foreign::stale_partition(&mut report, child);
    // Its place in the table goes to the next: the old id must not lead there.
    let next = create()?;
    report.equal(
        "HvCallCreatePartition",
        "an id is used once",
        next == child,
        false,
    );
    let status = hypercalls().partition_property(child, PartitionProperty::CPU_WEIGHT);
    report.refuses(
        "HvCallGetPartitionProperty",
        "a stale id does not lead to the next partition",
        status,
        HvStatus::INVALID_PARTITION_ID,
    );
    end(&mut report, next)?;
    pool::drain_own(&RootHost).map_err(text)?;
    report.equal(
        "HvCallGetMemoryBalance",
        "every page has come back",
        balance(),
        before,
    );
    report.outcome()
}

fn balance() -> Option<u64> {
    let balance = hypercalls().memory_balance(PartitionId::SELF).ok()?;
    Some(balance.in_use + balance.available)
}

fn frame() -> Result<u64, String> {
    RootHost
        .allocate_frames(1)
        .ok_or_else(|| String::from("the root has no memory left"))
}

fn on(report: &mut Report, child: PartitionId, page: u64) -> Result<(), String> {
    foreign::partitions(report);
    life::states(report, child)?;
    foreign::vps(report, child);
    memory::memory(report, child, page)?;
    vp::registers(report, child);
    vp::interrupts(report, child);
    port::ports(report, child)
}
