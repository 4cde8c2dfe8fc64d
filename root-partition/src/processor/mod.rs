//! The root's virtual processors.
//!
//! | module | holds |
//! |---|---|
//! | [`apic`] | the local APIC by its x2APIC MSRs |
//! | [`descriptors`] | GDT, TSS and IDT |
//! | [`exception`] | what happens on an exception |
//! | [`instruction`] | single instructions: CPUID, MSRs, TSC |
//! | [`local`] | what each processor has of its own |
//! | [`random`] | random numbers |
//! | [`start`] | bringing the processors up |
//! | [`vectors`] | the 256 entry points |

pub mod apic;
pub mod descriptors;
pub mod exception;
pub mod instruction;
pub mod local;
pub mod random;
pub mod start;
pub mod vectors;

pub use freestanding::probe;
pub use local::{Local, local};
