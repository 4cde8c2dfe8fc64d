//! Registers, intercepts and interrupts of a child's VP.

use super::{TYPE, VP};
use crate::hypervisor::hypercalls;
use crate::selftest::report::Report;
use hypercall_api::call::{PartitionCalls, VpCalls};
use hypercall_api::id::PartitionId;
use hypercall_api::intercept::{AccessMask, InterceptType};
use hypercall_api::interrupt::{AssertVirtualInterrupt, InterruptType};
use hypercall_api::message::Message;
use hypercall_api::register::RegisterName;
use hypercall_api::status::HvStatus;

pub(super) fn registers(report: &mut Report, child: PartitionId) {
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

pub(super) fn interrupts(report: &mut Report, child: PartitionId) {
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
