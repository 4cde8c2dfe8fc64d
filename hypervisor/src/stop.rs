//! The end: a report on the serial port, and every processor halted. The hypervisor ends so where it finds itself wrong,
//! or the root is beyond help.
#![allow(unsafe_code)]

use crate::log as logger;
use crate::platform::local_apic::{self, Ipi};
use crate::platform::serial::Serial;
use crate::processor::local::Processor;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use freestanding::exception::{self, Frame};
use x86_64::instructions::port::Port;

/// Port of the console; reports go there whoever owns it.
static CONSOLE: AtomicU16 = AtomicU16::new(DEFAULT_CONSOLE);
/// COM1.
pub const DEFAULT_CONSOLE: u16 = 0x3f8;
/// Port of QEMU's `isa-debug-exit`, where the command line names one; 0 otherwise.
static DEBUG_EXIT: AtomicU16 = AtomicU16::new(0);
/// What is written to it after a report: QEMU exits with status 37.
const STOPPED: u32 = 0x12;
static STOPPING: AtomicBool = AtomicBool::new(false);

/// Takes note of the ports that the command line names.
pub fn set_ports(console: u16, debug_exit: u16) {
    CONSOLE.store(console, Ordering::Relaxed);
    DEBUG_EXIT.store(debug_exit, Ordering::Relaxed);
}

/// The console's port.
pub fn console() -> u16 {
    CONSOLE.load(Ordering::Relaxed)
}

/// Reports `text`, stops every processor and halts.
pub fn with_report(text: fmt::Arguments<'_>) -> ! {
    x86_64::instructions::interrupts::disable();
    if STOPPING.swap(true, Ordering::SeqCst) {
        halt();
    }
    stop_others();
    // SAFETY: every other processor is stopped or about to be, so the port is ours.
    let mut console = unsafe { Serial::new(console()) };
    console.initialize();
    logger::last_words(&mut console, text);
    logger::last_words(&mut console, format_args!("the machine is halted"));
    let port = DEBUG_EXIT.load(Ordering::Relaxed);
    if port != 0 {
        // SAFETY: the command line says that this port ends the emulator.
        unsafe { Port::new(port).write(STOPPED) };
    }
    halt()
}

fn stop_others() {
    if Processor::count() == 0 {
        return;
    }
    let own = Processor::current().index;
    for processor in Processor::all().filter(|processor| processor.index != own) {
        local_apic::send(processor.apic_id, Ipi::Nmi);
    }
}

/// Halts this processor for good.
pub fn halt() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

/// An NMI: another processor stops the machine, or the hardware reports something that we cannot know.
pub fn nmi() {
    if STOPPING.load(Ordering::SeqCst) {
        halt();
    }
    log::error!("NMI on processor {}", Processor::current().index);
}

/// An exception in the hypervisor itself.
pub fn exception(vector: u8, frame: &Frame) -> ! {
    let processor = Processor::current().index;
    with_report(format_args!(
        "exception {vector} ({}) in the hypervisor on processor {processor}\n{frame}",
        exception::name(vector)
    ))
}
