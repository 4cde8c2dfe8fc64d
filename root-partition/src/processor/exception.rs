//! Exceptions: one that a probe provokes goes back to it, an NMI is counted (and obeyed where another processor has
//! failed), any other stops the root with a report.

use super::instruction;
use super::{Local, local};
use crate::memory::address_space;
use crate::memory::frames::FRAME_SIZE;
use crate::stop;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU64, Ordering};
use freestanding::exception::{Frame, NMI};
use freestanding::probe::{self, Fault};
use x86_64::registers::control::Cr2;

/// Non-maskable interrupts seen by all processors.
pub static NMI_COUNT: AtomicU64 = AtomicU64::new(0);

/// Words of the stack that a report shows.
const STACK_WORDS: usize = 8;

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
    if let Some(words) = top_of_stack(frame) {
        let _ = console.write_str("  stack");
        for word in words {
            let _ = fmt::write(&mut console, format_args!(" {word:016x}"));
        }
        let _ = console.write_str("\n");
    }
    if frame.vector == u64::from(Fault::PAGE_FAULT) {
        let address = Cr2::read_raw();
        if local::current().is_some_and(|local| stack_overflowed(local, address)) {
            let _ = fmt::write(
                &mut console,
                format_args!("  CR2 {address:016x}: a stack overflow\n"),
            );
        }
    }
}

/// What lies on the stack where a #GP has found it. A fault while it is read would take this handler's own stack, so nothing is read that is
/// not RAM, nor beyond the page that the stack pointer is in.
fn top_of_stack(frame: &Frame) -> Option<[u64; STACK_WORDS]> {
    let rsp = frame.rsp;
    let end = rsp.checked_add(8 * STACK_WORDS as u64)?;
    if frame.vector != u64::from(Fault::GENERAL_PROTECTION)
        || !rsp.is_multiple_of(8)
        || rsp / FRAME_SIZE != (end - 1) / FRAME_SIZE
        || !address_space::has_ram(&(rsp..end))
    {
        return None;
    }
    let mut words = [0; STACK_WORDS];
    for (address, word) in (rsp..end).step_by(8).zip(&mut words) {
        *word = probe::read(address).ok()?;
    }
    Some(words)
}

fn stack_overflowed(local: &Local, address: u64) -> bool {
    local.stack().is_guard(address)
}
