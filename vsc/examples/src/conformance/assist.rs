//! The synthetic APIC MSRs and the VP assist page (TLFS, "Virtual Interrupt Control").

use crate::Context;
use crate::access::{self, write_msr};
use crate::machine;
use crate::report::{equal, holds, skip};
use core::sync::atomic::{AtomicU64, Ordering};
use hypercall_api::address::Gpfn;
use hypercall_api::msr::{self, PageMsr};
use hypercall_api::privilege::Privileges;
use vsc_runtime::apic::{self, register};
use vsc_runtime::interrupt::{self, End};
use vsc_runtime::memory::pages;
use vsc_runtime::processor::probe;

const VECTOR: u8 = 0x66;
const PAGE: &str = "HV_X64_MSR_VP_ASSIST_PAGE";

/// Address of the page.
static ASSIST: AtomicU64 = AtomicU64::new(0);
/// Interrupts that needed no EOI.
static SPARED: AtomicU64 = AtomicU64::new(0);

/// Checks MSRs and page.
pub(crate) fn check(context: &Context) {
    if !context
        .offer
        .privileges
        .contains(Privileges::ACCESS_INTR_CTRL_REGS)
    {
        skip(
            "HV_X64_MSR_EOI, ICR, TPR",
            "their rules",
            "this partition has not got them",
        );
        return;
    }
    end_of_interrupt();
    commands();
    priority();
    page();
}

fn came(before: u64) -> bool {
    machine::wait_until(|| interrupt::count(VECTOR) > before)
}

fn end_of_interrupt() {
    interrupt::set_end(VECTOR, End::Manual);
    let before = interrupt::count(VECTOR);
    apic::send_self(VECTOR);
    let first = came(before);
    apic::send_self(VECTOR);
    machine::pause(2);
    let held = interrupt::count(VECTOR) == before + 1;
    let ended = write_msr(msr::EOI, 0).is_ok();
    let second = came(before + 1);
    holds(
        "HV_X64_MSR_EOI",
        "it ends the interrupt in service",
        first && held && ended && second,
    );
    apic::end_of_interrupt();
    interrupt::set_end(VECTOR, End::Automatic);
}

fn commands() {
    let name = "HV_X64_MSR_ICR";
    let before = interrupt::count(VECTOR);
    let sent = write_msr(msr::ICR, 1 << 18 | u64::from(VECTOR));
    holds(name, "it sends an IPI", sent.is_ok() && came(before));
    let read = probe::read_msr(msr::ICR).map(|value| value as u8);
    equal(name, "its lower half reads back", read.ok(), Some(VECTOR));
}

fn priority() {
    let name = "HV_X64_MSR_TPR";
    let written = write_msr(msr::TPR, 0x70);
    equal(
        name,
        "it is the APIC's",
        (written.is_ok(), apic::read(register::TPR), access::cr8()),
        (true, 0x70, 7),
    );
    let before = interrupt::count(VECTOR);
    apic::send_self(VECTOR);
    machine::pause(2);
    let held = interrupt::count(VECTOR) == before;
    let lowered = write_msr(msr::TPR, 0);
    holds(
        name,
        "it holds interrupts back, and lets them go",
        held && lowered.is_ok() && came(before),
    );
    equal(name, "it reads back", probe::read_msr(msr::TPR).ok(), Some(0));
}

/// Whether the APIC says that `vector` is in service.
fn in_service(vector: u8) -> Option<bool> {
    const X2APIC_ISR: u32 = 0x810;
    let word = probe::read_msr(X2APIC_ISR + u32::from(vector) / 32).ok()?;
    Some(word & 1 << (vector % 32) != 0)
}

fn page() {
    let Some(page) = pages::allocate(1) else { return };
    ASSIST.store(page, Ordering::Release);
    let enabled = write_msr(msr::VP_ASSIST_PAGE, PageMsr::enable(Gpfn(page / 4096)).0);
    equal(
        PAGE,
        "it can be enabled, and begins with zero",
        (enabled.is_ok(), access::take_bit(page)),
        (true, false),
    );
    // As a guest does it that uses the page: no EOI where the hypervisor says that none is needed.
    interrupt::set_end(VECTOR, End::Manual);
    interrupt::set_handler(VECTOR, |_| {
        match access::take_bit(ASSIST.load(Ordering::Acquire)) {
            true => {
                SPARED.fetch_add(1, Ordering::AcqRel);
            }
            false => apic::end_of_interrupt(),
        }
    });
    let mut all = true;
    for _ in 0..20 {
        let before = interrupt::count(VECTOR);
        apic::send_self(VECTOR);
        all &= came(before);
    }
    holds(
        PAGE,
        format_args!(
            "interrupts go on where a set bit takes the place of EOI ({} of 20)",
            SPARED.load(Ordering::Acquire)
        ),
        all,
    );
    holds(
        PAGE,
        "the end of an interrupt that is alone is spared",
        SPARED.load(Ordering::Acquire) > 0,
    );
    equal(
        PAGE,
        "an interrupt whose end was spared is not in service any more",
        in_service(VECTOR),
        Some(false),
    );
    // Two at a time: the lower one must come although nobody writes EOI for the higher.
    let (before, lower) = (interrupt::count(VECTOR), interrupt::count(VECTOR - 1));
    x86_64::instructions::interrupts::disable();
    apic::send_self(VECTOR);
    apic::send_self(VECTOR - 1);
    x86_64::instructions::interrupts::enable();
    let both = came(before) && machine::wait_until(|| interrupt::count(VECTOR - 1) == lower + 1);
    holds(PAGE, "a lower interrupt that waits is not forgotten", both);
    interrupt::clear_handler(VECTOR);
    let before = interrupt::count(VECTOR);
    apic::send_self(VECTOR);
    let kept = came(before) && in_service(VECTOR) == Some(true);
    apic::end_of_interrupt();
    equal(
        PAGE,
        "a guest that leaves the bit alone ends an interrupt by EOI",
        (kept, in_service(VECTOR), access::take_bit(page)),
        (true, Some(false), false),
    );
    interrupt::set_end(VECTOR, End::Automatic);
    let disabled = write_msr(msr::VP_ASSIST_PAGE, 0);
    equal(PAGE, "it can be disabled", disabled.is_ok(), true);
}
