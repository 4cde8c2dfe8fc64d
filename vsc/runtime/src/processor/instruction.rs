//! Single instructions that Rust has no words for.
#![allow(unsafe_code)]

use core::arch::asm;
use core::arch::x86_64::_rdtsc;
use x86_64::registers::model_specific::Msr;

/// Reads an MSR that is known to be there.
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

/// Reads the TSC.
#[inline]
pub fn tsc() -> u64 {
    // SAFETY: reading the TSC has no effect.
    unsafe { _rdtsc() }
}

/// Waits for an interrupt. Interrupts are on afterwards; one that comes between here and there is not missed.
pub fn wait() {
    x86_64::instructions::interrupts::enable_and_hlt();
}

/// Stops the processor for good.
pub fn stop() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

/// Turns on what of XSAVE's state `mask` says (bits of XCR0), and returns what is on then; 0 without XSAVE.
pub fn enable_xsave(mask: u64) -> u64 {
    use core::arch::x86_64::{__cpuid, __cpuid_count};
    use x86_64::registers::control::{Cr4, Cr4Flags};
    if __cpuid(1).ecx & 1 << 26 == 0 {
        return 0;
    }
    let leaf = __cpuid_count(0xd, 0);
    let value = 1 | mask & (u64::from(leaf.edx) << 32 | u64::from(leaf.eax));
    // SAFETY: XSAVE is there, and the value is of components that the processor has; no code depends on their being off.
    unsafe {
        Cr4::update(|flags| *flags |= Cr4Flags::OSXSAVE);
        asm!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nomem, nostack));
    }
    value
}
