//! The physical local APIC: x2APIC where the processor has it, the xAPIC page otherwise (SDM 3, chapter "APIC").
#![allow(unsafe_code)]

use super::registers::{APIC_BASE, cpuid, read_msr, write_msr};
use core::sync::atomic::{AtomicU64, Ordering};

/// Registers, as offsets in units of 16 bytes; MSR `0x800 + n` in x2APIC mode.
mod register {
    pub(super) const ID: u32 = 0x02;
    pub(super) const EOI: u32 = 0x0b;
    pub(super) const SPURIOUS: u32 = 0x0f;
    pub(super) const ERROR_STATUS: u32 = 0x28;
    pub(super) const ICR_LOW: u32 = 0x30;
    pub(super) const ICR_HIGH: u32 = 0x31;
    pub(super) const LVT_TIMER: u32 = 0x32;
    pub(super) const LVT_LINT0: u32 = 0x35;
    pub(super) const LVT_LINT1: u32 = 0x36;
    pub(super) const LVT_ERROR: u32 = 0x37;
    pub(super) const INITIAL_COUNT: u32 = 0x38;
    pub(super) const CURRENT_COUNT: u32 = 0x39;
    pub(super) const DIVIDE: u32 = 0x3e;
}

/// IA32_APIC_BASE: enabled.
const BASE_ENABLED: u64 = 1 << 11;
/// IA32_APIC_BASE: in x2APIC mode.
const BASE_X2APIC: u64 = 1 << 10;
const LVT_MASKED: u32 = 1 << 16;
const LVT_TSC_DEADLINE: u32 = 2 << 17;
const ICR_PENDING: u32 = 1 << 12;

/// What an inter-processor interrupt does at its target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ipi {
    /// Raises a vector.
    Fixed(u8),
    /// Raises an NMI.
    Nmi,
    /// Resets the processor into wait-for-SIPI.
    Init,
    /// Starts a processor that waits, in real mode at `page << 12`.
    Startup(u8),
}

impl Ipi {
    fn command(self) -> u32 {
        match self {
            Self::Fixed(vector) => vector as u32 | 1 << 14,
            Self::Nmi => 4 << 8 | 1 << 14,
            Self::Init => 5 << 8 | 1 << 14,
            Self::Startup(page) => page as u32 | 6 << 8 | 1 << 14,
        }
    }
}

/// Base of the xAPIC page, or 0 in x2APIC mode. Written once, by the first processor.
static XAPIC_PAGE: AtomicU64 = AtomicU64::new(0);

fn read(register: u32) -> u32 {
    match XAPIC_PAGE.load(Ordering::Relaxed) {
        // SAFETY: the processor is in x2APIC mode, where these MSRs exist.
        0 => unsafe { read_msr(0x800 + register) as u32 },
        // SAFETY: the page is the local APIC's and mapped as device memory; only this processor's registers are there.
        page => unsafe { ((page + register as u64 * 16) as *const u32).read_volatile() },
    }
}

fn write(register: u32, value: u32) {
    match XAPIC_PAGE.load(Ordering::Relaxed) {
        // SAFETY: as in `read`; no APIC register touches memory.
        0 => unsafe { write_msr(0x800 + register, value as u64) },
        // SAFETY: as in `read`.
        page => unsafe { ((page + register as u64 * 16) as *mut u32).write_volatile(value) },
    }
}

/// Whether the processor has x2APIC.
pub fn has_x2apic() -> bool {
    cpuid(1, 0).ecx & 1 << 21 != 0
}

/// Whether the processors' local APICs are used in x2APIC mode; known once the first one's is.
pub fn uses_x2apic() -> bool {
    XAPIC_PAGE.load(Ordering::Relaxed) == 0
}

/// Whether the local APIC timer can run to a TSC deadline.
pub fn has_tsc_deadline() -> bool {
    cpuid(1, 0).ecx & 1 << 24 != 0
}

/// Whether this processor's local APIC is in x2APIC mode, as firmware may have left it.
fn in_x2apic_mode() -> bool {
    // SAFETY: every 64-bit processor has IA32_APIC_BASE.
    unsafe { read_msr(APIC_BASE) & BASE_X2APIC != 0 }
}

