//! The hypercall page and the hypercall input value (TLFS, "Hypercall Interface").

use crate::Context;
use crate::access::{self, PAGES, write_msr};
use crate::report::{equal, holds};
use core::arch::x86_64::__cpuid;
use core::fmt::Display;
use hypercall_api::address::Gpfn;
use hypercall_api::code::HypercallCode as Code;
use hypercall_api::control::HypercallInput;
use hypercall_api::msr::{self, PageMsr};
use hypercall_api::port::{ConnectionId, PostMessage};
use hypercall_api::status::HvStatus;
use vsc_runtime::hypervisor::HypercallPage;
use vsc_runtime::hypervisor::hypercall_page;
use vsc_runtime::processor::probe::{self, Fault};
use zerocopy::{FromZeros, IntoBytes};

const PAGE_RULES: &str = "HV_X64_MSR_HYPERCALL";
const INPUT_RULES: &str = "Hypercall input value";
const PARAMETER_RULES: &str = "Hypercall parameters";

/// A connection that no partition has.
pub(crate) const NO_CONNECTION: ConnectionId = ConnectionId(0x00ab_cdef);

/// Whether the processor's instruction is VMMCALL.
fn is_amd() -> bool {
    let vendor = __cpuid(0);
    // "AuthenticAMD" and "HygonGenuine".
    vendor.ebx == 0x6874_7541 || vendor.ebx == 0x6f67_7948
}

fn enabled_page() -> u64 {
    PageMsr::enable(Gpfn(hypercall_page::address() / 4096)).0
}

/// Rules of the time before the interface is established.
pub(crate) fn check_before_it_is_enabled() {
    equal(
        "HV_X64_MSR_GUEST_OS_ID",
        "it is zero at first",
        probe::read_msr(msr::GUEST_OS_ID).ok(),
        Some(0),
    );
    let before = probe::read_msr(msr::HYPERCALL).unwrap_or_default();
    equal(PAGE_RULES, "it is disabled at first", before & 3, 0);
    let written = write_msr(msr::HYPERCALL, enabled_page()).is_ok();
    let enabled = probe::read_msr(msr::HYPERCALL).unwrap_or_default() & 1;
    holds(
        PAGE_RULES,
        "without a guest OS id it stays disabled",
        written && enabled == 0,
    );
    let _ = write_msr(msr::HYPERCALL, 0);
    refused_directly("a hypercall before it is enabled raises #UD");
}

fn refused_directly(rule: &str) {
    let result = access::call_directly(is_amd(), HypercallInput::fast(Code::SIGNAL_EVENT).0);
    equal(
        PAGE_RULES,
        rule,
        result.map_err(|fault| fault.vector),
        Err(Fault::INVALID_OPCODE),
    );
}

/// Checks page, input value and parameters.
pub(crate) fn check(context: &Context) {
    page(context);
    input_value(context);
    parameters(context);
    registers(context);
}

fn page(context: &Context) {
    let code = probe::read(hypercall_page::address()).unwrap_or_default();
    equal(
        PAGE_RULES,
        "the page begins with ENDBR64",
        code as u32,
        0xfa1e_0ff3,
    );
    let instruction = (code >> 32) as u32 & 0xff_ffff;
    let expected = if is_amd() { 0xd9_010f } else { 0xc1_010f };
    equal(
        PAGE_RULES,
        "then comes the processor's own instruction",
        instruction,
        expected,
    );
    let enabled = probe::read_msr(msr::HYPERCALL).unwrap_or_default();
    equal(PAGE_RULES, "it tells where the page is", enabled, enabled_page());

    let _ = write_msr(msr::HYPERCALL, enabled & !1);
    refused_directly("a hypercall while it is disabled raises #UD");
    let _ = write_msr(msr::HYPERCALL, enabled);
    let _ = write_msr(msr::GUEST_OS_ID, 0);
    let disabled = probe::read_msr(msr::HYPERCALL).unwrap_or_default() & 1;
    equal(PAGE_RULES, "a guest OS id of zero disables it", disabled, 0);
    let _ = write_msr(msr::GUEST_OS_ID, hypercall_page::GUEST_OS_ID);
    let _ = write_msr(msr::HYPERCALL, enabled);
    let status = signal(context.hypercalls);
    equal(
        PAGE_RULES,
        "it works again once it is enabled again",
        status,
        HvStatus::INVALID_CONNECTION_ID,
    );
    overlay(enabled);
    let result = access::call_directly(is_amd(), HypercallInput::fast(Code(0x7ffe)).0);
    equal(
        PAGE_RULES,
        "the instruction works outside the page too",
        result.map(|value| value as u16).ok(),
        Some(HvStatus::INVALID_HYPERCALL_CODE.0),
    );
}

/// The page lies over the guest's own, which keeps what is in it.
fn overlay(enabled: u64) {
    let own = 0x1122_3344_5566_7788_u64;
    PAGES.fill(0, own.as_bytes());
    let address = PAGES.address();
    let here = PageMsr::enable(Gpfn(address / 4096)).0;
    let written = write_msr(msr::HYPERCALL, here).is_ok();
    let covered = probe::read(address).unwrap_or_default() as u32;
    equal(
        PAGE_RULES,
        "it can be moved, and lies over the page that is there",
        (written, covered),
        (true, 0xfa1e_0ff3),
    );
    equal(
        PAGE_RULES,
        "a write to it raises #GP",
        access::write_pages(!own).map_err(|fault| fault.vector),
        Err(Fault::GENERAL_PROTECTION),
    );
    let _ = write_msr(msr::HYPERCALL, here & !1);
    equal(
        PAGE_RULES,
        "what it lay over comes back when it is disabled",
        probe::read(address).ok(),
        Some(own),
    );
    let _ = write_msr(msr::HYPERCALL, here);
    let _ = write_msr(msr::HYPERCALL, enabled);
    equal(
        PAGE_RULES,
        "what it lay over comes back when it is moved",
        probe::read(address).ok(),
        Some(own),
    );
}

