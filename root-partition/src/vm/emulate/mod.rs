//! One instruction of a guest that accessed memory where a device is, or nothing: decoded by `iced-x86`, done on a copy of
//! the registers. What compilers and kernels use for device registers is there: moves, exchanges, arithmetic and logic
//! with one memory operand, STOS and LODS.
//!
//! | module | holds |
//! |---|---|
//! | [`arithmetic`] | results and flags |
//! | [`registers`] | the registers by their names in `iced-x86` |

pub mod arithmetic;
pub mod registers;

#[cfg(test)]
mod tests;

use arithmetic::Operation;
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use registers::Registers;

/// The device side of an access: the memory operand, which lies at one address.
pub trait Operand {
    /// Reads `size` bytes, 1, 2, 4 or 8.
    fn read(&mut self, size: u8) -> u64;
    /// Writes `size` bytes.
    fn write(&mut self, size: u8, value: u64);
}

/// Why an instruction was not done. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EmulationError {
    /// The bytes are no instruction, or not all of one.
    #[error("its bytes are no whole instruction")]
    Undecodable,
    /// Not one of those that are done here.
    #[error("the instruction {0:?} with an operand in device memory is not emulated")]
    Unsupported(Mnemonic),
}

/// Decodes the instruction at the start of `bytes`. `bits` is 16, 32 or 64.
pub fn decode(bytes: &[u8], bits: u32, rip: u64) -> Result<Instruction, EmulationError> {
    let mut decoder = Decoder::with_ip(bits, bytes, rip, DecoderOptions::NONE);
    let instruction = decoder.decode();
    match instruction.is_invalid() {
        true => Err(EmulationError::Undecodable),
        false => Ok(instruction),
    }
}

/// Does the instruction at the start of `bytes`, whose memory operand is `operand`, and moves RIP behind it; where a
/// repeat count is left, RIP stays.
pub fn step(
    bytes: &[u8],
    registers: &mut Registers,
    operand: &mut dyn Operand,
) -> Result<(), EmulationError> {
    let instruction = decode(bytes, registers.bits, registers.rip)?;
    let unsupported = EmulationError::Unsupported(instruction.mnemonic());
    if string_step(&instruction, registers, operand) {
        return Ok(());
    }
    let size = operand_size(&instruction).ok_or(unsupported)?;
    match instruction.mnemonic() {
        Mnemonic::Mov | Mnemonic::Movnti => move_data(&instruction, registers, operand, size),
        Mnemonic::Movzx => extend(&instruction, registers, operand, size, |value| value),
        Mnemonic::Movsx | Mnemonic::Movsxd => {
            let shift = 64 - 8 * u32::from(size);
            extend(&instruction, registers, operand, size, |value| {
                ((value << shift) as i64 >> shift) as u64
            })
        }
        Mnemonic::Xchg => exchange(&instruction, registers, operand, size),
        mnemonic => {
            let operation = Operation::of(mnemonic).ok_or(unsupported)?;
            calculate(&instruction, registers, operand, size, operation)
        }
    }
    .ok_or(unsupported)?;
    registers.rip = instruction.next_ip();
    Ok(())
}

/// Bytes of the memory operand, where it is an integer.
fn operand_size(instruction: &Instruction) -> Option<u8> {
    let memory = (0..instruction.op_count()).any(|index| instruction.op_kind(index) == OpKind::Memory);
    let offset = matches!(
        instruction.code(),
        Code::Mov_AL_moffs8
            | Code::Mov_AX_moffs16
            | Code::Mov_EAX_moffs32
            | Code::Mov_RAX_moffs64
            | Code::Mov_moffs8_AL
            | Code::Mov_moffs16_AX
            | Code::Mov_moffs32_EAX
            | Code::Mov_moffs64_RAX
    );
    let size = instruction.memory_size().size();
    ((memory || offset) && matches!(size, 1 | 2 | 4 | 8)).then_some(size as u8)
}

/// The value of an operand that is not in memory.
fn value(instruction: &Instruction, registers: &Registers, index: u32) -> Option<u64> {
    match instruction.op_kind(index) {
        OpKind::Register => registers.get(instruction.op_register(index)),
        OpKind::Memory => None,
        _ => instruction.try_immediate(index).ok(),
    }
}

fn is_memory(instruction: &Instruction, index: u32) -> bool {
    instruction.op_kind(index) == OpKind::Memory
}

