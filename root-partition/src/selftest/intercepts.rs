//! What a child does that its parent must hear of: a VP in real mode runs a few bytes of code, and the message of its intercept
//! must say what it did. One line a rule.
#![allow(unsafe_code)]

use super::Outcome;
use super::hypercalls::{create, end};
use super::report::{Report, text};
use crate::hypervisor::hypercalls;
use crate::vm::host::{FRAME, Host};
use crate::vm::pool::with_deposits;
use crate::vm::root_host::RootHost;
use alloc::format;
use alloc::string::String;
use core::time::Duration;
use hypercall_api::access::AccessResult;
use hypercall_api::address::{Gpa, Gpfn};
use hypercall_api::call::{PartitionCalls, VpCalls};
use hypercall_api::counter;
use hypercall_api::id::{PartitionId, VpIndex};
use hypercall_api::intercept::{
    AccessMask, ExceptionIntercept, InterceptType, IoPortIntercept, MsrIntercept,
};
use hypercall_api::memory::MapGpaFlags;
use hypercall_api::message::{Message, MessageType};
use hypercall_api::processor::{SegmentRegister, TableRegister};
use hypercall_api::register::{RegisterAssociation, RegisterName as Name};
use hypercall_api::status::HvStatus;

const VP: VpIndex = VpIndex(0);
/// Where the child has its three pages: code, messages, event flags.
const CODE: u64 = 0x1_0000;
const MESSAGES: u64 = CODE + FRAME;
const FLAGS: u64 = MESSAGES + FRAME;
/// How long an intercept may take: on a busy emulator, long.
const PATIENCE: usize = 2000;
const LOOK: Duration = Duration::from_millis(5);
/// CR0 after reset, and with NW but without CD, which no processor takes.
const CR0: u64 = 0x10;
const CR0_REFUSED: u64 = CR0 | 1 << 29;
/// Code of the cases: `in al, 0x77`; `outsb`; `mov al, [0]`; `rdmsr`; `cpuid`; `ud2`; `div cl`; `cli; hlt`; `int 0x20` without a
/// vector; `nop`. (QEMU takes INT3 for no exception: its intercept is another.)
const CASES: &[Case] = &[
    case("I/O port", &[0xe4, 0x77], MessageType::IO_PORT_INTERCEPT),
    case("string of an I/O port", &[0x6e], MessageType::IO_PORT_INTERCEPT),
    case("unmapped GPA", &[0xa0, 0, 0], MessageType::UNMAPPED_GPA),
    case("MSR", &[0x0f, 0x32], MessageType::MSR_INTERCEPT),
    case("CPUID", &[0x0f, 0xa2], MessageType::CPUID_INTERCEPT),
    case("exception 6", &[0x0f, 0x0b], MessageType::EXCEPTION_INTERCEPT),
    case("exception 0", &[0xf6, 0xf1], MessageType::EXCEPTION_INTERCEPT),
    case("halt", &[0xfa, 0xf4], MessageType::HALT),
    case(
        "triple fault",
        &[0xcd, 0x20],
        MessageType::UNRECOVERABLE_EXCEPTION,
    ),
    case("invalid state", &[0x90], MessageType::INVALID_VP_REGISTER_VALUE),
];

struct Case {
    name: &'static str,
    code: &'static [u8],
    message: MessageType,
}

const fn case(name: &'static str, code: &'static [u8], message: MessageType) -> Case {
    Case { name, code, message }
}

/// Tries them all in a child of its own.
pub(super) async fn run() -> Outcome {
    let mut report = Report::default();
    let child = create()?;
    let pages = RootHost.allocate_frames(3).ok_or("the root has no memory left")?;
    let outcome = on(&mut report, child, pages).await;
    end(&mut report, child)?;
    RootHost.release(pages..pages + 3 * FRAME);
    outcome?;
    report.outcome()
}

async fn on(report: &mut Report, child: PartitionId, pages: u64) -> Result<(), String> {
    let calls = hypercalls();
    let need = |call: &dyn Fn() -> Result<(), HvStatus>| with_deposits(&RootHost, child, call).map_err(text);
    need(&|| calls.initialize_partition(child))?;
    need(&|| calls.create_vp(child, VP))?;
    let sources = [0, 1, 2].map(|page| Gpfn(pages / FRAME + page));
    // SAFETY: the pages are this test's, and it looks at them through the child only.
    need(&|| Ok(unsafe { calls.map_gpa_pages(child, Gpfn(CODE / FRAME), MapGpaFlags::RAM, &sources) }?))?;
    let message_page = RootHost.map_message_page(child, VP).map_err(text)?;
    for exception in [0, 6] {
        let done = calls.install_intercept(child, InterceptType::EXCEPTION, AccessMask::EXECUTE, exception);
        report.equal(
            "HvCallInstallIntercept",
            format_args!("exception {exception}"),
            done,
            Ok(()),
        );
    }
    let done = calls.install_intercept(child, InterceptType::MSR, AccessMask::READ | AccessMask::WRITE, 0);
    report.equal("HvCallInstallIntercept", "MSRs", done, Ok(()));
    let done = calls.install_intercept(child, InterceptType::CPUID, AccessMask::EXECUTE, 0x1234);
    report.equal("HvCallInstallIntercept", "a CPUID leaf", done, Ok(()));
    for case in CASES {
        begin(child, case)?;
        let name = format!("intercept of {}", case.name);
        if !stopped(child).await {
            report.equal(&name, "it suspends the VP", false, true);
            continue;
        }
        let message = RootHost.read_message(message_page);
        report.equal(&name, "its message comes", message.message_type, case.message);
        contents(report, &name, case, &message);
    }
    let halted = calls
        .get_vp_register(child, VP, Name::INTERCEPT_SUSPEND)
        .map(|value| value.u64());
    report.equal(
        "HvRegisterInterceptSuspend",
        "it stays suspended without an answer",
        halted,
        Ok(1),
    );
    statistics(report, child);
    direct(report, child)
}

