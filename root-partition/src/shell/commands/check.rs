//! `hv check`: the hardware that Partita needs or could use, found or missing.

use hypercall_api::operator::{HardwareSupport as Hardware, IommuInfo, SystemInfo, VIRTUALIZATION_SVM};

use super::{Invocation, Outcome, info, iommu};
use crate::shell::output::{Report, Table, Value};
use Found::{Bit, EveryIommu, System};
use Need::{Needed, Useful};

/// Whether Partita works without it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Needed,
    Useful,
}

/// How it is looked for.
enum Found {
    Bit(Hardware),
    /// On every IOMMU unit, and there is one.
    EveryIommu(fn(&IommuInfo) -> bool),
    System(fn(&SystemInfo) -> bool),
}

/// One piece of hardware.
struct Check {
    name: &'static str,
    need: Need,
    found: Found,
    purpose: &'static str,
    without: &'static str,
}

const fn check(
    name: &'static str,
    need: Need,
    found: Found,
    purpose: &'static str,
    without: &'static str,
) -> Check {
    Check {
        name,
        need,
        found,
        purpose,
        without,
    }
}

#[rustfmt::skip]
static CHECKS: &[Check] = &[
    check("virtualization",          Needed, System(|system| system.virtualization != 0),
          "partitions",                        "nothing runs: turn on SVM or VT-x in the firmware"),
    check("nested paging",           Needed, Bit(Hardware::NESTED_PAGING),
          "memory isolation",                  "nothing runs: the processor is too old"),
    check("1 GiB pages",             Useful, Bit(Hardware::GIB_PAGES),
          "fewer TLB misses",                  "2 MiB mappings at most: more page tables, TLB misses"),
    check("x2APIC",                  Useful, Bit(Hardware::X2APIC),
          "interrupts",                        "slower memory-mapped local APIC; at most 255 LPs"),
    check("TSC deadline",            Useful, Bit(Hardware::TSC_DEADLINE),
          "exact timers",                      "timers by the APIC's counter: coarser, two writes"),
    check("invariant TSC",           Useful, Bit(Hardware::INVARIANT_TSC),
          "time in guests",                    "clocks drift when the processor changes its frequency"),
    check("TSC scaling",             Useful, Bit(Hardware::TSC_SCALING),
          "moving saved guests",               "saved guests resume only at the same TSC frequency"),
    check("XSAVE",                   Useful, Bit(Hardware::XSAVE),
          "AVX in guests",                     "guests have SSE but no AVX"),
    check("next RIP",                Useful, Bit(Hardware::NEXT_RIP),
          "fast exits",                        "instruction lengths are decoded in software"),
    check("decode assists",          Useful, Bit(Hardware::DECODE_ASSISTS),
          "fast emulation",                    "instructions are fetched from guest memory"),
    check("flush by ASID",           Useful, Bit(Hardware::FLUSH_BY_ASID),
          "fast TLB flushes",                  "flushing one guest's TLB entries flushes all guests'"),
    check("VMCB clean bits",         Useful, Bit(Hardware::VMCB_CLEAN),
          "fast entries",                      "each entry loads the whole VP state"),
    check("virtual GIF",             Useful, Bit(Hardware::VIRTUAL_GIF),
          "hypervisors in guests",             "STGI and CLGI of a nested hypervisor exit"),
    check("virtual APIC",            Useful, Bit(Hardware::VIRTUAL_APIC),
          "interrupts without exits",          "IPIs and end-of-interrupt writes of guests exit"),
    check("pause filter",            Useful, Bit(Hardware::PAUSE_FILTER),
          "overcommitted processors",          "a VP that waits for a lock spins its whole time slice"),
    check("PCI ECAM",                Useful, Bit(Hardware::ECAM),
          "PCI configuration",                 "slow port access; no AER, SR-IOV or ATS"),
    check("IOMMU",                   Useful, Bit(Hardware::IOMMU),
          "DMA isolation",                     "no device assignment; devices can overwrite anything"),
    check("interrupt remapping",     Useful, Bit(Hardware::INTERRUPT_REMAPPING),
          "device assignment",                 "no device assignment: devices could forge interrupts"),
    check("extended interrupt mode", Useful, Bit(Hardware::EXTENDED_INTERRUPT_MODE),
          "remapping in x2APIC mode",          "interrupts reach only LPs with an APIC id below 256"),
    check("queued invalidation",     Useful, Bit(Hardware::QUEUED_INVALIDATION),
          "fast unmapping",                    "no interrupt remapping; slow register invalidation"),
    check("IOMMU 48-bit addresses",  Useful, EveryIommu(iommu::four_levels),
          "devices of large guests",           "assigned devices reach a guest's first 512 GiB only"),
    check("IOMMU large pages",       Useful, EveryIommu(iommu::large_pages),
          "fast DMA",                          "larger I/O page tables; more IOTLB misses"),
    check("IOMMU pass-through",      Useful, EveryIommu(iommu::pass_through),
          "trusted devices",                   "the root's devices always go through page tables"),
    check("IOMMU coherent walks",    Useful, EveryIommu(iommu::coherent),
          "cheap mapping",                     "each I/O page table change flushes cache lines"),
    check("posted interrupts",       Useful, EveryIommu(iommu::posted_interrupts),
          "assigned devices",                  "each interrupt of an assigned device exits"),
];

