//! The state in which PVH and multiboot enter a kernel: 32-bit protected mode, flat segments, paging and interrupts off.

use super::loader::Entry;
use alloc::vec::Vec;
use hypercall_api::processor::{SegmentRegister, TableRegister};
use hypercall_api::register::{RegisterAssociation, RegisterName, RegisterValue};

/// Protected mode; the bit that is always set.
const CR0: u64 = 0x11;
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
    let data = segment(0x10, u32::MAX, 0xc093);
    let table = TableRegister {
        reserved: [0; 3],
        limit: 0,
        base: 0,
    };
    let mut registers = Vec::new();
    let mut set = |name, value: RegisterValue| registers.push(RegisterAssociation::new(name, value));
    // Control registers first: what the others may be depends on the mode.
    for (name, value) in [
        (RegisterName::CR0, CR0),
        (RegisterName::CR3, 0),
        (RegisterName::CR4, 0),
        (RegisterName::EFER, 0),
        (RegisterName::PAT, PAT),
        (RegisterName::RFLAGS, RFLAGS),
        (RegisterName::RIP, entry.rip),
        (RegisterName::RAX, entry.rax),
        (RegisterName::RBX, entry.rbx),
        (RegisterName::RCX, 0),
        (RegisterName::RDX, 0),
        (RegisterName::RSP, 0),
        (RegisterName::RBP, 0),
        (RegisterName::RSI, 0),
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
    set(RegisterName::CS, segment(0x08, u32::MAX, 0xc09b).into());
    set(RegisterName::TR, segment(0, 0x67, 0x8b).into());
    set(RegisterName::LDTR, segment(0, 0, 0x82).into());
    set(RegisterName::GDTR, table.into());
    set(RegisterName::IDTR, table.into());
    // A new VP waits for a SIPI; this one begins by itself.
    set(RegisterName::INTERNAL_ACTIVITY_STATE, 0u64.into());
    registers
}
