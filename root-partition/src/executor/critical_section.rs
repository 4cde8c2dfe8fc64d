//! The critical section of embassy's crates: interrupts off, and one lock for all processors.
//!
//! Interrupts alone would do on one processor. The lock knows its owner, so that a section inside a section, which embassy
//! allows, does not wait for itself.
#![cfg(not(test))]
#![allow(unsafe_code)]

use crate::processor::local;
use core::sync::atomic::{AtomicU32, Ordering};
use critical_section::{Impl, RawRestoreState};
use x86_64::instructions::interrupts;

/// No processor is inside.
const NOBODY: u32 = u32::MAX;

static OWNER: AtomicU32 = AtomicU32::new(NOBODY);
static DEPTH: AtomicU32 = AtomicU32::new(0);

struct Section;
critical_section::set_impl!(Section);

// SAFETY: between `acquire` and the matching `release` no other processor passes `acquire`, and this one takes no interrupt.
unsafe impl Impl for Section {
    unsafe fn acquire() -> RawRestoreState {
        let were_enabled = interrupts::are_enabled();
        interrupts::disable();
        let me = local().vp;
        if OWNER.load(Ordering::Relaxed) != me {
            while OWNER
                .compare_exchange_weak(NOBODY, me, Ordering::Acquire, Ordering::Relaxed)
                .is_err()
            {
                core::hint::spin_loop();
            }
        }
        DEPTH.fetch_add(1, Ordering::Relaxed);
        were_enabled
    }

    unsafe fn release(were_enabled: RawRestoreState) {
        if DEPTH.fetch_sub(1, Ordering::Relaxed) == 1 {
            OWNER.store(NOBODY, Ordering::Release);
        }
        if were_enabled {
            interrupts::enable();
        }
    }
}
