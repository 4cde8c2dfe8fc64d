//! The local APIC by its x2APIC MSRs (SDM 3, 12.12). The hypervisor has turned x2APIC mode on before the root starts.
#![allow(unsafe_code)]

use super::instruction::{read_msr, write_msr};

const ID: u32 = 0x802;
const TPR: u32 = 0x808;
/// End of interrupt; the entry points write it themselves.
pub const EOI: u32 = 0x80b;
const SPURIOUS: u32 = 0x80f;
const ICR: u32 = 0x830;

/// Vector of a spurious interrupt.
pub const SPURIOUS_VECTOR: u8 = 0xff;
const DELIVER_NMI: u64 = 4 << 8;
const SOFTWARE_ENABLE: u64 = 1 << 8;

/// Lets the APIC of this processor deliver interrupts, and returns its id.
pub fn enable() -> u32 {
    // SAFETY: every vector has an entry point, so any interrupt that this lets through is handled.
    unsafe {
        write_msr(TPR, 0);
        write_msr(SPURIOUS, SOFTWARE_ENABLE | u64::from(SPURIOUS_VECTOR));
    }
    read_msr(ID) as u32
}

/// Sends `vector` to the processor with the APIC id `destination`.
pub fn send(destination: u32, vector: u8) {
    // SAFETY: a fixed, physical, edge-triggered interrupt at a vector that has an entry point on every processor.
    unsafe { write_msr(ICR, u64::from(destination) << 32 | u64::from(vector)) };
}

/// Sends an NMI to the processor with the APIC id `destination`.
pub fn send_nmi(destination: u32) {
    // SAFETY: the NMI's entry point has a stack of its own on every processor.
    unsafe { write_msr(ICR, u64::from(destination) << 32 | DELIVER_NMI) };
}
