//! Partita's hypervisor: it owns the processors, the interrupts and the IOMMU, and runs partitions.
//!
//! | module | holds |
//! |---|---|
//! | [`boot`] | from the boot loader to the root partition's first instruction |
//! | [`cpuid`] | CPUID as guests see it |
//! | [`device_interrupt`] | which VP each device interrupt belongs to |
//! | [`exit`] | the one `match` over everything that a guest can do |
//! | `fuzz` | entries for fuzzers, on the host |
//! | [`hypercall`] | the table of hypercalls and their handlers |
//! | [`intercept`] | exits that are refused, and the end of a partition |
//! | [`iommu`] | what devices can reach, and which interrupts they can raise |
//! | [`log`] | the log ring and the serial port |
//! | [`memory`] | frames, the hypervisor's page tables, partitions' nested page tables |
//! | [`migration`] | moving VPs between logical processors |
//! | [`msr`] | MSRs as guests see them |
//! | [`partition`] | partitions, VPs, their APIC, SynIC and timers |
//! | [`platform`] | ACPI, local and I/O APICs, clocks, serial port |
//! | [`power`] | power-off and reset |
//! | [`processor`] | logical processors: state, interrupt entry, start |
//! | [`rate`] | limits on what a guest can make the log say |
//! | [`scheduler`] | the run loop of a logical processor |
//! | [`stop`] | the end, with a report |
//! | [`system`] | what the machine and the hypervisor are |
//! | [`virtualization`] | the trait over AMD-V and VT-x, and the SVM backend |
#![cfg_attr(not(any(test, feature = "fuzz")), no_std)]

pub mod boot;
pub mod cpuid;
pub mod device_interrupt;
pub mod exit;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod hypercall;
pub mod intercept;
pub mod iommu;
pub mod log;
pub mod memory;
pub mod migration;
pub mod msr;
pub mod partition;
pub mod platform;
pub mod power;
pub mod processor;
pub mod rate;
pub mod scheduler;
pub mod stop;
pub mod system;
pub mod virtualization;

/// Version: major, minor, patch.
pub const VERSION: [u32; 3] = [0, 1, 0];
