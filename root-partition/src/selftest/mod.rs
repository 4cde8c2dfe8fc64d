//! `hv selftest`: what the root must not do, done for real, and what came of it; and what must work, tried.
//!
//! | module | holds |
//! |---|---|
//! | [`device_interrupt`] | interrupts that a device raises |
//! | [`disk`] | a disk whose controller is reset |
//! | [`dma`] | what a device may reach, and what not |
//! | [`dma_child`] | the same for a device of a child's |
//! | [`ending`] | failures that the root does not survive |
//! | [`hypercalls`] | wrong calls of a parent about its children |
//! | [`intercepts`] | what a child does that its parent must hear of |
//! | [`memory`] | the root's own memory |
//! | [`refused`] | accesses that the hypervisor must refuse |
//! | [`report`] | what a test of many rules has seen |
//! | [`tasks`] | the executor on all processors |

mod device_interrupt;
mod disk;
mod dma;
mod dma_child;
mod ending;
mod hypercalls;
mod intercepts;
mod memory;
mod refused;
mod report;
mod tasks;

use crate::memory::heap::Heap;
use crate::shell::system::{Pending, Selftest};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

/// What the tests need to know of the machine.
#[derive(Clone)]
pub struct Targets {
    /// RAM of the root.
    pub ram: Vec<Range<u64>>,
    /// Registers of the first IOAPIC.
    pub io_apic: Option<u64>,
    /// The heap.
    pub heap: &'static Heap,
}

/// What was seen, or what should have been seen instead; a line each where there are several.
pub type Outcome = Result<String, String>;

/// One test.
struct Test {
    about: Selftest,
    how: How,
}

/// How a test runs: in one go, or waiting for something.
enum How {
    Now(fn(&Targets) -> Outcome),
    Waiting(fn() -> Pending<'static, Outcome>),
}

macro_rules! tests {
    ($($name:literal $ends:literal $description:literal $how:expr;)*) => {
        static TESTS: &[Test] = &[$(Test {
            about: Selftest { name: $name, description: $description, ends_system: $ends },
            how: $how,
        }),*];
    };
}

use How::{Now, Waiting};

tests! {
    // name                ends   what it tries                                                 how
    "hypervisor-memory"    false  "read and write the hypervisor's memory"                      Now(refused::hypervisor_memory);
    "apic-page"            false  "read and write the local APIC's page"                        Now(refused::apic_page);
    "ioapic-page"          false  "read and write the IOAPIC's registers"                       Now(refused::io_apic_page);
    "iommu"                false  "read and write the IOMMU's registers"                        Now(refused::iommu);
    "msr"                  false  "read and write a synthetic MSR that does not exist"          Now(refused::unknown_msr);
    "virtualization"       false  "start a virtual machine by the processor's own instruction"  Now(refused::virtualization);
    "invalid-hypercall"    false  "make a hypercall that does not exist"                        Now(refused::invalid_hypercall);
    "hypercall-input"      false  "make a hypercall with reserved bits set"                     Now(refused::reserved_bits);
    "hypercall-alignment"  false  "make a hypercall with a misaligned parameter block"          Now(refused::misaligned_input);
    "hypercalls"           false  "make wrong calls about a child, one line a rule"               Now(|_| hypercalls::parent_side());
    "intercepts"           false  "have a child do what its parent must hear of, one line a rule" Waiting(|| Box::pin(intercepts::run()));
    "own-memory"           false  "write the root's own code, read unmapped pages"              Now(memory::own_memory);
    "heap"                 false  "use more heap than there is, so that it grows"               Now(memory::heap_growth);
    "processors"           false  "run a task and a timer on each processor"                    Waiting(|| Box::pin(tasks::on_each_processor()));
    "wake-ups"             false  "have tasks of two processors wake each other in turn"        Waiting(|| Box::pin(tasks::ping_pong()));
    "device-interrupt"     false  "have a network device raise interrupts by MSI-X and MSI"     Waiting(|| Box::pin(device_interrupt::run()));
    "dma"                  false  "have a device read and write what it may, and what not"      Waiting(|| Box::pin(dma::run()));
    "dma-child"            false  "have a device of a child's reach its memory, and no other"   Waiting(|| Box::pin(dma_child::run()));
    "dma-interrupts"       false  "have a device raise interrupts, its own and others"          Waiting(|| Box::pin(dma::interrupts()));
    "dma-silence"          false  "have a device try what it may not again and again"           Waiting(|| Box::pin(dma::silence()));
    "disk-reset"           false  "reset a disk's controller while all processors read it"     Waiting(|| Box::pin(disk::reset_under_load()));
    "triple-fault"         true   "take an exception without an interrupt descriptor table"     Now(ending::triple_fault);
    "panic"                true   "panic"                                                       Now(ending::panic);
    "stack-overflow"       true   "use more stack than there is"                                Now(ending::stack_overflow);
}

/// The tests, in the order in which they run.
pub fn list() -> impl Iterator<Item = Selftest> {
    TESTS.iter().map(|test| test.about)
}

/// Runs the test `name` on this processor; `None` where there is no such.
pub async fn run(name: &str, targets: &Targets) -> Option<Outcome> {
    let test = TESTS.iter().find(|test| test.about.name == name)?;
    Some(match test.how {
        Now(run) => run(targets),
        Waiting(run) => run().await,
    })
}
