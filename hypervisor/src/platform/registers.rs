//! Model-specific registers and the few processor instructions that the `x86_64` crate has no safe form of.
#![allow(unsafe_code)]

use core::arch::asm;
use core::arch::x86_64::{__cpuid_count, _rdtsc, CpuidResult};
use x86_64::registers::control::{Cr4, Cr4Flags};
use x86_64::registers::model_specific::Msr;

/// IA32_TIME_STAMP_COUNTER.
pub const TSC: u32 = 0x10;
/// IA32_APIC_BASE.
pub const APIC_BASE: u32 = 0x1b;
/// IA32_TSC_DEADLINE.
pub const TSC_DEADLINE: u32 = 0x6e0;
/// IA32_PAT.
pub const PAT: u32 = 0x277;
/// IA32_MCG_CAP.
pub const MCG_CAP: u32 = 0x179;
/// IA32_MCG_STATUS.
pub const MCG_STATUS: u32 = 0x17a;
/// IA32_MTRRCAP.
pub const MTRR_CAP: u32 = 0xfe;
/// IA32_MTRR_DEF_TYPE.
pub const MTRR_DEF_TYPE: u32 = 0x2ff;
/// EFER.
pub const EFER: u32 = 0xc000_0080;
/// IA32_GS_BASE.
pub const GS_BASE: u32 = 0xc000_0101;

/// Reads an MSR.
///
/// # Safety
/// The processor must have the MSR.
pub unsafe fn read_msr(msr: u32) -> u64 {
    // SAFETY: the caller knows that the MSR is there; reading has no effect on memory.
    unsafe { Msr::new(msr).read() }
}

/// Writes an MSR.
///
/// # Safety
/// The processor must have the MSR, and the value must leave the hypervisor's own state valid.
pub unsafe fn write_msr(msr: u32, value: u64) {
    // SAFETY: the caller vouches for MSR and value.
    unsafe { Msr::new(msr).write(value) }
}

/// Executes CPUID.
pub fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    __cpuid_count(leaf, subleaf)
}

/// Reads the time stamp counter.
#[inline]
pub fn tsc() -> u64 {
    // SAFETY: reading the TSC has no effect; every 64-bit processor has it.
    unsafe { _rdtsc() }
}

/// Turns on XSAVE for this processor, where it has it.
pub fn enable_xsave() {
    if cpuid(1, 0).ecx & 1 << 26 != 0 {
        // SAFETY: the processor has XSAVE; setting OSXSAVE changes nothing else.
        unsafe { Cr4::update(|flags| flags.insert(Cr4Flags::OSXSAVE)) }
    }
}

/// Writes the caches back and empties them.
pub fn write_back_caches() {
    // SAFETY: WBINVD loses nothing.
    unsafe { asm!("wbinvd", options(nostack)) }
}
