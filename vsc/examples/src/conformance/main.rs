//! The conformance guest: checks, rule by rule, what the Hypervisor Top-Level Functional Specification promises a partition,
//! and what the processor manuals promise a guest system.
//!
//! One line a rule: `PASS <name>: <rule>`, `FAIL <name>: <rule>: got …, wanted …`, or `SKIP <name>: <rule>: why`. Then
//! `conformance: N passed, M failed, K skipped`, `conformance: done`, and power off. Without Partita below, only the rules
//! of the processor are checked.
//!
//! | command line | effect |
//! |---|---|
//! | `only=apic,timer` | only these parts |
//! | `no-devices` | leaves out what the VM worker emulates: ports and memory of devices |
//! | `triple-fault` | ends in a triple fault instead of power off |
//! | `crash` | reports a guest crash before the end |
#![no_std]
#![no_main]

mod access;
mod apic;
mod assist;
mod calls;
mod cpuid;
mod device;
mod fresh;
mod hypercall;
mod isolation;
mod machine;
mod msr;
mod port;
mod privilege;
mod processor;
mod report;
mod state;
mod synic;
mod time;
mod timer;

use vsc_runtime::boot::BootInfo;
use vsc_runtime::hypervisor::detect::{self, Offer};
use vsc_runtime::hypervisor::{self, HypercallPage};
use vsc_runtime::{power, println};

/// Unused: the runtime is built with what the guests that have devices need.
#[global_allocator]
static HEAP: vsc_runtime::memory::heap::Heap = vsc_runtime::memory::heap::new();

vsc_runtime::guest_main!(main);

/// What each part gets to know.
#[derive(Clone, Copy)]
struct Context {
    offer: Offer,
    hypercalls: HypercallPage,
}

/// A part that needs the hypervisor.
type Part = fn(&Context);

/// Parts that need the hypervisor, in the order in which they run.
const HYPERVISOR_PARTS: &[(&str, Part)] = &[
    ("cpuid", cpuid::check),
    ("msr", msr::check),
    ("hypercall", hypercall::check),
    ("privilege", privilege::check),
    ("calls", calls::check),
    ("time", time::check),
    ("synic", synic::check),
    ("port", port::check),
    ("timer", timer::check),
    ("assist", assist::check),
];

/// Parts that need a processor only.
const PROCESSOR_PARTS: &[(&str, fn())] = &[
    ("apic", apic::check),
    ("processor", processor::check),
    ("state", state::check),
];

fn main(boot: &BootInfo) {
    println!("conformance: command line '{}'", boot.command_line);
    let wanted = |part: &str| match boot.option("only") {
        Some(parts) => parts.split(',').any(|other| other == part),
        None => true,
    };
    let offer = detect::find();
    if wanted("fresh") && offer.is_some() {
        fresh::check();
    }
    if offer.is_some() && wanted("hypercall") {
        hypercall::check_before_it_is_enabled();
    }
    let hypercalls = hypervisor::init();
    let count = machine::start(boot);
    println!("conformance: {count} processors");
    match offer.zip(hypercalls) {
        Some((offer, hypercalls)) => {
            let context = Context { offer, hypercalls };
            for (part, check) in HYPERVISOR_PARTS {
                if wanted(part) {
                    println!("conformance: {part}");
                    check(&context);
                }
            }
        }
        None => println!("conformance: not under Partita: only the processor's rules are checked"),
    }
    for (part, check) in PROCESSOR_PARTS {
        if wanted(part) {
            println!("conformance: {part}");
            check();
        }
    }
    if wanted("device") && !boot.has_option("no-devices") && offer.is_some() {
        println!("conformance: device");
        device::check();
    }
    if wanted("isolation") && !boot.has_option("no-devices") && offer.is_some() {
        println!("conformance: isolation");
        isolation::check(boot);
    }
    report::summary();
    if boot.has_option("crash") {
        access::report_crash();
    }
    if boot.has_option("triple-fault") {
        println!("conformance: triple fault");
        vsc_runtime::stop::triple_fault();
    }
    println!("conformance: done");
    power::off()
}
