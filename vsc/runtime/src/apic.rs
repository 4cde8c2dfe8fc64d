//! The local APIC: by the x2APIC MSRs where the processor has them, by its page at 0xfee00000 otherwise (SDM 3, chapter
//! "Advanced Programmable Interrupt Controller").
#![allow(unsafe_code)]

use crate::processor::instruction::{read_msr, write_msr};
use core::arch::x86_64::__cpuid;
use core::sync::atomic::{AtomicBool, Ordering};

/// Registers, as offsets from MSR 0x800; 16 times that from the page's start.
pub mod register {
    #![allow(missing_docs)] // the names are the registers'
    pub const ID: u32 = 0x02;
    pub const VERSION: u32 = 0x03;
    pub const TPR: u32 = 0x08;
    pub const PPR: u32 = 0x0a;
    pub const EOI: u32 = 0x0b;
    pub const LDR: u32 = 0x0d;
    pub const SVR: u32 = 0x0f;
    pub const ISR: u32 = 0x10;
    pub const TMR: u32 = 0x18;
    pub const IRR: u32 = 0x20;
    pub const ESR: u32 = 0x28;
    pub const ICR: u32 = 0x30;
    pub const LVT_TIMER: u32 = 0x32;
    pub const LVT_LINT0: u32 = 0x35;
    pub const LVT_LINT1: u32 = 0x36;
    pub const LVT_ERROR: u32 = 0x37;
    pub const INITIAL_COUNT: u32 = 0x38;
    pub const CURRENT_COUNT: u32 = 0x39;
    pub const DIVIDE: u32 = 0x3e;
    pub const SELF_IPI: u32 = 0x3f;
}

/// Vector of a spurious interrupt.
pub const SPURIOUS_VECTOR: u8 = 0xff;
/// LVT: masked.
pub const LVT_MASKED: u32 = 1 << 16;
/// LVT of the timer: periodic.
pub const LVT_PERIODIC: u32 = 1 << 17;
/// Divide configuration: by 1.
pub const DIVIDE_BY_1: u32 = 0b1011;

const BASE: u32 = 0x1b;
const BASE_ENABLED: u64 = 1 << 11;
const BASE_X2APIC: u64 = 1 << 10;
const MSRS: u32 = 0x800;
const PAGE: u64 = 0xfee0_0000;

const DELIVER_NMI: u64 = 4 << 8;
const DELIVER_INIT: u64 = 5 << 8;
const DELIVER_STARTUP: u64 = 6 << 8;
const ASSERT: u64 = 1 << 14;
/// ICR of an xAPIC: the command before is still on its way.
const PENDING: u32 = 1 << 12;

static X2APIC: AtomicBool = AtomicBool::new(false);

/// Lets the APIC of this processor deliver interrupts, and returns its id.
pub(crate) fn enable() -> u32 {
    let x2apic = __cpuid(1).ecx & 1 << 21 != 0;
    X2APIC.store(x2apic, Ordering::Release);
    let mode = if x2apic { BASE_X2APIC } else { 0 };
    let base = read_msr(BASE);
    if base & (BASE_ENABLED | BASE_X2APIC) != BASE_ENABLED | mode {
        // SAFETY: the page stays where it is, and this module reaches the APIC in the mode that is set.
        unsafe { write_msr(BASE, base | BASE_ENABLED | mode) };
    }
    write(register::TPR, 0);
    // A PIC that firmware has left behind LINT0 would raise vectors that are exceptions.
    write(register::LVT_LINT0, LVT_MASKED);
    write(register::SVR, 1 << 8 | u32::from(SPURIOUS_VECTOR));
    id()
}

/// Whether the APIC is in x2APIC mode.
pub fn is_x2apic() -> bool {
    X2APIC.load(Ordering::Acquire)
}

/// The APIC id of this processor.
pub fn id() -> u32 {
    let id = read(register::ID);
    if is_x2apic() { id } else { id >> 24 }
}

/// Reads a register.
pub fn read(register: u32) -> u32 {
    if is_x2apic() {
        return read_msr(MSRS + register) as u32;
    }
    // SAFETY: the page is the APIC's, mapped uncached; the register is inside it.
    unsafe { ((PAGE + u64::from(register & 0xff) * 16) as *const u32).read_volatile() }
}

/// Writes a register of 32 bits. Every vector has an entry point, so nothing that it can cause breaks memory.
pub fn write(register: u32, value: u32) {
    // SAFETY: see above; the page is the APIC's, and the register is inside it.
    unsafe {
        match is_x2apic() {
            true => write_msr(MSRS + register, u64::from(value)),
            false => ((PAGE + u64::from(register & 0xff) * 16) as *mut u32).write_volatile(value),
        }
    }
}

/// Ends the interrupt in service.
pub fn end_of_interrupt() {
    write(register::EOI, 0);
}

/// Writes the interrupt command register: `command` without a destination, to the APIC `destination`.
pub fn command(destination: u32, command: u64) {
    if is_x2apic() {
        let value = u64::from(destination) << 32 | command & 0xffff_ffff;
        // SAFETY: an IPI comes at a vector that has an entry point on every processor that runs.
        unsafe { write_msr(MSRS + register::ICR, value) };
        return;
    }
    write(register::ICR + 1, destination << 24);
    write(register::ICR, command as u32);
    while read(register::ICR) & PENDING != 0 {
        core::hint::spin_loop();
    }
}

/// Sends `vector` to the processor with the APIC id `destination`.
pub fn send(destination: u32, vector: u8) {
    command(destination, ASSERT | u64::from(vector));
}

/// Sends an NMI to the processor with the APIC id `destination`.
pub fn send_nmi(destination: u32) {
    command(destination, ASSERT | DELIVER_NMI);
}

/// Sends INIT to the processor with the APIC id `destination`, which must not be running anything that is needed.
pub(crate) fn send_init(destination: u32) {
    command(destination, ASSERT | DELIVER_INIT);
}

/// Sends a startup IPI to the processor with the APIC id `destination`: it starts at page `vector`.
pub(crate) fn send_startup(destination: u32, vector: u8) {
    command(destination, ASSERT | DELIVER_STARTUP | u64::from(vector));
}

/// Sends `vector` to the running processor itself.
pub fn send_self(vector: u8) {
    match is_x2apic() {
        true => write(register::SELF_IPI, u32::from(vector)),
        // Shorthand 1: self.
        false => command(0, ASSERT | 1 << 18 | u64::from(vector)),
    }
}