/// Puts the VP before the case's code, in real mode, and lets it run.
fn begin(child: PartitionId, case: &Case) -> Result<(), String> {
    let calls = hypercalls();
    let written = calls.write_gpa(child, VP, Gpa(CODE), case.code).map_err(text)?;
    if written != AccessResult::SUCCESS {
        return Err(String::from("the child's code cannot be written"));
    }
    let code = SegmentRegister {
        base: CODE,
        limit: 0xffff,
        selector: 0x1000,
        attributes: 0x9b,
    };
    let data = SegmentRegister {
        base: 0,
        limit: 0xffff,
        selector: 0,
        attributes: 0x93,
    };
    let no_vectors = TableRegister {
        reserved: [0; 3],
        limit: 0,
        base: 0,
    };
    let cr0 = if case.message == MessageType::INVALID_VP_REGISTER_VALUE {
        CR0_REFUSED
    } else {
        CR0
    };
    let set = |name, value: u64| RegisterAssociation::new(name, value);
    let registers = [
        set(Name::CR0, cr0),
        RegisterAssociation::new(Name::CS, code),
        RegisterAssociation::new(Name::DS, data),
        RegisterAssociation::new(Name::IDTR, no_vectors),
        set(Name::RIP, 0),
        set(Name::RFLAGS, 2),
        set(Name::RAX, 0x1234),
        set(
            Name::RCX,
            if case.message == MessageType::MSR_INTERCEPT {
                0x35
            } else {
                0
            },
        ),
        set(Name::RDX, 0x77),
        set(Name::RSI, 0),
        set(Name::INTERNAL_ACTIVITY_STATE, 0),
        set(Name::INTERCEPT_SUSPEND, 0),
        set(Name::EXPLICIT_SUSPEND, 0),
    ];
    calls
        .set_vp_registers(child, VP, &registers)
        .map_err(|error| text(error.status))
}

async fn stopped(child: PartitionId) -> bool {
    for _ in 0..PATIENCE {
        let suspended = hypercalls().get_vp_register(child, VP, Name::INTERCEPT_SUSPEND);
        if suspended.is_ok_and(|value| value.u64() != 0) {
            return true;
        }
        RootHost.sleep(LOOK).await;
    }
    false
}

fn contents(report: &mut Report, name: &str, case: &Case, message: &Message) {
    match case.message {
        MessageType::IO_PORT_INTERCEPT => {
            let seen = message.payload_as::<IoPortIntercept>();
            report.equal(name, "it names the port", seen.map(|it| it.port), Some(0x77));
            let string = seen.map(|it| it.access.is_string());
            report.equal(
                name,
                "it says whether it is a string",
                string,
                Some(case.code == [0x6e]),
            );
        }
        MessageType::MSR_INTERCEPT => {
            let seen = message.payload_as::<MsrIntercept>();
            report.equal(name, "it names the MSR", seen.map(|it| it.msr), Some(0x35));
        }
        MessageType::EXCEPTION_INTERCEPT => {
            let seen = message.payload_as::<ExceptionIntercept>();
            let wanted = if case.code == [0x0f, 0x0b] { 6 } else { 0 };
            report.equal(
                name,
                "it names the vector",
                seen.map(|it| it.vector),
                Some(wanted),
            );
        }
        _ => {}
    }
}

/// The page of statistics, which the parent reads itself.
fn statistics(report: &mut Report, child: PartitionId) {
    let read = RootHost.statistics(child, VP);
    let ran = read.as_ref().map(|page| page[counter::TOTAL_RUN_TIME] != 0);
    report.equal("HvCallMapStatsPage", "its run time is there", ran, Ok(true));
}

/// Messages and events without a port, into pages of the child's.
fn direct(report: &mut Report, child: PartitionId) -> Result<(), String> {
    const SINT: u8 = 3;
    let calls = hypercalls();
    for (name, value) in [
        (Name::SIMP, MESSAGES | 1),
        (Name::SIEFP, FLAGS | 1),
        (Name::SCONTROL, 1),
    ] {
        calls.set_vp_register(child, VP, name, value).map_err(text)?;
    }
    let mut word = [0; 4];
    let mut read = |gpa: u64| {
        calls
            .read_gpa(child, VP, Gpa(gpa), &mut word)
            .map(|_| u32::from_le_bytes(word))
    };
    let (post, signal) = ("HvCallPostMessageDirect", "HvCallSignalEventDirect");
    let slot = MESSAGES + u64::from(SINT) * size_of::<Message>() as u64;
    let send =
        |kind| calls.post_message_direct(child, VP, SINT.into(), &Message::new(MessageType(kind), 0, b"hi"));
    report.equal(post, "a message goes into its slot", send(7), Ok(()));
    report.equal(post, "and is there", read(slot), Ok(7));
    report.equal(
        post,
        "a slot that is taken is refused",
        send(8),
        Err(HvStatus::INSUFFICIENT_BUFFERS),
    );
    report.equal(post, "and stays as it is", read(slot), Ok(7));
    for (rule, wanted) in [
        ("a flag that is clear is newly set", true),
        ("a flag that is set is not", false),
    ] {
        let done = calls.signal_event_direct(child, VP, SINT, 5);
        report.equal(signal, rule, done, Ok(wanted));
    }
    report.equal(
        signal,
        "and is there",
        read(FLAGS + u64::from(SINT) * 256),
        Ok(1 << 5),
    );
    Ok(())
}
