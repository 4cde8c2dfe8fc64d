//! Bringing processors up: the boot processor by itself, the others by INIT and SIPI.
#![allow(unsafe_code)]

use super::Processor;
use super::local::{self, MAX_PROCESSORS};
use crate::apic;
use crate::boot::BootInfo;
use crate::hypervisor::time;
use crate::memory::{pages, paging};
use crate::stop;
use core::arch::naked_asm;
use core::sync::atomic::{AtomicUsize, Ordering};
use freestanding::trampoline::Trampoline;

/// How long a processor may take to come up before it counts as absent, in 100 ns: half a second.
const PATIENCE: u64 = 5_000_000;
/// Where the command line says how many there are: ten seconds.
const LONG_PATIENCE: u64 = 100_000_000;
/// Between INIT and SIPI, in 100 ns: ten milliseconds (SDM 3, "Typical BSP Initialization Sequence").
const AFTER_INIT: u64 = 100_000;

/// The function that started processors call, a `fn(&'static Processor)`.
static ENTRY: AtomicUsize = AtomicUsize::new(0);

/// Prepares the boot processor and goes on in `next` on its own stack.
///
/// # Safety
/// To be called once, on the boot processor, with the final page tables.
pub(crate) unsafe fn boot_processor(next: extern "C" fn() -> !) -> ! {
    let Some(boot) = Processor::allocate(0) else {
        stop::cannot_start("there is too little memory for a processor");
    };
    // SAFETY: no other processor runs.
    unsafe { boot.load() };
    boot.apic_id.store(apic::enable(), Ordering::Release);
    boot.running.store(true, Ordering::Release);
    // SAFETY: the stack is new and large enough, and nothing on the old one is needed again.
    unsafe { switch_stack(boot.stack_top, next) }
}

/// Goes on in `next` with the stack that ends at `top`.
#[unsafe(naked)]
unsafe extern "C" fn switch_stack(top: u64, next: extern "C" fn() -> !) -> ! {
    naked_asm!("mov rsp, rdi", "xor ebp, ebp", "call rsi", "ud2")
}

/// Starts the other processors, by ascending APIC id from 1 on, and returns how many run then, the boot processor
/// included. Each calls `entry` with interrupts on; when that returns, it waits for interrupts for good.
///
/// `cpus=N` on the command line says how many processors there are; without it, the first id that does not answer within
/// half a second ends the search.
pub fn start_others(boot: &BootInfo, entry: fn(&'static Processor)) -> usize {
    let told = boot.option("cpus").and_then(|text| text.parse::<usize>().ok());
    let count = told.unwrap_or(MAX_PROCESSORS).min(MAX_PROCESSORS);
    let patience = if told.is_some() { LONG_PATIENCE } else { PATIENCE };
    let Some(page) = pages::take_low() else {
        return 1;
    };
    ENTRY.store(entry as usize, Ordering::Release);
    // SAFETY: the page is RAM below 640 KiB, mapped for this, and was given to nobody before.
    let trampoline = unsafe { Trampoline::new(page, paging::root()) };
    for index in 1..count {
        let Some(processor) = Processor::allocate(index as u32) else {
            break;
        };
        if !start(&trampoline, processor, patience) {
            break;
        }
    }
    local::running()
}

fn start(trampoline: &Trampoline, processor: &'static Processor, patience: u64) -> bool {
    let argument = core::ptr::from_ref(processor) as u64;
    trampoline.arm(
        processor.stack_top,
        argument,
        application_processor as *const () as u64,
    );
    apic::send_init(processor.index);
    time::wait(AFTER_INIT);
    for _ in 0..2 {
        apic::send_startup(processor.index, trampoline.vector());
        if wait_for(patience / 2, || trampoline.is_taken()) {
            break;
        }
    }
    // A processor that has taken the argument runs, however slow it is.
    trampoline.disarm() && wait_for(LONG_PATIENCE, || processor.running.load(Ordering::Acquire))
}

fn wait_for(patience: u64, done: impl Fn() -> bool) -> bool {
    let start = time::now();
    while !done() {
        if time::now().wrapping_sub(start) > patience {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

/// First function of a processor that was started.
extern "C" fn application_processor(processor: &'static Processor) -> ! {
    // SAFETY: the trampoline gave this state to this processor alone.
    unsafe { processor.load() };
    processor.apic_id.store(apic::enable(), Ordering::Release);
    crate::hypervisor::init_processor();
    processor.running.store(true, Ordering::Release);
    // SAFETY: `start_others` stored this function before any processor started.
    let entry: fn(&'static Processor) = unsafe { core::mem::transmute(ENTRY.load(Ordering::Acquire)) };
    x86_64::instructions::interrupts::enable();
    entry(processor);
    loop {
        super::instruction::wait();
    }
}
