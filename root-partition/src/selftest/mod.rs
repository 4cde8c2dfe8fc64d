//! `hv selftest`: what the root must not do, done for real, and what came of it; and what must work, tried.
//!
//! | module | holds |
//! |---|---|
//! | [`device_interrupt`] | interrupts that a device raises |
//! | [`tasks`] | the executor on all processors |
#![allow(unsafe_code)]

mod device_interrupt;
mod tasks;

use crate::hypervisor::hypercalls;
use crate::memory::heap::{self, Heap};
use crate::processor::probe::{self, Fault};
use crate::processor::{descriptors, local};
use crate::shell::system::{Pending, Selftest};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::arch::asm;
use core::hint::black_box;
use core::ops::Range;
use hypercall_api::call::Hypercalls;
use hypercall_api::code::HypercallCode;
use hypercall_api::control::{HypercallInput, HypercallResult};
use hypercall_api::operator::VIRTUALIZATION_SVM;
use hypercall_api::status::HvStatus;

/// Where processors have their local APIC.
const LOCAL_APIC: u64 = 0xfee0_0000;
/// Where the hypervisor's image is loaded.
const HYPERVISOR_IMAGE: u64 = 0x20_0000;
/// A synthetic MSR that does not exist.
const NO_SUCH_MSR: u32 = 0x4000_00ff;

/// Words that the heap's test allocates at once: 1 MiB.
const HEAP_PIECE: usize = 1 << 17;

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

/// What was seen, or what should have been seen instead.
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
    // name                 ends   what it tries                                                 how
    "hypervisor-memory"     false  "read and write the hypervisor's memory"                      Now(hypervisor_memory);
    "apic-page"             false  "read and write the local APIC's page"                        Now(apic_page);
    "ioapic-page"           false  "read and write the IOAPIC's registers"                       Now(io_apic_page);
    "iommu"                 false  "read and write the IOMMU's registers"                        Now(iommu);
    "msr"                   false  "read and write a synthetic MSR that does not exist"          Now(unknown_msr);
    "virtualization"        false  "start a virtual machine by the processor's own instruction"  Now(virtualization);
    "invalid-hypercall"     false  "make a hypercall that does not exist"                        Now(invalid_hypercall);
    "hypercall-input"       false  "make a hypercall with reserved bits set"                     Now(reserved_bits);
    "hypercall-alignment"   false  "make a hypercall with a misaligned parameter block"          Now(misaligned_input);
    "own-memory"            false  "write the root's own code, use page 0 and the page under the stack" Now(own_memory);
    "heap"                  false  "use more heap than there is, so that it grows"                Now(heap_growth);
    "processors"            false  "run a task and a timer on each processor"                    Waiting(|| Box::pin(tasks::on_each_processor()));
    "wake-ups"              false  "have tasks of two processors wake each other in turn"        Waiting(|| Box::pin(tasks::ping_pong()));
    "device-interrupt"      false  "have a network device raise message-signalled interrupts"    Waiting(|| Box::pin(device_interrupt::run()));
    "triple-fault"          true   "take an exception without an interrupt descriptor table"     Now(triple_fault);
    "panic"                 true   "panic"                                                       Now(panic);
    "stack-overflow"        true   "use more stack than there is"                                Now(stack_overflow);
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

fn hypervisor_memory(targets: &Targets) -> Outcome {
    match hypervisor_address(&targets.ram) {
        Some(address) => refused_memory("the hypervisor's memory", address),
        None => Err(String::from(
            "the memory map leaves no hole that is the hypervisor's",
        )),
    }
}

/// An address of the hypervisor: its image, where the map shows that it has kept that, or the first hole between RAM.
fn hypervisor_address(ram: &[Range<u64>]) -> Option<u64> {
    if !ram.iter().any(|range| range.contains(&HYPERVISOR_IMAGE)) {
        return Some(HYPERVISOR_IMAGE);
    }
    ram.iter().map(|range| range.end).find(|end| {
        *end > 1 << 20
            && !ram.iter().any(|range| range.contains(end))
            && ram.iter().any(|range| range.start > *end)
    })
}

