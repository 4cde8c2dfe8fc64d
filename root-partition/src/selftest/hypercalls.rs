//! What a parent must not do to its children: wrong calls, each with the status that it must return, and what must not have
//! changed afterwards. One line a rule.
#![allow(unsafe_code)]

use super::Outcome;
use crate::hypervisor::hypercalls;
use crate::vm::host::{FRAME, Host};
use crate::vm::pool::{self, with_deposits};
use crate::vm::root_host::RootHost;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{Debug, Display};
use hypercall_api::access::{AccessResult, TranslateFlags};
use hypercall_api::address::{Gpa, Gpfn, Gva};
use hypercall_api::call::{GuestCalls, Hypercalls, PartitionCalls, VpCalls};
use hypercall_api::cpuid::{CpuidLeaf, CpuidValues};
use hypercall_api::id::{PartitionId, VpIndex};
use hypercall_api::intercept::{AccessMask, InterceptType};
use hypercall_api::interrupt::{AssertVirtualInterrupt, InterruptType};
use hypercall_api::memory::MapGpaFlags;
use hypercall_api::message::{Message, MessageType};
use hypercall_api::partition::PartitionProperty;
use hypercall_api::port::{ConnectionId, ConnectionInfo, PortId, PortInfo, PortType};
use hypercall_api::register::RegisterName;
use hypercall_api::state::VpStatePage;
use hypercall_api::status::HvStatus;
use zerocopy::FromZeros;

/// An id that no partition has had.
const NOBODY: PartitionId = PartitionId(0x7fff_0000_0123);
const VP: VpIndex = VpIndex(0);
/// Connections of the root's that nothing else uses.
const CONNECTION: ConnectionId = ConnectionId(0xfe_0001);
const OTHER_CONNECTION: ConnectionId = ConnectionId(0xfe_0002);
/// Ports of the child's.
const PORT: PortId = PortId(0xfe_0001);
const EVENT_PORT: PortId = PortId(0xfe_0002);
const TYPE: MessageType = MessageType(1);
/// Messages that wait at a port.
const BUFFERS: usize = 16;

/// What was seen, a line a rule.
#[derive(Default)]
pub(super) struct Report {
    held: Vec<String>,
    broken: Vec<String>,
}

impl Report {
    pub(super) fn equal<T: PartialEq + Debug>(&mut self, call: &str, rule: impl Display, got: T, wanted: T) {
        match got == wanted {
            true => self.held.push(format!("{call}: {rule}")),
            false => self
                .broken
                .push(format!("{call}: {rule}: got {got:x?}, wanted {wanted:x?}")),
        }
    }

    fn refuses<T: Debug>(
        &mut self,
        call: &str,
        rule: impl Display,
        got: Result<T, HvStatus>,
        wanted: HvStatus,
    ) {
        let status = got.map_or_else(|status| status, |_| HvStatus::SUCCESS);
        self.equal(call, rule, status, wanted);
    }

    pub(super) fn outcome(self) -> Outcome {
        match self.broken.is_empty() {
            true => Ok(self.held.join("\n")),
            false => Err(self.broken.join("\n")),
        }
    }
}

