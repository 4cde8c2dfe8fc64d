//! Processors.
//!
//! | module | holds |
//! |---|---|
//! | [`descriptors`] | GDT, TSS and IDT |
//! | [`exception`] | what happens at an exception |
//! | [`instruction`] | single instructions |
//! | [`local`] | what each processor has of its own |
//! | [`probe`] | accesses that may fault |
//! | [`start`] | bringing processors up |
//! | `trampoline` | the code in which they start |
//! | `vectors` | the entry points of all 256 vectors |

pub mod descriptors;
pub mod exception;
pub mod instruction;
pub mod local;
pub mod probe;
pub mod start;
mod trampoline;
mod vectors;

pub use local::Processor;