/// A call that is well-formed and allowed, and finds no connection.
fn signal(page: HypercallPage) -> HvStatus {
    let control = HypercallInput::fast(Code::SIGNAL_EVENT);
    access::call(page, control, NO_CONNECTION.0 as u64, 0).status()
}

fn input_value(context: &Context) {
    let fast = |control: HypercallInput| {
        access::call(context.hypercalls, control, NO_CONNECTION.0 as u64, 0).status()
    };
    let signal = HypercallInput::fast(Code::SIGNAL_EVENT);
    let invalid = HvStatus::INVALID_HYPERCALL_INPUT;
    for bit in (27..31).chain(44..48).chain(60..64) {
        let rule = format_args!("reserved bit {bit} is refused");
        equal(
            INPUT_RULES,
            rule,
            fast(HypercallInput(signal.0 | 1 << bit)),
            invalid,
        );
    }
    let nested = fast(HypercallInput(signal.0 | 1 << 31));
    equal(INPUT_RULES, "a nested call is refused", nested, invalid);
    for code in [0, 0x3ff, 0x7ffe, 0xffff] {
        let status = fast(HypercallInput::fast(Code(code)));
        let rule = format_args!("code {code:#06x} is unknown");
        equal(INPUT_RULES, rule, status, HvStatus::INVALID_HYPERCALL_CODE);
    }
    let repeated = fast(HypercallInput(signal.0 | 1 << 32));
    equal(INPUT_RULES, "a simple call takes no rep count", repeated, invalid);
    let started = fast(signal.with_rep_start(1));
    equal(
        INPUT_RULES,
        "a simple call takes no rep start index",
        started,
        invalid,
    );
    let headed = fast(signal.with_variable_header(1));
    equal(
        INPUT_RULES,
        "a call without a variable header takes none",
        headed,
        invalid,
    );
    let large = fast(HypercallInput::fast(Code::POST_MESSAGE));
    equal(
        INPUT_RULES,
        "a call with more than 16 bytes of input cannot be fast",
        large,
        invalid,
    );

    PAGES.fill(0, &[]);
    let slow = |control| access::call(context.hypercalls, control, PAGES.address(), 0).status();
    let list = Code::FLUSH_VIRTUAL_ADDRESS_LIST;
    let none = slow(HypercallInput::rep(list, 0));
    equal(INPUT_RULES, "a rep call needs a rep count", none, invalid);
    let past = slow(HypercallInput::rep(list, 2).with_rep_start(2));
    equal(
        INPUT_RULES,
        "the rep start index is below the rep count",
        past,
        invalid,
    );
    let most = HypercallInput::rep(list, HypercallInput::MAX_REPS);
    let status = slow(most);
    holds(
        INPUT_RULES,
        "a list longer than a page is refused",
        status != HvStatus::SUCCESS,
    );
}

fn parameters(context: &Context) {
    let mut message = PostMessage::new_zeroed();
    message.connection = NO_CONNECTION;
    message.message_type.0 = 1;
    message.payload_size = 8;
    let post = |rule: &dyn Display, gpa: u64, wanted: HvStatus| {
        let control = HypercallInput::simple(Code::POST_MESSAGE);
        let status = access::call(context.hypercalls, control, gpa, 0).status();
        equal(PARAMETER_RULES, rule, status, wanted);
    };
    let found = HvStatus::INVALID_CONNECTION_ID;
    let at = |offset: usize| {
        PAGES.fill(offset, message.as_bytes());
        PAGES.address() + offset as u64
    };
    post(&"at a page's start they are read", at(0), found);
    post(&"at a page's end they are read", at(4096 - 256), found);
    for offset in [1, 2, 4, 7] {
        let rule = format_args!("{offset} bytes off are refused");
        post(&rule, at(offset), HvStatus::INVALID_ALIGNMENT);
    }
    post(
        &"across a page's end they are refused",
        at(4096 - 248),
        HvStatus::INVALID_ALIGNMENT,
    );
    let unmapped = HvStatus::INVALID_PARAMETER;
    post(&"at a GPA without memory they are refused", 0xd000_0000, unmapped);
    post(&"at the IOAPIC they are refused", 0xfec0_0000, unmapped);
    post(&"at the APIC's page they are refused", 0xfee0_0000, unmapped);
    post(
        &"past the processor's addresses they are refused",
        1 << 52,
        unmapped,
    );
    post(
        &"at the last page they are refused",
        0xffff_ffff_ffff_f000,
        unmapped,
    );
}

fn registers(context: &Context) {
    let page = context.hypercalls;
    x86_64::instructions::interrupts::disable();
    let status = signal(page);
    let still_off = !x86_64::instructions::interrupts::are_enabled();
    x86_64::instructions::interrupts::enable();
    holds(
        "Hypercall",
        "it can be made with interrupts off",
        still_off && status == HvStatus::INVALID_CONNECTION_ID,
    );
    equal(
        "Hypercall",
        "it leaves the other registers as they are",
        crate::state::registers_survive_a_hypercall(),
        true,
    );
}
