//! Handlers and counters, one a vector.
//!
//! Without a handler, an interrupt (vectors 32 and up) is counted and ended at the APIC, an NMI is counted, and an exception
//! stops the guest. Handlers run on the interrupt stack of their processor, with interrupts off.
#![allow(unsafe_code)]

use crate::apic;
use crate::processor::exception::{FIRST_INTERRUPT, Frame, NMI};
use core::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// A handler: it may change the frame.
pub type Handler = fn(&mut Frame);

/// Who ends an interrupt at the APIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The entry point, after the handler.
    Automatic,
    /// The handler or somebody later; or nobody, where the interrupt is ended by itself (AutoEOI).
    Manual,
}

static HANDLERS: [AtomicUsize; 256] = [const { AtomicUsize::new(0) }; 256];
static COUNTS: [AtomicU64; 256] = [const { AtomicU64::new(0) }; 256];
static ENDS: [AtomicU8; 256] = [const { AtomicU8::new(0) }; 256];

/// Lets `handler` be called for `vector`, on every processor.
pub fn set_handler(vector: u8, handler: Handler) {
    HANDLERS[vector as usize].store(handler as usize, Ordering::Release);
}

/// As if `vector` never had a handler.
pub fn clear_handler(vector: u8) {
    HANDLERS[vector as usize].store(0, Ordering::Release);
}

/// Says who ends the interrupt at `vector`.
pub fn set_end(vector: u8, end: End) {
    ENDS[vector as usize].store((end == End::Manual) as u8, Ordering::Release);
}

/// How often `vector` has come, on any processor.
pub fn count(vector: u8) -> u64 {
    COUNTS[vector as usize].load(Ordering::Acquire)
}

/// Handles one vector; false where nobody knows what to do.
pub(crate) fn dispatch(frame: &mut Frame) -> bool {
    let vector = frame.vector as u8;
    COUNTS[vector as usize].fetch_add(1, Ordering::AcqRel);
    let handler = HANDLERS[vector as usize].load(Ordering::Acquire);
    let is_interrupt = vector >= FIRST_INTERRUPT;
    if handler != 0 {
        // SAFETY: only `set_handler` stores here, and it stores handlers.
        let handler: Handler = unsafe { core::mem::transmute(handler) };
        handler(frame);
    }
    if is_interrupt && vector != apic::SPURIOUS_VECTOR && ENDS[vector as usize].load(Ordering::Acquire) == 0 {
        apic::end_of_interrupt();
    }
    handler != 0 || is_interrupt || vector == NMI
}
