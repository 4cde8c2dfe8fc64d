//! Accesses to I/O ports.

use super::super::child::Child;
use super::super::chipset::{Chipset, Effects};
use super::super::emulate;
use super::super::host::Host;
use super::{Answer, Registers, code_bits, next_rip, resume, string};
use hypercall_api::id::VpIndex;
use hypercall_api::intercept::{AccessType, IoPortIntercept};
use hypercall_api::register::RegisterName;
use hypercall_api::status::HvStatus;

/// Does the access.
pub fn access<H: Host>(
    child: &Child<H>,
    vp: VpIndex,
    it: &IoPortIntercept,
    set: &mut Registers,
) -> Result<Answer, HvStatus> {
    if it.access.is_string() {
        return string::access(child, vp, it, set);
    }
    let size = it.access.size();
    let mut effects = Effects::new();
    let mut rax = it.rax;
    if Chipset::wants_time(it.port) {
        child.chipset.lock().set_time(child.host.wall_clock());
    }
    if it.header.access == AccessType::WRITE {
        child
            .chipset
            .lock()
            .write_port(it.port, size, it.rax as u32, &mut effects);
    } else {
        let value = child.chipset.lock().read_port(it.port, size, &mut effects);
        rax = merge(it.rax, size, value);
    }
    if !child.apply(&effects) {
        return Ok(Answer::Stay);
    }
    let length = length(it).ok_or(HvStatus::INVALID_REGISTER_VALUE)?;
    Ok(resume(
        set,
        [
            (RegisterName::RAX, rax.into()),
            (RegisterName::RIP, next_rip(&it.header, length).into()),
        ],
    ))
}

/// RAX after a read of `size` bytes: a read of 4 clears the upper half.
fn merge(rax: u64, size: u8, value: u32) -> u64 {
    match size {
        4 => value.into(),
        size => rax & !emulate::mask(size) | u64::from(value) & emulate::mask(size),
    }
}

/// Length of the instruction: told, or decoded.
fn length(it: &IoPortIntercept) -> Option<u64> {
    if it.header.instruction_length() != 0 {
        return Some(it.header.instruction_length().into());
    }
    let bytes = it.instruction.get(..it.instruction_byte_count.into())?;
    let instruction = emulate::decode(bytes, code_bits(&it.header), it.header.rip).ok()?;
    Some(instruction.len() as u64)
}
