//! Ids of partitions and VPs that are not there, or not the caller's children.
#![allow(unsafe_code)]

use super::port::{CONNECTION, PORT, connect};
use super::{TYPE, VP};
use crate::hypervisor::hypercalls;
use crate::selftest::report::Report;
use hypercall_api::access::TranslateFlags;
use hypercall_api::address::{Gpa, Gpfn, Gva};
use hypercall_api::call::{Hypercalls, PartitionCalls, VpCalls};
use hypercall_api::cpuid::{CpuidLeaf, CpuidValues};
use hypercall_api::id::{PartitionId, VpIndex};
use hypercall_api::intercept::{AccessMask, InterceptType};
use hypercall_api::interrupt::AssertVirtualInterrupt;
use hypercall_api::memory::MapGpaFlags;
use hypercall_api::message::Message;
use hypercall_api::partition::PartitionProperty;
use hypercall_api::port::{PortInfo, PortType};
use hypercall_api::register::RegisterName;
use hypercall_api::state::VpStatePage;
use hypercall_api::status::HvStatus;
use zerocopy::FromZeros;

/// An id that no partition has had.
const NOBODY: PartitionId = PartitionId(0x7fff_0000_0123);

/// Everything that names a partition and a VP of it, with other parameters that are right.
type Make = fn(PartitionId, VpIndex) -> Result<(), HvStatus>;

/// Calls about a VP.
const VP_CALLS: &[(&str, Make)] = &[
    ("HvCallDeleteVp", |id, vp| hypercalls().delete_vp(id, vp)),
    ("HvCallGetVpRegisters", |id, vp| {
        hypercalls().get_vp_register(id, vp, RegisterName::RIP).map(drop)
    }),
    ("HvCallSetVpRegisters", |id, vp| {
        hypercalls().set_vp_register(id, vp, RegisterName::RAX, 1u64)
    }),
    ("HvCallTranslateVirtualAddress", |id, vp| {
        hypercalls()
            .translate(id, vp, TranslateFlags::empty(), Gva(0))
            .map(drop)
    }),
    ("HvCallReadGpa", |id, vp| {
        hypercalls().read_gpa(id, vp, Gpa(0), &mut [0]).map(drop)
    }),
    ("HvCallWriteGpa", |id, vp| {
        hypercalls().write_gpa(id, vp, Gpa(0), &[0]).map(drop)
    }),
    ("HvCallMapVpStatePage", |id, vp| {
        hypercalls()
            .map_vp_state_page(id, vp, VpStatePage::INTERCEPT_MESSAGE)
            .map(drop)
    }),
    // SAFETY: the call fails, or nothing has used the page.
    ("HvCallUnmapVpStatePage", |id, vp| unsafe {
        hypercalls().unmap_vp_state_page(id, vp, VpStatePage::INTERCEPT_MESSAGE)
    }),
    ("HvCallGetVpState", |id, vp| {
        hypercalls().vp_timers(id, vp).map(drop)
    }),
    ("HvCallSetVpState", |id, vp| {
        hypercalls().set_vp_timers(id, vp, &FromZeros::new_zeroed())
    }),
    ("HvCallGetVpCpuidValues", |id, vp| {
        let leaf = CpuidLeaf {
            eax: 0,
            ecx: 0,
            xfem: 0,
            xss: 0,
        };
        Ok(hypercalls().vp_cpuid_values(id, vp, 0, &[leaf], &mut [CpuidValues::new_zeroed()])?)
    }),
    ("HvCallPostMessageDirect", |id, vp| {
        hypercalls().post_message_direct(id, vp, 3, &Message::new(TYPE, 0, &[]))
    }),
    ("HvCallSignalEventDirect", |id, vp| {
        hypercalls().signal_event_direct(id, vp, 3, 0).map(drop)
    }),
    ("HvCallMapStatsPage", |id, vp| {
        hypercalls().map_vp_stats(id, vp).map(drop)
    }),
];

/// Calls about a child alone.
const CHILD_CALLS: &[(&str, Make)] = &[
    ("HvCallInitializePartition", |id, _| {
        hypercalls().initialize_partition(id)
    }),
    ("HvCallFinalizePartition", |id, _| {
        hypercalls().finalize_partition(id)
    }),
    ("HvCallDeletePartition", |id, _| hypercalls().delete_partition(id)),
    ("HvCallCreateVp", |id, vp| hypercalls().create_vp(id, vp)),
    ("HvCallMapGpaPages", |id, _| {
        // SAFETY: the call is refused for its partition.
        Ok(unsafe { hypercalls().map_gpa_pages(id, Gpfn(0), MapGpaFlags::RAM, &[Gpfn(0)]) }?)
    }),
    ("HvCallUnmapGpaPages", |id, _| {
        Ok(hypercalls().unmap_gpa_pages(id, Gpfn(0), false, 1)?)
    }),
    ("HvCallInstallIntercept", |id, _| {
        hypercalls().install_intercept(id, InterceptType::EXCEPTION, AccessMask::EXECUTE, 3)
    }),
    ("HvCallAssertVirtualInterrupt", |id, _| {
        hypercalls().assert_virtual_interrupt(&AssertVirtualInterrupt::edge(id, 0, 0x40))
    }),
    ("HvCallClearVirtualInterrupt", |id, _| {
        hypercalls().clear_virtual_interrupt(id)
    }),
];

