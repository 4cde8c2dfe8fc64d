//! How a guest fails: a report on the console, then power off. And how it can be made to.
#![allow(unsafe_code)]

use crate::processor::exception::{self, Frame};
use crate::processor::{descriptors, local};
use crate::{power, serial};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

static FAILED: AtomicBool = AtomicBool::new(false);

/// Whether the caller may report: only the first failure is, so that one while reporting ends.
fn begin() {
    x86_64::instructions::interrupts::disable();
    if FAILED.swap(true, Ordering::SeqCst) {
        crate::processor::instruction::stop();
    }
}

fn index() -> u32 {
    local::current().map_or(0, |processor| processor.index)
}

/// Reports a panic and powers off.
pub fn panic(info: &PanicInfo<'_>) -> ! {
    begin();
    serial::force(format_args!(
        "\nguest stopped: panic on processor {}\n  {info}\n",
        index()
    ));
    power::off()
}

/// Raises an exception that nobody expects.
pub fn provoke_fault() -> ! {
    // SAFETY: the exception is reported, and ends the guest.
    unsafe { core::arch::asm!("ud2", options(noreturn)) }
}

/// Ends in a triple fault.
pub fn triple_fault() -> ! {
    // SAFETY: that is the purpose.
    unsafe {
        descriptors::load_null_idt();
        core::arch::asm!("int3", options(noreturn));
    }
}

/// Reports why the guest cannot start, and powers off.
pub(crate) fn cannot_start(reason: &str) -> ! {
    begin();
    serial::force(format_args!("\nguest cannot start: {reason}\n"));
    power::off()
}

/// Reports an exception that nobody expected, and powers off.
pub(crate) fn unexpected(frame: &Frame) -> ! {
    begin();
    serial::force(format_args!(
        "\nguest stopped: {} on processor {}\n{frame}",
        exception::name(frame.vector as u8),
        index()
    ));
    power::off()
}
