//! Logical processors: their state, descriptor tables, interrupt entry and start.
//!
//! | file | holds |
//! |---|---|
//! | [`descriptors`] | GDT, TSS and IDT |
//! | [`interrupts`] | entry of exceptions and interrupts, the vectors, the window in which interrupts are taken |
//! | [`local`] | per-processor state, one instruction away |
//! | [`stacks`] | stacks with guard pages |
//! | [`start`] | bringing processors up |

pub mod descriptors;
pub mod interrupts;
pub mod local;
pub mod stacks;
pub mod start;
