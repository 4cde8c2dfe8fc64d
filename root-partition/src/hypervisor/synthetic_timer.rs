//! Synthetic timer 0 in direct mode (TLFS, "Synthetic Timers"): one shot at an absolute reference time.
#![allow(unsafe_code)]

use crate::interrupt::TIMER_VECTOR;
use crate::processor::instruction::write_msr;
use hypercall_api::msr::{self, StimerConfig};

/// Configures the timer of this processor; it does not run yet.
pub(super) fn init() {
    // SAFETY: the vector has an entry point.
    unsafe { write_msr(msr::STIMER0_CONFIG, StimerConfig::direct_one_shot(TIMER_VECTOR).0) };
}

/// Lets the timer of this processor expire at the reference time `at`; at once where that is past.
pub fn arm(at: u64) {
    // SAFETY: as above. A count of 0 would stop the timer.
    unsafe { write_msr(msr::STIMER0_COUNT, at.max(1)) };
}
