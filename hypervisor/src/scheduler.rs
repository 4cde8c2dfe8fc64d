//! The run loop of a logical processor: its VP while that can run, sleep while it cannot.
//!
//! Interrupts are off throughout but for the windows in [`interrupts`]. Whoever gives a VP work pokes its processor, and
//! the processor looks at everything again before it runs a guest or sleeps.

use crate::exit;
use crate::partition::vp::{Resume, Vp, VpSlot, VpState};
use crate::platform::clock;
use crate::platform::registers::tsc;
use crate::processor::interrupts;
use crate::processor::local::Processor;
use crate::virtualization::VirtualProcessor;
use core::sync::atomic::Ordering;

/// Runs `slot`'s VP on this processor, for ever.
pub fn run(processor: &'static Processor, slot: &'static VpSlot) -> ! {
    let mut vp = slot.owned.lock();
    loop {
        processor.poked.store(false, Ordering::SeqCst);
        vp.obey();
        match slot.shared.state() {
            VpState::Runnable => run_vp(processor, &mut vp),
            VpState::Halted if vp.has_work() => slot.shared.wake(),
            _ => idle(processor, &vp),
        }
    }
}

/// Runs `vp` until it leaves, or somebody pokes the processor.
fn run_vp(processor: &Processor, vp: &mut Vp) {
    vp.enter_run(tsc());
    loop {
        if processor.poked.swap(false, Ordering::SeqCst) && vp.is_called_off() {
            processor.poked.store(true, Ordering::SeqCst);
            break;
        }
        vp.prepare();
        set_alarm(processor, vp.deadline);
        let exit = vp.hardware.enter(&mut vp.registers);
        match exit::handle(vp, exit) {
            Resume::Guest => {}
            Resume::AfterInterrupt => interrupts::take_pending(),
            Resume::Leave => break,
        }
        vp.account(tsc());
    }
    vp.account(tsc());
}

/// Sleeps until an interrupt, unless somebody has poked the processor since it last looked.
fn idle(processor: &Processor, vp: &Vp) {
    set_alarm(processor, vp.deadline);
    let start = tsc();
    if !processor.poked.load(Ordering::SeqCst) {
        interrupts::wait();
    }
    processor
        .idle_ticks
        .fetch_add(tsc().wrapping_sub(start), Ordering::Relaxed);
}

#[inline]
fn set_alarm(processor: &Processor, deadline: u64) {
    if processor.alarm.get() != deadline {
        processor.alarm.set(deadline);
        clock::set_alarm(deadline);
    }
}
