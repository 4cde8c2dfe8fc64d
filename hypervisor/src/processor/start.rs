//! Bringing the other processors up: INIT, SIPI, a trampoline below 1 MiB (SDM 3, "MP Initialization Protocol").

use super::local::Processor;
use super::stacks::Stack;
use crate::platform::clock;
use crate::platform::local_apic::{self, Ipi};
use crate::platform::registers::tsc;
use core::sync::atomic::{AtomicU32, Ordering};
use freestanding::trampoline::Trampoline;

/// APIC id + 1 of the processor that came up last.
static ARRIVED: AtomicU32 = AtomicU32::new(0);
/// How long a processor may take to come up, in 100 ns: ten seconds, for slow emulators on busy hosts.
const PATIENCE: u64 = 100_000_000;

/// Starts the processor that `processor` describes, at `entry`, on its own work stack. Returns whether it came up.
pub fn start(
    trampoline: &Trampoline,
    processor: &'static Processor,
    entry: extern "C" fn(&'static Processor) -> !,
) -> bool {
    let argument = processor as *const Processor as u64;
    trampoline.arm(processor.stacks.top(Stack::Work), argument, entry as usize as u64);
    local_apic::send(processor.apic_id, Ipi::Init);
    pause(100_000);
    for _ in 0..2 {
        local_apic::send(processor.apic_id, Ipi::Startup(trampoline.vector()));
        if wait_for(processor.apic_id, 20_000) {
            return true;
        }
    }
    wait_for(processor.apic_id, PATIENCE)
}

fn wait_for(apic_id: u32, patience: u64) -> bool {
    let deadline = tsc().saturating_add(clock::tsc_ticks(patience));
    while tsc() < deadline {
        if ARRIVED.load(Ordering::Acquire) == apic_id + 1 {
            return true;
        }
        core::hint::spin_loop();
    }
    false
}

/// Tells the starting processor that the one with `apic_id` runs.
pub fn arrived(apic_id: u32) {
    ARRIVED.store(apic_id + 1, Ordering::Release);
}

/// Spins for `units` of 100 ns.
fn pause(units: u64) {
    let deadline = tsc().saturating_add(clock::tsc_ticks(units));
    while tsc() < deadline {
        core::hint::spin_loop();
    }
}