fn apic_page(_: &Targets) -> Outcome {
    refused_memory("the APIC page", LOCAL_APIC)
}

fn io_apic_page(targets: &Targets) -> Outcome {
    match targets.io_apic {
        Some(address) => refused_memory("the IOAPIC", address),
        None => Ok(String::from("the firmware lists no IOAPIC")),
    }
}

fn iommu(_: &Targets) -> Outcome {
    let system = hypercalls()
        .query_system()
        .map_err(|status| format!("{status}"))?;
    match system.iommu.iter().take(system.iommu_count as usize).next() {
        Some(unit) => refused_memory("the IOMMU", unit.register_base),
        None => Ok(String::from("the firmware lists no IOMMU")),
    }
}

/// Reads and writes at `address`, which must raise #GP, or read as all ones and ignore the write.
fn refused_memory(what: &str, address: u64) -> Outcome {
    let read = probe::read(address);
    let seen = match read {
        Err(fault) if is_general_protection(fault) => String::from("reading raises #GP"),
        Ok(value) if value == u64::MAX || value == 0xffff_ffff => String::from("reading gives all ones"),
        Ok(value) => return Err(format!("{what} at {address:#x} could be read: {value:#018x}")),
        Err(fault) => {
            return Err(format!(
                "reading {what} at {address:#x} raised {fault} instead of #GP"
            ));
        }
    };
    // SAFETY: reading it was refused, and a value of zero where a write should not be is what the test looks for.
    match unsafe { probe::write(address, 0) } {
        Err(fault) if is_general_protection(fault) => {
            Ok(format!("{what} at {address:#x}: {seen}, writing raises #GP"))
        }
        Err(fault) => Err(format!(
            "writing {what} at {address:#x} raised {fault} instead of #GP"
        )),
        Ok(()) if probe::read(address) == read => {
            Ok(format!("{what} at {address:#x}: {seen}, a write is ignored"))
        }
        Ok(()) => Err(format!("{what} at {address:#x} could be written")),
    }
}

fn is_general_protection(fault: Fault) -> bool {
    fault.vector == Fault::GENERAL_PROTECTION
}

fn unknown_msr(_: &Targets) -> Outcome {
    let read = probe::read_msr(NO_SUCH_MSR);
    // SAFETY: no MSR has this number.
    let written = unsafe { probe::write_msr(NO_SUCH_MSR, 0) };
    match (read, written) {
        (Err(read), Err(written)) if is_general_protection(read) && is_general_protection(written) => {
            Ok(format!("MSR {NO_SUCH_MSR:#x}: reading and writing raise #GP"))
        }
        (read, written) => Err(format!(
            "MSR {NO_SUCH_MSR:#x} should raise #GP: reading gave {read:?}, writing {written:?}"
        )),
    }
}

fn virtualization(_: &Targets) -> Outcome {
    let system = hypercalls()
        .query_system()
        .map_err(|status| format!("{status}"))?;
    let svm = system.virtualization == VIRTUALIZATION_SVM;
    let name = if svm { "VMRUN" } else { "VMXON" };
    // SAFETY: page 0 holds no control block and no region, so that the instruction fails even where it is let through.
    let outcome = unsafe { if svm { probe::vmrun(0) } else { probe::vmxon(0) } };
    match outcome {
        Err(fault) if matches!(fault.vector, Fault::INVALID_OPCODE | Fault::GENERAL_PROTECTION) => {
            Ok(format!("{name} raises {fault}"))
        }
        Err(fault) => Err(format!("{name} raised {fault} instead of #UD")),
        Ok(()) => Err(format!("{name} was let through")),
    }
}

fn invalid_hypercall(_: &Targets) -> Outcome {
    let control = HypercallInput::fast(HypercallCode(0x7fff)).0;
    // SAFETY: no call has this code.
    let result = unsafe { hypercalls().call(control, 0, 0) };
    expect_status(result, HvStatus::INVALID_HYPERCALL_CODE)
}

