//! The machine around the processors: what it has, and the few devices that the hypervisor drives.
//!
//! | module | holds |
//! |---|---|
//! | [`acpi`] | what the ACPI tables say, checked |
//! | [`clock`] | the time stamp counter, the alarm, and their calibration |
//! | [`dmar`] | VT-d remapping hardware |
//! | [`emulator`] | what QEMU's TCG gets wrong |
//! | [`fadt`] | power management registers |
//! | [`io_apic`] | the I/O APICs |
//! | [`local_apic`] | this processor's local APIC |
//! | [`madt`] | processors and interrupt controllers |
//! | [`registers`] | model-specific registers and CPUID |
//! | [`serial`] | the log's serial port |

pub mod acpi;
pub mod clock;
pub mod dmar;
pub mod emulator;
pub mod fadt;
pub mod io_apic;
pub mod local_apic;
pub mod madt;
pub mod registers;
pub mod serial;
mod table;

pub use table::{AcpiError, Signature};