/// Calls about any partition.
const CALLS: &[(&str, Make)] = &[
    ("HvCallGetPartitionProperty", |id, _| {
        hypercalls()
            .partition_property(id, PartitionProperty::CPU_WEIGHT)
            .map(drop)
    }),
    ("HvCallSetPartitionProperty", |id, _| {
        hypercalls().set_partition_property(id, PartitionProperty::CPU_WEIGHT, 100)
    }),
    ("HvCallGetMemoryBalance", |id, _| {
        hypercalls().memory_balance(id).map(drop)
    }),
    ("HvCallWithdrawMemory", |id, _| {
        hypercalls().withdraw_memory(id, &mut [Gpfn(0)]).map(drop)
    }),
    ("HvCallDepositMemory", |id, _| {
        // SAFETY: the call is refused for its partition.
        Ok(unsafe { hypercalls().deposit_memory(id, &[Gpfn(0)]) }?)
    }),
    ("HvCallCreatePort", |id, _| {
        hypercalls().create_port(id, PORT, PartitionId::SELF, PortInfo::message(3, VP))
    }),
    ("HvCallCreatePort (connector)", |id, _| {
        hypercalls().create_port(PartitionId::SELF, PORT, id, PortInfo::message(3, VP))
    }),
    ("HvCallDeletePort", |id, _| hypercalls().delete_port(id, PORT)),
    ("HvCallConnectPort", |id, _| {
        connect(PartitionId::SELF, CONNECTION, id, PORT, PortType::MESSAGE)
    }),
    ("HvCallConnectPort (connector)", |id, _| {
        connect(id, CONNECTION, PartitionId::SELF, PORT, PortType::MESSAGE)
    }),
    ("HvCallDisconnectPort", |id, _| {
        hypercalls().disconnect_port(id, CONNECTION)
    }),
];

fn all() -> impl Iterator<Item = &'static (&'static str, Make)> {
    CALLS.iter().chain(CHILD_CALLS).chain(VP_CALLS)
}

/// A partition that is no more.
pub(super) fn stale_partition(report: &mut Report, child: PartitionId) {
    for (call, make) in all() {
        report.refuses(
            call,
            "a stale partition id is refused",
            make(child, VP),
            HvStatus::INVALID_PARTITION_ID,
        );
    }
}

/// Partitions that have never been, and the caller itself.
pub(super) fn partitions(report: &mut Report) {
    for (rule, id) in [
        ("a partition id that nobody has had is refused", NOBODY),
        ("partition id 0 is refused", PartitionId::INVALID),
    ] {
        for (call, make) in all() {
            report.refuses(call, rule, make(id, VP), HvStatus::INVALID_PARTITION_ID);
        }
    }
    // What is about children does nothing to the root. Its statistics pages are its own to map.
    let about_children = CHILD_CALLS
        .iter()
        .chain(VP_CALLS)
        .filter(|(call, _)| *call != "HvCallMapStatsPage");
    for (call, make) in about_children {
        let done = make(PartitionId::SELF, VP);
        report.refuses(
            call,
            "the caller itself is no child",
            done,
            HvStatus::INVALID_PARTITION_ID,
        );
    }
}

/// VPs that are not there.
pub(super) fn vps(report: &mut Report, child: PartitionId) {
    for index in [1, 511, 512, 0x7fff_ffff, u32::MAX] {
        for (call, make) in VP_CALLS {
            let rule = format_args!("VP index {index:#x}, which is not there, is refused");
            report.refuses(
                call,
                rule,
                make(child, VpIndex(index)),
                HvStatus::INVALID_VP_INDEX,
            );
        }
    }
    let calls = hypercalls();
    let taken = calls.create_vp(child, VP);
    report.refuses(
        "HvCallCreateVp",
        "an index in use is refused",
        taken,
        HvStatus::INVALID_VP_STATE,
    );
    let beyond = calls.create_vp(child, VpIndex(512));
    report.refuses(
        "HvCallCreateVp",
        "an index past the last is refused",
        beyond,
        HvStatus::INVALID_VP_INDEX,
    );
}