fn move_data(
    instruction: &Instruction,
    registers: &mut Registers,
    operand: &mut dyn Operand,
    size: u8,
) -> Option<()> {
    if is_memory(instruction, 0) {
        let value = value(instruction, registers, 1)?;
        operand.write(size, value & mask(size));
        return Some(());
    }
    registers.check(instruction.op0_register())?;
    let value = operand.read(size);
    registers.set(instruction.op0_register(), value)
}

fn extend(
    instruction: &Instruction,
    registers: &mut Registers,
    operand: &mut dyn Operand,
    size: u8,
    convert: impl Fn(u64) -> u64,
) -> Option<()> {
    registers.check(instruction.op0_register())?;
    let value = convert(operand.read(size));
    registers.set(instruction.op0_register(), value)
}

fn exchange(
    instruction: &Instruction,
    registers: &mut Registers,
    operand: &mut dyn Operand,
    size: u8,
) -> Option<()> {
    let register = match is_memory(instruction, 0) {
        true => instruction.op1_register(),
        false => instruction.op0_register(),
    };
    let new = registers.get(register)?;
    let old = operand.read(size);
    operand.write(size, new & mask(size));
    registers.set(register, old)
}

fn calculate(
    instruction: &Instruction,
    registers: &mut Registers,
    operand: &mut dyn Operand,
    size: u8,
    operation: Operation,
) -> Option<()> {
    let memory_first = is_memory(instruction, 0);
    let other = match instruction.op_count() {
        1 => 1,
        _ => value(instruction, registers, u32::from(memory_first))?,
    };
    let in_memory = operand.read(size);
    let (first, second) = if memory_first {
        (in_memory, other)
    } else {
        (other, in_memory)
    };
    let (result, flags) = operation.apply(first, second, size, registers.rflags);
    registers.rflags = flags;
    if operation.keeps_result() {
        match memory_first {
            true => operand.write(size, result),
            false => registers.set(instruction.op0_register(), result)?,
        }
    }
    Some(())
}

/// Does STOS or LODS; false where the instruction is neither.
fn string_step(instruction: &Instruction, registers: &mut Registers, operand: &mut dyn Operand) -> bool {
    match instruction.mnemonic() {
        Mnemonic::Stosb | Mnemonic::Stosw | Mnemonic::Stosd | Mnemonic::Stosq => {
            string(instruction, registers, Register::RDI, |registers, size| {
                operand.write(size, registers.general[0] & mask(size));
            });
        }
        Mnemonic::Lodsb | Mnemonic::Lodsw | Mnemonic::Lodsd | Mnemonic::Lodsq => {
            string(instruction, registers, Register::RSI, |registers, size| {
                let value = operand.read(size);
                registers.set_accumulator(size, value);
            });
        }
        _ => return false,
    }
    true
}

/// One iteration of STOS or LODS, or none where the count is 0.
fn string(
    instruction: &Instruction,
    registers: &mut Registers,
    index: Register,
    access: impl FnOnce(&mut Registers, u8),
) {
    let repeated = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    let size = instruction.memory_size().size() as u8;
    let address_size = address_size(instruction);
    let mut left = 0;
    if !repeated || registers.count(address_size) > 0 {
        access(registers, size);
        registers.advance(index, address_size, size.into());
        left = if repeated {
            registers.count_down(address_size, 1)
        } else {
            0
        };
    }
    if left == 0 {
        registers.rip = instruction.next_ip();
    }
}

/// Bytes of the addresses that a string instruction uses.
pub fn address_size(instruction: &Instruction) -> u8 {
    let kinds = (0..instruction.op_count()).map(|index| instruction.op_kind(index));
    kinds
        .filter_map(|kind| match kind {
            OpKind::MemorySegSI | OpKind::MemoryESDI => Some(2),
            OpKind::MemorySegESI | OpKind::MemoryESEDI => Some(4),
            OpKind::MemorySegRSI | OpKind::MemoryESRDI => Some(8),
            _ => None,
        })
        .next()
        .unwrap_or(8)
}

/// The bits of an operand of `size` bytes.
pub const fn mask(size: u8) -> u64 {
    match size {
        0 => 0,
        1..=7 => (1 << (8 * size)) - 1,
        _ => u64::MAX,
    }
}