/// Turns on the local APIC of the first processor, in the mode in which it is: clocks are calibrated before
/// [`enter_x2apic`], because QEMU's instruction counting cannot read the timer's count through an MSR.
pub fn enable_first(spurious_vector: u8, error_vector: u8) {
    // SAFETY: as above; enabling the APIC changes no memory.
    unsafe {
        let base = read_msr(APIC_BASE);
        if !in_x2apic_mode() {
            XAPIC_PAGE.store(base & 0x000f_ffff_ffff_f000, Ordering::Relaxed);
        }
        write_msr(APIC_BASE, base | BASE_ENABLED);
    }
    initialize(spurious_vector, error_vector);
}

/// Changes the first processor's APIC to x2APIC mode, where the processor has it.
pub fn enter_x2apic() {
    if has_x2apic() {
        // SAFETY: the processor has x2APIC; its registers keep their values (SDM 3, 11.12.5).
        unsafe { write_msr(APIC_BASE, read_msr(APIC_BASE) | BASE_ENABLED | BASE_X2APIC) }
        XAPIC_PAGE.store(0, Ordering::Relaxed);
    }
}

/// Turns on the local APIC of a processor that was started after the first.
pub fn enable_other(spurious_vector: u8, error_vector: u8) {
    // SAFETY: every 64-bit processor has IA32_APIC_BASE; x2APIC mode is entered through xAPIC mode.
    unsafe {
        let base = read_msr(APIC_BASE) | BASE_ENABLED;
        write_msr(APIC_BASE, base);
        if uses_x2apic() {
            write_msr(APIC_BASE, base | BASE_X2APIC);
        }
    }
    initialize(spurious_vector, error_vector);
}

/// Masks every local interrupt but the spurious and error vectors.
fn initialize(spurious_vector: u8, error_vector: u8) {
    for lvt in [register::LVT_TIMER, register::LVT_LINT0, register::LVT_LINT1] {
        write(lvt, LVT_MASKED);
    }
    write(register::LVT_ERROR, error_vector as u32);
    write(register::SPURIOUS, 1 << 8 | spurious_vector as u32);
    write(register::ERROR_STATUS, 0);
}

/// This processor's APIC id.
pub fn id() -> u32 {
    match XAPIC_PAGE.load(Ordering::Relaxed) {
        0 => read(register::ID),
        _ => read(register::ID) >> 24,
    }
}

/// Ends the interrupt in service.
pub fn end_of_interrupt() {
    write(register::EOI, 0);
}

/// Sends `ipi` to the processor with APIC id `target`. Returns once the APIC has taken it.
pub fn send(target: u32, ipi: Ipi) {
    if XAPIC_PAGE.load(Ordering::Relaxed) == 0 {
        // SAFETY: x2APIC's ICR is one 64-bit MSR. The fence orders our stores before the interrupt (SDM 3, 11.12.3).
        unsafe {
            core::arch::asm!("mfence", "lfence", options(nostack, preserves_flags));
            write_msr(0x830, (target as u64) << 32 | ipi.command() as u64);
        }
        return;
    }
    write(register::ICR_HIGH, target << 24);
    write(register::ICR_LOW, ipi.command());
    while read(register::ICR_LOW) & ICR_PENDING != 0 {
        core::hint::spin_loop();
    }
}

/// Prepares the timer: one-shot at the undivided rate, or TSC deadline where `deadline` says so.
pub fn prepare_timer(vector: u8, deadline: bool) {
    write(register::DIVIDE, 0b1011);
    write(register::INITIAL_COUNT, 0);
    write(
        register::LVT_TIMER,
        vector as u32 | if deadline { LVT_TSC_DEADLINE } else { 0 },
    );
}

/// Arms the one-shot timer; 0 stops it.
pub fn set_timer_count(count: u32) {
    write(register::INITIAL_COUNT, count);
}

/// What is left of the timer's count.
pub fn timer_count() -> u32 {
    read(register::CURRENT_COUNT)
}
