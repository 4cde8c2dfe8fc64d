//! Single instructions that Rust has no words for.
#![allow(unsafe_code)]

use core::arch::asm;
use x86_64::registers::model_specific::Msr;

/// Reads an MSR that the processor (or the hypervisor) is known to have.
pub fn read_msr(msr: u32) -> u64 {
    // SAFETY: reading an MSR changes nothing; one that is missing raises #GP, which is reported.
    unsafe { Msr::new(msr).read() }
}

/// Writes an MSR.
///
/// # Safety
/// The value must not break what runs: addresses in it must be what the MSR takes them for.
pub unsafe fn write_msr(msr: u32, value: u64) {
    // SAFETY: the caller vouches for the value.
    unsafe { Msr::new(msr).write(value) };
}

/// Reads the TSC after all instructions before it have finished, and before any after it starts.
#[inline(always)]
pub fn ordered_tsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading the TSC has no effect.
    unsafe {
        asm!("lfence", "rdtsc", "lfence", out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Stops the processor for good.
pub fn stop() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}
