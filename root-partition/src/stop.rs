//! How the root ends: power off, reset, the result of commands for whoever started the machine, and failure.
#![allow(unsafe_code)]

use crate::acpi::sleep::SleepType;
use crate::console;
use crate::drivers::serial;
use crate::hypervisor::{hypercalls, time};
use crate::processor::{self, apic, instruction};
use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use hypercall_api::call::Hypercalls;
use hypercall_api::msr;
use hypercall_api::reference::TICKS_PER_SECOND;
use hypercall_api::status::HvStatus;
use hypercall_api::system::SLEEP_STATE_S5;
use x86_64::instructions::port::Port;

/// Written to the debug-exit port where all commands succeeded.
const EXIT_SUCCESS: u32 = 0x10;
/// Written where one failed.
const EXIT_FAILURE: u32 = 0x11;
/// Written where the root itself stopped with a report, as the hypervisor does where it stops.
const EXIT_STOPPED: u32 = 0x12;

static DEBUG_EXIT: AtomicU16 = AtomicU16::new(0);
static REPORTED: AtomicBool = AtomicBool::new(false);
static FAILED: AtomicBool = AtomicBool::new(false);

/// Notes the port of QEMU's `isa-debug-exit` device, from the command line.
pub fn set_debug_exit(port: Option<u16>) {
    DEBUG_EXIT.store(port.unwrap_or(0), Ordering::Relaxed);
}

/// Why the machine was not powered off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PowerError {
    /// The tables do not tell how.
    #[error("the firmware's ACPI tables have no usable \\_S5_ package")]
    NoSoftOff,
    /// The hypervisor refused.
    #[error("the hypervisor did not enter S5: {0}")]
    Refused(#[from] HvStatus),
}

/// Powers the machine off; returns only where that fails.
pub fn power_off(soft_off: Option<SleepType>) -> PowerError {
    let Some(SleepType { pm1a, pm1b }) = soft_off else {
        return PowerError::NoSoftOff;
    };
    serial::flush();
    if let Err(status) = hypercalls().set_sleep_state(SLEEP_STATE_S5, pm1a, pm1b) {
        return status.into();
    }
    hypercalls().enter_sleep_state(SLEEP_STATE_S5).into()
}

/// Resets the machine.
pub fn reset() {
    serial::flush();
    // SAFETY: the machine ends here, as asked.
    unsafe { instruction::write_msr(msr::RESET, 1) };
}

/// Ends a machine that was started to run commands: by the debug-exit port where there is one, by power off otherwise.
pub fn after_commands(succeeded: bool, soft_off: Option<SleepType>) {
    debug_exit(if succeeded { EXIT_SUCCESS } else { EXIT_FAILURE });
    let error = power_off(soft_off);
    console::line(format_args!("the machine cannot be powered off: {error}"));
}

fn debug_exit(value: u32) {
    let port = DEBUG_EXIT.load(Ordering::Relaxed);
    if port != 0 {
        serial::flush();
        // SAFETY: the command line says that the port ends the machine.
        unsafe { Port::new(port).write(value) };
        // The machine takes a moment to end, and goes on where it has no such device.
        let start = time::now();
        while time::now() - start < TICKS_PER_SECOND {
            core::hint::spin_loop();
        }
    }
}

/// Whether the caller may report a failure: only the first does, so that a failure while reporting one ends.
pub fn begin_report() -> bool {
    !REPORTED.swap(true, Ordering::SeqCst)
}

/// Reports a panic and stops the root.
pub fn panic(info: &PanicInfo<'_>) -> ! {
    x86_64::instructions::interrupts::disable();
    if begin_report() {
        let vp = processor::local::current().map_or(0, |local| local.vp);
        let _ = fmt::write(
            &mut console::force(),
            format_args!("\nroot partition stopped: panic on VP {vp}\n  {info}\n"),
        );
    }
    after_failure()
}

/// Reports why the root cannot start, and stops it.
pub fn cannot_start(reason: &dyn fmt::Display) -> ! {
    console::line(format_args!("root partition: cannot start: {reason}"));
    after_failure()
}

/// Whether the root has failed and its processors are to stop.
pub fn has_failed() -> bool {
    FAILED.load(Ordering::Relaxed)
}

/// Stops all processors after a failure that has been reported. A machine that was started for a test ends with a failure.
pub fn after_failure() -> ! {
    x86_64::instructions::interrupts::disable();
    if !FAILED.swap(true, Ordering::SeqCst) {
        serial::flush();
        debug_exit(EXIT_STOPPED);
        let me = processor::local::current().map_or(0, |local| local.vp);
        for other in processor::local::all() {
            if other.vp != me && other.running.load(Ordering::Acquire) {
                apic::send_nmi(other.apic_id.load(Ordering::Acquire));
            }
        }
    }
    instruction::stop()
}
