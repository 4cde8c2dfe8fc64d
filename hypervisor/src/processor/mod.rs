//! Logical processors: their state, descriptor tables, interrupt entry and start.
//!
//! | file | holds |
//! |---|---|
//! | [`descriptors`] | GDT, TSS and IDT |
//! | [`extended_state`] | what is switched between VPs only: x87, AVX, debug registers |
//! | [`interrupts`] | entry of exceptions and interrupts, the vectors, the window in which interrupts are taken |
//! | [`local`] | per-processor state, one instruction away |
//! | [`quiesce`] | waiting until other processors have let go |
//! | [`stacks`] | stacks with guard pages |
//! | [`start`] | bringing processors up |

pub mod descriptors;
pub mod extended_state;
pub mod interrupts;
pub mod local;
pub mod quiesce;
pub mod stacks;
pub mod start;