impl Check {
    /// What only one vendor has says nothing of the other's processors.
    fn applies(&self, system: &SystemInfo) -> bool {
        let of_svm = Hardware::VMCB_CLEAN | Hardware::VIRTUAL_GIF | Hardware::DECODE_ASSISTS;
        match self.found {
            Bit(bit) if of_svm.contains(bit) => system.virtualization == VIRTUALIZATION_SVM,
            _ => true,
        }
    }

    fn found(&self, system: &SystemInfo) -> bool {
        match self.found {
            Bit(bit) => Hardware::from_bits_truncate(system.hardware).contains(bit),
            EveryIommu(has) => {
                let units = iommu::units(system);
                !units.is_empty() && units.iter().all(has)
            }
            System(has) => has(system),
        }
    }
}

pub(super) fn run(invocation: &Invocation<'_>) -> Outcome {
    let system = invocation.system.information()?;
    let mut checks = Table::new(
        "checks",
        &[
            ("name", "hardware"),
            ("found", ""),
            ("", "state"),
            ("need", "need"),
            ("purpose", "what for"),
            ("without", ""),
        ],
    );
    let mut missing = Table::new("", &[("", "missing"), ("", "what its absence costs")]);
    let mut needed_missing = alloc::vec::Vec::new();
    let mut useful_missing = alloc::vec::Vec::new();
    for check in CHECKS.iter().filter(|check| check.applies(&system)) {
        let found = check.found(&system);
        let (need, absent) = match check.need {
            Needed => ("needed", &mut needed_missing),
            Useful => ("useful", &mut useful_missing),
        };
        checks.row([
            Value::text(check.name),
            Value::Flag(found),
            Value::text(if found { "found" } else { "missing" }),
            Value::text(need),
            Value::text(check.purpose),
            Value::text(check.without),
        ]);
        if !found {
            absent.push(check.name);
            missing.row([Value::text(check.name), Value::text(check.without)]);
        }
    }
    let verdict = match (needed_missing.is_empty(), useful_missing.is_empty()) {
        (true, true) => "all that Partita can use is here",
        (true, false) => "Partita runs; what is missing costs speed or a feature",
        (false, _) => "Partita cannot run here as it should: needed hardware is missing",
    };
    let mut report = Report::new();
    report.failed = !needed_missing.is_empty();
    report.push_table(checks);
    if !missing.rows.is_empty() {
        report.push_table(missing);
    }
    if !iommu::units(&system).is_empty() {
        report.push_table(iommu::table(&system));
    }
    report.push_fields(
        "",
        [
            (
                "virtualization",
                "virtualization",
                Value::text(info::virtualization(&system)),
            ),
            ("needed_missing", "needed, missing", Value::texts(needed_missing)),
            (
                "useful_missing_count",
                "useful, missing",
                Value::Number(useful_missing.len() as u64),
            ),
            ("verdict", "verdict", Value::text(verdict)),
        ],
    );
    Ok(report)
}
