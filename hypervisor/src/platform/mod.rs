//! The machine around the processors: what it has, and the few devices that the hypervisor drives.
//!
//! | module | holds |
//! |---|---|
//! | [`acpi`] | what the ACPI tables say, checked |
//! | [`dmar`] | VT-d remapping hardware |
//! | [`fadt`] | power management registers |
//! | [`madt`] | processors and interrupt controllers |

pub mod acpi;
pub mod dmar;
pub mod fadt;
pub mod madt;
mod table;

pub use table::{AcpiError, Signature};
