//! Entry of exceptions and interrupts. The hypervisor runs with interrupts off and takes them in one window only
//! ([`take_pending`], [`wait`]), so a handler never meets a lock that the code under it holds.
#![allow(unsafe_code)]

use super::local::Processor;
use crate::device_interrupt;
use crate::iommu::fault;
use crate::platform::local_apic::{self, Ipi};
use crate::stop;
use core::arch::asm;
use core::sync::atomic::Ordering;
use freestanding::exception::{FIRST_INTERRUPT, Frame, NMI, STRIDE};

/// First vector that a device can be given.
pub const FIRST_DEVICE_VECTOR: u8 = FIRST_INTERRUPT;
/// Last vector that a device can be given.
pub const LAST_DEVICE_VECTOR: u8 = 0xef;
/// The local APIC timer.
pub const ALARM_VECTOR: u8 = 0xf0;
/// Another processor wants this one to look at its work.
pub const POKE_VECTOR: u8 = 0xf1;
/// An IOMMU has refused something.
pub const FAULT_VECTOR: u8 = 0xf2;
/// Local APIC error.
pub const ERROR_VECTOR: u8 = 0xfe;
/// Spurious interrupt; needs no EOI.
pub const SPURIOUS_VECTOR: u8 = 0xff;

freestanding::entry_points!("interrupt_stubs", 256, entered);

unsafe extern "C" {
    static interrupt_stubs: u8;
}

/// Address of the entry stub of `vector`.
pub fn entry_address(vector: u8) -> u64 {
    &raw const interrupt_stubs as u64 + vector as u64 * STRIDE
}

extern "C" fn entered(frame: &mut Frame) {
    match frame.vector as u8 {
        NMI => stop::nmi(),
        vector @ 0..FIRST_INTERRUPT => stop::exception(vector, frame),
        vector => interrupt(vector),
    }
}

fn interrupt(vector: u8) {
    let processor = Processor::current();
    processor.last_vector.set(vector);
    match vector {
        SPURIOUS_VECTOR => return,
        // The alarm's owner looks at the clock by itself.
        ALARM_VECTOR => processor.alarm.set(u64::MAX),
        POKE_VECTOR => {}
        FAULT_VECTOR => fault::take_all(),
        ERROR_VECTOR => log::warn!("local APIC {:#x} reports an error", processor.apic_id),
        vector => device_interrupt::raised(processor.index, vector),
    }
    local_apic::end_of_interrupt();
}

/// Lets the processor take what is pending. Called with interrupts off, returns with interrupts off.
#[inline]
pub fn take_pending() {
    // SAFETY: the handlers touch only what is theirs or atomic, and keep all registers. STI holds interrupts off for one
    // instruction, so the NOP is what they come after.
    unsafe { asm!("sti", "nop", "cli", options(nostack)) }
}

/// Halts until an interrupt arrives. Called with interrupts off, returns with interrupts off; an interrupt that
/// became pending since the caller last looked ends the wait at once.
pub fn wait() {
    // SAFETY: as in `take_pending`; STI holds interrupts off until HLT has begun.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) }
}

/// Makes `processor` look at its work again, wherever it is.
pub fn poke(processor: &Processor) {
    // One poke is enough until it has been seen.
    if !processor.poked.swap(true, Ordering::SeqCst) && processor.index != Processor::current().index {
        local_apic::send(processor.apic_id, Ipi::Fixed(POKE_VECTOR));
    }
}
