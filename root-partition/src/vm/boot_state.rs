//! The state in which a kernel is entered. PVH and multiboot: 32-bit protected mode, flat segments, paging off. Linux:
//! 64-bit mode, flat segments, memory mapped to itself. Interrupts are off.

use super::loader::{Entry, Mode};
use alloc::vec::Vec;
use hypercall_api::processor::{SegmentRegister, TableRegister};
use hypercall_api::register::{RegisterAssociation, RegisterName, RegisterValue};

/// Protected mode; the bit that is always set.
const CR0: u64 = 0x11;
/// Paging.
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
/// 64-bit mode is enabled, and active.
const EFER_LME_LMA: u64 = 1 << 8 | 1 << 10;
/// The first processor's APIC, enabled, in x2APIC mode: a Linux that finds it so never touches the APIC's page.
const APIC_BASE_X2APIC: u64 = 0xfee0_0d00;
/// The bit that is always set.
const RFLAGS: u64 = 2;
/// PAT after reset.
const PAT: u64 = 0x0007_0406_0007_0406;

const fn segment(selector: u16, limit: u32, attributes: u16) -> SegmentRegister {
    SegmentRegister {
        base: 0,
        limit,
        selector,
        attributes,
    }
}

/// The registers of VP 0.
pub fn registers(entry: &Entry) -> Vec<RegisterAssociation> {
    let table = |base, limit| TableRegister {
        reserved: [0; 3],
        limit,
        base,
    };
    let none = table(0, 0);
    let (control, code, data, descriptors) = match entry.mode {
        Mode::Protected => (
            [CR0, 0, 0, 0],
            segment(0x08, u32::MAX, 0xc09b),
            segment(0x10, u32::MAX, 0xc093),
            none,
        ),
        Mode::Long {
            page_table,
            descriptors,
            descriptors_limit,
        } => (
            [CR0 | CR0_PG, page_table, CR4_PAE, EFER_LME_LMA],
            segment(0x10, u32::MAX, 0xa09b),
            segment(0x18, u32::MAX, 0xc093),
            table(descriptors, descriptors_limit),
        ),
    };
    let [cr0, cr3, cr4, efer] = control;
    let mut registers = Vec::new();
    let mut set = |name, value: RegisterValue| registers.push(RegisterAssociation::new(name, value));
    // Control registers first: what the others may be depends on the mode.
    for (name, value) in [
        (RegisterName::CR0, cr0),
        (RegisterName::CR3, cr3),
        (RegisterName::CR4, cr4),
        (RegisterName::EFER, efer),
        (RegisterName::PAT, PAT),
        (RegisterName::RFLAGS, RFLAGS),
        (RegisterName::RIP, entry.rip),
        (RegisterName::RAX, entry.rax),
        (RegisterName::RBX, entry.rbx),
        (RegisterName::RCX, 0),
        (RegisterName::RDX, 0),
        (RegisterName::RSP, 0),
        (RegisterName::RBP, 0),
        (RegisterName::RSI, entry.rsi),
        (RegisterName::RDI, 0),
    ] {
        set(name, value.into());
    }
    for name in [
        RegisterName::DS,
        RegisterName::ES,
        RegisterName::FS,
        RegisterName::GS,
        RegisterName::SS,
    ] {
        set(name, data.into());
    }
    set(RegisterName::CS, code.into());
    set(RegisterName::TR, segment(0, 0x67, 0x8b).into());
    set(RegisterName::LDTR, segment(0, 0, 0x82).into());
    set(RegisterName::GDTR, descriptors.into());
    set(RegisterName::IDTR, none.into());
    if matches!(entry.mode, Mode::Long { .. }) {
        set(RegisterName::APIC_BASE, APIC_BASE_X2APIC.into());
    }
    // A new VP waits for a SIPI; this one begins by itself.
    set(RegisterName::INTERNAL_ACTIVITY_STATE, 0u64.into());
    registers
}
