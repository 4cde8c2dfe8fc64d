//! Synthetic timers (TLFS, "Synthetic Timers"), four a processor.
#![allow(unsafe_code)]

use crate::processor::instruction::{read_msr, write_msr};
use hypercall_api::msr::{STIMER0_CONFIG, STIMER0_COUNT, StimerConfig};

/// Timers of a processor.
pub const TIMERS: u32 = 4;

/// Sets the configuration of timer `index` of this processor.
pub fn configure(index: u32, config: StimerConfig) {
    assert!(index < TIMERS);
    // SAFETY: every vector has an entry point, and messages go into a page that is there for them.
    unsafe { write_msr(STIMER0_CONFIG + 2 * index, config.0) };
}

/// The configuration of timer `index` of this processor.
pub fn config(index: u32) -> StimerConfig {
    assert!(index < TIMERS);
    StimerConfig(read_msr(STIMER0_CONFIG + 2 * index))
}

/// Sets the count of timer `index` of this processor: the reference time at which it expires, or its period; 0 stops it.
pub fn set_count(index: u32, count: u64) {
    assert!(index < TIMERS);
    // SAFETY: as in `configure`.
    unsafe { write_msr(STIMER0_COUNT + 2 * index, count) };
}

/// The count of timer `index` of this processor.
pub fn count(index: u32) -> u64 {
    assert!(index < TIMERS);
    read_msr(STIMER0_COUNT + 2 * index)
}

/// Stops timer `index` of this processor.
pub fn stop(index: u32) {
    set_count(index, 0);
    configure(index, StimerConfig(0));
}
