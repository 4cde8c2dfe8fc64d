//! What happens at a vector: a probe gets its fault back, a handler is called, and an exception that nobody expects stops
//! the guest with a report.
#![allow(unsafe_code)]

use crate::{interrupt, stop};
use freestanding::probe;

pub use freestanding::exception::{FIRST_INTERRUPT, Frame, NMI, name};

freestanding::entry_points!("guest_vectors", 256, handle);

unsafe extern "C" {
    static guest_vectors: u8;
}

/// Address of the entry point of `vector`.
pub(super) fn entry(vector: u8) -> u64 {
    (&raw const guest_vectors) as u64 + u64::from(vector) * freestanding::exception::STRIDE
}

/// Handles one vector; returning from it goes on at `frame.rip`.
extern "C" fn handle(frame: &mut Frame) {
    if frame.vector < u64::from(FIRST_INTERRUPT) && probe::recover(frame) {
        return;
    }
    if !interrupt::dispatch(frame) {
        stop::unexpected(frame);
    }
}
