//! Accesses to memory that is not there: the IOAPIC, or nothing, which reads all ones and ignores writes.

use super::super::child::Child;
use super::super::chipset::{Chipset, Effects};
use super::super::emulate::{self, Operand, registers::Registers};
use super::super::host::Host;
use super::{Answer, code_bits, crash, resume};
use alloc::format;
use alloc::vec::Vec;
use hypercall_api::id::VpIndex;
use hypercall_api::intercept::{AccessType, MemoryIntercept};
use hypercall_api::register::{RegisterName, RegisterValue};
use hypercall_api::status::HvStatus;

/// Does the instruction that made the access.
pub fn access<H: Host>(
    child: &Child<H>,
    vp: VpIndex,
    it: &MemoryIntercept,
    set: &mut super::Registers,
) -> Result<Answer, HvStatus> {
    let (rip, gpa) = (it.header.rip, it.gpa);
    if it.header.access == AccessType::EXECUTE {
        return Ok(crash(format!(
            "VP {vp} executes at {rip:#x} (GPA {gpa}), where there is no memory"
        )));
    }
    let before = general(child, vp, it)?;
    let mut registers = before;
    let bytes = it
        .instruction
        .get(..it.instruction_byte_count.into())
        .unwrap_or_default();
    let mut effects = Effects::new();
    let done = {
        let mut chipset = child.chipset.lock();
        let mut operand = Device {
            chipset: &mut chipset,
            address: gpa.0,
            effects: &mut effects,
        };
        emulate::step(bytes, &mut registers, &mut operand)
    };
    if let Err(error) = done {
        return Ok(crash(format!(
            "VP {vp} accessed GPA {gpa}, where there is no memory, at {rip:#x}: {error} ({bytes:02x?})"
        )));
    }
    if !child.apply(&effects) {
        return Ok(Answer::Stay);
    }
    Ok(resume(set, changes(&before, &registers)))
}

/// The VP's general registers.
fn general<H: Host>(child: &Child<H>, vp: VpIndex, it: &MemoryIntercept) -> Result<Registers, HvStatus> {
    let names: Vec<RegisterName> = (0..16).filter_map(RegisterName::general).collect();
    let mut values = [RegisterValue::default(); 16];
    child.host.get_registers(child.id, vp, &names, &mut values)?;
    Ok(Registers {
        general: values.map(RegisterValue::u64),
        rip: it.header.rip,
        rflags: it.header.rflags,
        bits: code_bits(&it.header),
    })
}

/// What is different.
fn changes<'a>(
    before: &'a Registers,
    after: &'a Registers,
) -> impl Iterator<Item = (RegisterName, RegisterValue)> + 'a {
    let general = (0..16).filter_map(move |index: u8| {
        let value = after.general[usize::from(index)];
        let changed = before.general[usize::from(index)] != value;
        RegisterName::general(index)
            .filter(|_| changed)
            .map(|name| (name, value.into()))
    });
    let flags = (before.rflags != after.rflags).then_some((RegisterName::RFLAGS, after.rflags.into()));
    general
        .chain(flags)
        .chain([(RegisterName::RIP, after.rip.into())])
}

/// The chipset at one address.
struct Device<'a> {
    chipset: &'a mut Chipset,
    address: u64,
    effects: &'a mut Effects,
}

impl Operand for Device<'_> {
    fn read(&mut self, size: u8) -> u64 {
        self.chipset.read_memory(self.address, size)
    }

    fn write(&mut self, size: u8, value: u64) {
        self.chipset.write_memory(self.address, size, value, self.effects);
    }
}
