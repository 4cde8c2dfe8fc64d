//! Processors.
//!
//! | module | holds |
//! |---|---|
//! | [`descriptors`] | GDT, TSS and IDT |
//! | [`exception`] | the entry points of all 256 vectors, and what happens at an exception |
//! | [`instruction`] | single instructions |
//! | [`local`] | what each processor has of its own |
//! | [`start`] | bringing processors up |

pub mod descriptors;
pub mod exception;
pub mod instruction;
pub mod local;
pub mod start;

pub use freestanding::probe;
pub use local::Processor;