/// Tries them on a child of its own, which is gone afterwards.
pub(super) fn parent_side() -> Outcome {
    use_tables()?;
    let before = balance();
    let mut report = Report::default();
    let (child, page) = (create()?, frame()?);
    let tried = on(&mut report, child, page);
    end(&mut report, child)?;
    RootHost.release(page..page + FRAME);
    tried?;
    for (call, make) in CALLS.iter().chain(CHILD_CALLS).chain(VP_CALLS) {
        report.refuses(
            call,
            "a stale partition id is refused",
            make(child, VP),
            HvStatus::INVALID_PARTITION_ID,
        );
    }
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

/// The root's tables of ports and connections keep the frames that they once had: they have had them then.
fn use_tables() -> Result<(), String> {
    let (calls, own) = (hypercalls(), PartitionId::SELF);
    let info = PortInfo::message(14, VP);
    with_deposits(&RootHost, own, || calls.create_port(own, PORT, own, info)).map_err(text)?;
    let connected = with_deposits(&RootHost, own, || {
        connect(own, CONNECTION, own, PORT, PortType::MESSAGE)
    });
    calls.delete_port(own, PORT).map_err(text)?;
    connected.map_err(text)?;
    calls.disconnect_port(own, CONNECTION).map_err(text)?;
    pool::drain_own(&RootHost).map_err(text)
}

pub(super) fn text(error: impl Display) -> String {
    error.to_string()
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

pub(super) fn create() -> Result<PartitionId, String> {
    with_deposits(&RootHost, PartitionId::SELF, || RootHost.create_partition()).map_err(text)
}

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

fn connect(
    connector: PartitionId,
    connection: ConnectionId,
    owner: PartitionId,
    port: PortId,
    port_type: PortType,
) -> Result<(), HvStatus> {
    let mut info = ConnectionInfo::new_zeroed();
    info.port_type = port_type;
    hypercalls().connect_port(connector, connection, owner, port, info)
}

fn on(report: &mut Report, child: PartitionId, page: u64) -> Result<(), String> {
    foreign_partitions(report);
    states(report, child)?;
    vps(report, child);
    memory(report, child, page)?;
    registers(report, child);
    interrupts(report, child);
    ports(report, child)
}

fn foreign_partitions(report: &mut Report) {
    let all = || CALLS.iter().chain(CHILD_CALLS).chain(VP_CALLS);
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

/// The order of a partition's life.
fn states(report: &mut Report, child: PartitionId) -> Result<(), String> {
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

fn vps(report: &mut Report, child: PartitionId) {
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

fn memory(report: &mut Report, child: PartitionId, page: u64) -> Result<(), String> {
    let calls = hypercalls();
    let invalid = HvStatus::INVALID_PARAMETER;
    let source = [Gpfn(page / FRAME)];
    let map = |target, flags, source: &[Gpfn]| -> Result<(), HvStatus> {
        // SAFETY: the page is this test's.
        Ok(unsafe { calls.map_gpa_pages(child, target, flags, source) }?)
    };
    with_deposits(&RootHost, child, || map(Gpfn(16), MapGpaFlags::RAM, &source)).map_err(text)?;
    let name = "HvCallMapGpaPages";
    let twice = map(Gpfn(16), MapGpaFlags::RAM, &source);
    report.refuses(
        name,
        "what is mapped already is refused",
        twice,
        HvStatus::OPERATION_DENIED,
    );
    let reserved = map(Gpfn(17), MapGpaFlags::from_bits_retain(1 << 30), &source);
    report.refuses(name, "a reserved flag is refused", reserved, invalid);
    let beyond = map(Gpfn(u64::MAX / 4096), MapGpaFlags::RAM, &source);
    report.refuses(name, "a page past the last is refused", beyond, invalid);
    let large = map(Gpfn(513), MapGpaFlags::RAM | MapGpaFlags::LARGE_PAGE, &source);
    report.refuses(
        name,
        "a large page at a small one's place is refused",
        large,
        invalid,
    );
    let hypervisor = map(
        Gpfn(17),
        MapGpaFlags::RAM,
        &[Gpfn(super::refused::HYPERVISOR_IMAGE / FRAME)],
    );
    report.equal(
        name,
        "the hypervisor's own memory is refused",
        hypervisor.is_err(),
        true,
    );
    let nothing = map(Gpfn(17), MapGpaFlags::RAM, &[Gpfn(1 << 39)]);
    report.equal(name, "what is no memory is refused", nothing.is_err(), true);
    let mut byte = [0];
    let unmapped = calls.read_gpa(child, VP, Gpa(17 * FRAME), &mut byte);
    report.equal(
        name,
        "what was refused is not mapped",
        unmapped,
        Ok(AccessResult::UNMAPPED),
    );

    // SAFETY: the call is refused: a child has the page.
    let lent: Result<(), _> = unsafe { calls.deposit_memory(child, &source) }.map_err(HvStatus::from);
    report.equal(
        "HvCallDepositMemory",
        "a page that a child has is refused",
        lent.is_err(),
        true,
    );

    let written = calls.write_gpa(child, VP, Gpa(16 * FRAME + 8), b"0123456789abcdef");
    report.equal(
        "HvCallWriteGpa",
        "16 bytes are written",
        written,
        Ok(AccessResult::SUCCESS),
    );
    let mut seen = [0; 16];
    let read = calls.read_gpa(child, VP, Gpa(16 * FRAME + 8), &mut seen);
    let same = read == Ok(AccessResult::SUCCESS) && seen == *b"0123456789abcdef";
    report.equal("HvCallReadGpa", "they are read back", same, true);
    let crossing = calls.read_gpa(child, VP, Gpa(17 * FRAME - 8), &mut seen);
    report.refuses(
        "HvCallReadGpa",
        "bytes of two pages are refused",
        crossing,
        invalid,
    );
    let none = calls.read_gpa(child, VP, Gpa(16 * FRAME), &mut []);
    report.refuses("HvCallReadGpa", "no bytes are refused", none, invalid);
    let crossing = calls.write_gpa(child, VP, Gpa(17 * FRAME - 8), &seen);
    report.refuses(
        "HvCallWriteGpa",
        "bytes of two pages are refused",
        crossing,
        invalid,
    );
    Ok(())
}

fn registers(report: &mut Report, child: PartitionId) {
    let calls = hypercalls();
    let (get, set) = ("HvCallGetVpRegisters", "HvCallSetVpRegisters");
    let unknown = RegisterName(0xdead_beef);
    let read = calls.get_vp_register(child, VP, unknown);
    report.refuses(
        get,
        "a name that is none is refused",
        read,
        HvStatus::INVALID_PARAMETER,
    );
    let written = calls.set_vp_register(child, VP, unknown, 1u64);
    report.refuses(
        set,
        "a name that is none is refused",
        written,
        HvStatus::INVALID_PARAMETER,
    );
    for (what, name, value) in [
        ("EFER", RegisterName::EFER, 1u64 << 63),
        ("PAT", RegisterName::PAT, 0x0202_0202_0202_0202),
        ("XFEM", RegisterName::XFEM, 0),
        ("CR8", RegisterName::CR8, 16),
        ("SCONTROL", RegisterName::SCONTROL, 2),
        ("an event", RegisterName::PENDING_EVENT0, 0),
    ] {
        let before = calls.get_vp_register(child, VP, name).map(|value| value.u64());
        let done = calls.set_vp_register(child, VP, name, value);
        report.equal(
            set,
            format_args!("{what} of {value:#x} is refused"),
            done.is_err(),
            true,
        );
        let after = calls.get_vp_register(child, VP, name).map(|value| value.u64());
        report.equal(set, format_args!("and {what} stays as it was"), after, before);
    }
    let done = calls.install_intercept(child, InterceptType::EXCEPTION, AccessMask::EXECUTE, 32);
    report.refuses(
        "HvCallInstallIntercept",
        "exception 32 is refused",
        done,
        HvStatus::INVALID_PARAMETER,
    );
    let done = calls.install_intercept(child, InterceptType(0xffff), AccessMask::READ, 0);
    report.refuses(
        "HvCallInstallIntercept",
        "a type that is none is refused",
        done,
        HvStatus::INVALID_PARAMETER,
    );
}

fn interrupts(report: &mut Report, child: PartitionId) {
    let name = "HvCallAssertVirtualInterrupt";
    let calls = hypercalls();
    for vector in [0, 15, 256, u32::MAX] {
        let mut input = AssertVirtualInterrupt::edge(child, 0, 0);
        input.vector = vector;
        let done = calls.assert_virtual_interrupt(&input);
        let rule = format_args!("vector {vector} is refused");
        report.refuses(name, rule, done, HvStatus::INVALID_PARAMETER);
    }
    let mut input = AssertVirtualInterrupt::edge(child, 0, 0x40);
    input.interrupt_type = InterruptType(0x77);
    let done = calls.assert_virtual_interrupt(&input);
    report.refuses(
        name,
        "a type that is none is refused",
        done,
        HvStatus::INVALID_PARAMETER,
    );
    let done = calls.assert_virtual_interrupt(&AssertVirtualInterrupt::edge(child, 9, 0x40));
    report.refuses(
        name,
        "a destination that nobody has is refused",
        done,
        HvStatus::INVALID_VP_INDEX,
    );
    for sint in [16, u32::MAX] {
        let done = calls.post_message_direct(child, VP, sint, &Message::new(TYPE, 0, &[]));
        let rule = format_args!("SINT {sint} is refused");
        report.refuses("HvCallPostMessageDirect", rule, done, HvStatus::INVALID_PARAMETER);
    }
    let done = calls.post_message_direct(child, VP, 3, &Message::new(TYPE, 0, &[]));
    let full = HvStatus::INSUFFICIENT_BUFFERS;
    report.refuses(
        "HvCallPostMessageDirect",
        "a VP without a message page takes none",
        done,
        full,
    );
    let done = calls.signal_event_direct(child, VP, 3, 0);
    let denied = HvStatus::OPERATION_DENIED;
    report.refuses(
        "HvCallSignalEventDirect",
        "a VP without an event page takes none",
        done,
        denied,
    );
    let done = calls.signal_event_direct(child, VP, 16, 0);
    report.refuses(
        "HvCallSignalEventDirect",
        "SINT 16 is refused",
        done,
        HvStatus::INVALID_PARAMETER,
    );
}

fn ports(report: &mut Report, child: PartitionId) -> Result<(), String> {
    let calls = hypercalls();
    let own = PartitionId::SELF;
    let (port_id, connection_id) = (HvStatus::INVALID_PORT_ID, HvStatus::INVALID_CONNECTION_ID);
    let message = PortInfo::message(3, VP);
    let create = |id, info| calls.create_port(child, id, own, info);
    let name = "HvCallCreatePort";
    for id in [0, 0x100_0000, u32::MAX] {
        let done = create(PortId(id), message);
        report.refuses(
            name,
            format_args!("port id {id:#x} is refused"),
            done,
            HvStatus::INVALID_PARAMETER,
        );
    }
    for (rule, info) in [
        ("SINT 16 is refused", PortInfo::message(16, VP)),
        (
            "an event port without flags is refused",
            PortInfo::event(3, VP, 0, 0),
        ),
        ("flags past the last are refused", PortInfo::event(3, VP, 2047, 2)),
    ] {
        report.refuses(name, rule, create(PORT, info), HvStatus::INVALID_PARAMETER);
    }
    let done = create(PORT, PortInfo::message(3, VpIndex(7)));
    report.refuses(
        name,
        "a VP that is not there is refused",
        done,
        HvStatus::INVALID_VP_INDEX,
    );
    with_deposits(&RootHost, child, || create(PORT, message)).map_err(text)?;
    with_deposits(&RootHost, child, || {
        create(EVENT_PORT, PortInfo::event(3, VP, 8, 4))
    })
    .map_err(text)?;
    report.refuses(name, "an id in use is refused", create(PORT, message), port_id);

    let name = "HvCallConnectPort";
    for id in [3, 0x100_0000, u32::MAX] {
        let done = connect(own, CONNECTION, child, PortId(id), PortType::MESSAGE);
        report.refuses(
            name,
            format_args!("port {id:#x}, which is not there, is refused"),
            done,
            port_id,
        );
        let done = calls.delete_port(child, PortId(id));
        let rule = format_args!("port {id:#x}, which is not there, is refused");
        report.refuses("HvCallDeletePort", rule, done, port_id);
    }
    let done = connect(own, CONNECTION, child, PORT, PortType::EVENT);
    report.refuses(
        name,
        "a port of another type is refused",
        done,
        HvStatus::ACCESS_DENIED,
    );
    let done = connect(child, CONNECTION, child, PORT, PortType::MESSAGE);
    report.refuses(
        name,
        "another than the port is for is refused",
        done,
        HvStatus::ACCESS_DENIED,
    );
    for id in [0, 0x100_0000, u32::MAX] {
        let done = connect(own, ConnectionId(id), child, PORT, PortType::MESSAGE);
        report.refuses(
            name,
            format_args!("connection id {id:#x} is refused"),
            done,
            connection_id,
        );
        let done = calls.disconnect_port(own, ConnectionId(id));
        report.refuses(
            "HvCallDisconnectPort",
            format_args!("connection {id:#x} is refused"),
            done,
            connection_id,
        );
    }
    for (connection, port, port_type) in [
        (CONNECTION, PORT, PortType::MESSAGE),
        (OTHER_CONNECTION, EVENT_PORT, PortType::EVENT),
    ] {
        with_deposits(&RootHost, own, || {
            connect(own, connection, child, port, port_type)
        })
        .map_err(text)?;
    }
    let done = connect(own, CONNECTION, child, PORT, PortType::MESSAGE);
    report.refuses(name, "a connection id in use is refused", done, connection_id);
    traffic(report, child);

    // A port that goes takes its messages with it; the connection leads nowhere.
    report.equal(
        "HvCallDeletePort",
        "a port with messages goes",
        calls.delete_port(child, PORT),
        Ok(()),
    );
    report.refuses(
        "HvCallDeletePort",
        "once",
        calls.delete_port(child, PORT),
        port_id,
    );
    let done = calls.post_message(CONNECTION, TYPE, &[]);
    report.refuses("HvCallPostMessage", "a stale port is refused", done, port_id);
    for connection in [CONNECTION, OTHER_CONNECTION] {
        let done = calls.disconnect_port(own, connection);
        report.equal("HvCallDisconnectPort", "a connection ends", done, Ok(()));
        let done = calls.disconnect_port(own, connection);
        report.refuses("HvCallDisconnectPort", "once", done, connection_id);
    }
    let done = calls.post_message(CONNECTION, TYPE, &[]);
    report.refuses(
        "HvCallPostMessage",
        "a stale connection is refused",
        done,
        connection_id,
    );
    let done = calls.signal_event(OTHER_CONNECTION, 0);
    report.refuses(
        "HvCallSignalEvent",
        "a stale connection is refused",
        done,
        connection_id,
    );
    Ok(())
}

/// Messages and events to a VP that takes none: its SynIC is off.
fn traffic(report: &mut Report, child: PartitionId) {
    let calls = hypercalls();
    let name = "HvCallPostMessage";
    let post = || calls.post_message(CONNECTION, TYPE, b"waits");
    let taken = (0..BUFFERS).filter(|_| post().is_ok()).count();
    report.equal(name, "16 messages wait at a port", taken, BUFFERS);
    let balance = || calls.memory_balance(child).map(|balance| balance.in_use);
    let before = balance();
    for number in [17, 18] {
        let rule = format_args!("message {number} is refused");
        report.refuses(name, rule, post(), HvStatus::INSUFFICIENT_BUFFERS);
    }
    report.equal(name, "and takes no memory", balance(), before);
    let done = calls.post_message(OTHER_CONNECTION, TYPE, &[]);
    report.refuses(
        name,
        "a port of events is refused",
        done,
        HvStatus::INVALID_PORT_ID,
    );
    let name = "HvCallSignalEvent";
    let done = calls.signal_event(CONNECTION, 0);
    report.refuses(
        name,
        "a port of messages is refused",
        done,
        HvStatus::INVALID_PORT_ID,
    );
    let done = calls.signal_event(OTHER_CONNECTION, 4);
    report.refuses(
        name,
        "a flag past the port's is refused",
        done,
        HvStatus::INVALID_PARAMETER,
    );
    let done = calls.signal_event(OTHER_CONNECTION, 0);
    report.refuses(
        name,
        "a VP without an event page takes none",
        done,
        HvStatus::OPERATION_DENIED,
    );
}

/// Ends a child, whatever state it is in.
pub(super) fn end(report: &mut Report, child: PartitionId) -> Result<(), String> {
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