fn reserved_bits(_: &Targets) -> Outcome {
    let control = HypercallInput::simple(HypercallCode::GET_PARTITION_ID).0 | 1 << 27;
    // SAFETY: a call that only reads, and that must be refused.
    let result = unsafe { hypercalls().call(control, 0, 0) };
    expect_status(result, HvStatus::INVALID_HYPERCALL_INPUT)
}

fn misaligned_input(_: &Targets) -> Outcome {
    let parameters = &local().parameters;
    let control = HypercallInput::simple(HypercallCode::PARTITA_READ_LOG).0;
    // SAFETY: a call that only reads, into this processor's own output page, and that must be refused.
    let result = unsafe { hypercalls().call(control, parameters.input() + 4, parameters.output()) };
    expect_status(result, HvStatus::INVALID_ALIGNMENT)
}

fn expect_status(result: u64, expected: HvStatus) -> Outcome {
    let status = HypercallResult(result).status();
    match status == expected {
        true => Ok(format!("the call returns {status}")),
        false => Err(format!("the call returned {status} instead of {expected}")),
    }
}

fn own_memory(_: &Targets) -> Outcome {
    // SAFETY: where the write is not refused, it spoils a function that only another test uses.
    let code = unsafe { probe::write(deeper as *const () as u64, 0) };
    let guard = probe::read(local().stack().guard);
    let null = probe::read(0);
    let seen = [
        ("writing its code", code.err()),
        ("reading the page under the stack", guard.err()),
        ("reading page 0", null.err()),
    ];
    for (what, fault) in seen {
        match fault {
            Some(fault) if fault.vector == Fault::PAGE_FAULT => {}
            Some(fault) => return Err(format!("{what} raised {fault} instead of #PF")),
            None => return Err(format!("{what} was let through")),
        }
    }
    Ok(String::from(
        "writing code, the page under the stack and page 0 raise #PF",
    ))
}

/// Allocates until the heap has taken more memory; all of it is freed again, but the heap keeps what it took.
fn heap_growth(targets: &Targets) -> Outcome {
    let (before, _) = heap::usage(targets.heap);
    let mut pieces = Vec::new();
    loop {
        let mut piece: Vec<u64> = Vec::new();
        if piece.try_reserve_exact(HEAP_PIECE).is_err() {
            return Err(format!(
                "an allocation failed with a heap of {} MiB",
                before >> 20
            ));
        }
        piece.push(pieces.len() as u64);
        pieces.push(piece);
        let (after, _) = heap::usage(targets.heap);
        if after > before {
            let intact = pieces
                .iter()
                .enumerate()
                .all(|(index, piece)| piece[..] == [index as u64]);
            return match intact {
                true => Ok(format!(
                    "the heap grew from {} to {} MiB",
                    before >> 20,
                    after >> 20
                )),
                false => Err(String::from("allocations overlap")),
            };
        }
    }
}

fn triple_fault(_: &Targets) -> Outcome {
    // SAFETY: the user asked for it.
    unsafe {
        descriptors::load_null_idt();
        asm!("int3");
    }
    Err(String::from("the root survived"))
}

fn panic(_: &Targets) -> Outcome {
    panic!("asked for by hv selftest")
}

fn stack_overflow(_: &Targets) -> Outcome {
    Err(format!("the root survived {} calls", deeper(0)))
}

fn deeper(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    if depth == u64::MAX {
        return 0;
    }
    deeper(depth + 1) + black_box(frame)[63]
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_hypervisor_is_at_its_image_or_in_the_first_hole() {
        assert_eq!(
            hypervisor_address(&[0..MIB / 2, MIB..2 * MIB, 16 * MIB..64 * MIB]),
            Some(2 * MIB)
        );
        assert_eq!(
            hypervisor_address(&[0..MIB / 2, MIB..48 * MIB, 50 * MIB..64 * MIB]),
            Some(48 * MIB)
        );
        assert_eq!(hypervisor_address(&[0..MIB / 2, MIB..64 * MIB]), None);
    }
}
