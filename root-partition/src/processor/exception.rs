//! Exceptions: one that a probe provokes goes back to it, an NMI is counted (and obeyed where another processor has
//! failed), any other stops the root with a report.

use super::instruction;
use super::{Local, local};
use crate::stop;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use freestanding::exception::{Frame, NMI};
use freestanding::probe;
use x86_64::registers::control::Cr2;

/// Non-maskable interrupts seen by all processors.
pub static NMI_COUNT: AtomicU64 = AtomicU64::new(0);

const PAGE_FAULT: u64 = 14;

/// Handles one exception; returning from it goes on at `frame.rip`.
pub(super) extern "C" fn handle(frame: &mut Frame) {
    if frame.vector == u64::from(NMI) {
        NMI_COUNT.fetch_add(1, Ordering::Relaxed);
        if stop::has_failed() {
            instruction::stop();
        }
    } else if !probe::recover(frame) {
        if stop::begin_report() {
            report(frame);
        }
        stop::after_failure();
    }
}

fn report(frame: &Frame) {
    let mut console = crate::console::force();
    let vp = local::current().map_or(0, |local| local.vp);
    let _ = fmt::write(
        &mut console,
        format_args!("\nroot partition stopped: exception on VP {vp}\n{frame}"),
    );
    if frame.vector == PAGE_FAULT {
        let address = Cr2::read_raw();
        if local::current().is_some_and(|local| stack_overflowed(local, address)) {
            let _ = fmt::write(
                &mut console,
                format_args!("  CR2 {address:016x}: a stack overflow\n"),
            );
        }
    }
}

fn stack_overflowed(local: &Local, address: u64) -> bool {
    local.stack().is_guard(address)
}
