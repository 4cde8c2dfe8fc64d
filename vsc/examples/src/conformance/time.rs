//! Reference time (TLFS, "Partition Reference Time Enlightenment", "Partition Reference Counter"), frequencies, run time.

use crate::Context;
use crate::machine::{self, Work};
use crate::report::{equal, holds, skip, within};
use core::sync::atomic::{AtomicU64, Ordering};
use hypercall_api::msr;
use hypercall_api::privilege::Privileges;
use hypercall_api::reference::ReferenceTsc;
use vsc_runtime::hypervisor::time;
use vsc_runtime::processor::instruction::{read_msr, tsc};

const COUNTER: &str = "HV_X64_MSR_TIME_REF_COUNT";
const PAGE: &str = "HV_X64_MSR_REFERENCE_TSC";

/// Checks clocks.
pub(crate) fn check(context: &Context) {
    let privileges = context.offer.privileges;
    if privileges.contains(Privileges::ACCESS_PARTITION_REFERENCE_COUNTER) {
        counter();
    }
    if privileges.contains(Privileges::ACCESS_PARTITION_REFERENCE_TSC) {
        page(context);
    }
    if privileges.contains(Privileges::ACCESS_FREQUENCY_REGS) {
        frequencies();
    }
    if privileges.contains(Privileges::ACCESS_VP_RUN_TIME) {
        run_time();
    }
}

fn counter() {
    let mut last = time::counter();
    let mut backwards = 0;
    for _ in 0..1000 {
        let now = time::counter();
        backwards += u32::from(now < last);
        last = now;
    }
    equal(COUNTER, "it never goes back", backwards, 0);
    let start = time::counter();
    let moved = machine::wait_until(|| time::counter() > start);
    holds(COUNTER, "it goes on", moved);
    let Some(other) = machine::other() else {
        skip(COUNTER, "all VPs see one time", "there is one processor");
        return;
    };
    static SEEN: AtomicU64 = AtomicU64::new(0);
    static LOOK: Work = || SEEN.store(time::counter(), Ordering::Release);
    let mut in_order = true;
    for _ in 0..10 {
        let before = time::counter();
        in_order &= machine::run_on(other, &LOOK);
        let after = time::counter();
        in_order &= (before..=after).contains(&SEEN.load(Ordering::Acquire));
    }
    holds(COUNTER, "all VPs see one time", in_order);
}

fn page(context: &Context) {
    let (sequence, page) = time::read();
    holds(PAGE, "the page is valid", sequence != 0);
    if !context
        .offer
        .privileges
        .contains(Privileges::ACCESS_PARTITION_REFERENCE_COUNTER)
        || sequence == 0
    {
        return;
    }
    let mut between = true;
    for _ in 0..100 {
        let before = time::counter();
        let told = time::page_time().unwrap_or(0);
        let after = time::counter();
        // A tick may be rounded away on either side.
        between &= (before.saturating_sub(1)..=after + 1).contains(&told);
    }
    holds(PAGE, "page and counter tell one time", between);
    if context
        .offer
        .privileges
        .contains(Privileges::ACCESS_FREQUENCY_REGS)
    {
        let scale = ReferenceTsc::scale_for(read_msr(msr::TSC_FREQUENCY)).unwrap_or(0);
        within(
            PAGE,
            "its scale is that of the TSC frequency",
            page.scale,
            scale - scale / 100_000,
            scale + scale / 100_000,
        );
    }
}

fn frequencies() {
    let frequency = read_msr(msr::TSC_FREQUENCY);
    let (start, start_tsc) = (time::now(), tsc());
    machine::pause(20);
    let (end, end_tsc) = (time::now(), tsc());
    let measured = u128::from(end_tsc - start_tsc) * 10_000_000 / u128::from((end - start).max(1));
    within(
        "HV_X64_MSR_TSC_FREQUENCY",
        "it is the TSC's, to one per cent",
        measured as u64,
        frequency - frequency / 100,
        frequency + frequency / 100,
    );
    holds(
        "HV_X64_MSR_APIC_FREQUENCY",
        "it is one",
        read_msr(msr::APIC_FREQUENCY) != 0,
    );
}

fn run_time() {
    let name = "HV_X64_MSR_VP_RUNTIME";
    let start = read_msr(msr::VP_RUNTIME);
    machine::pause(20);
    let end = read_msr(msr::VP_RUNTIME);
    holds(name, "it grows while the VP runs", end > start);
}
