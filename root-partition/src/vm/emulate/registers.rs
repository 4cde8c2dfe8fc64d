//! The registers that an instruction works with.

use super::mask;
use iced_x86::Register;

/// RFLAGS: string instructions count down.
const DIRECTION: u64 = 1 << 10;

/// A VP's general registers, as far as emulation needs them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Registers {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub general: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// Size of the code: 16, 32 or 64.
    pub bits: u32,
}

impl Registers {
    /// The value of `register`; `None` where it is no general register.
    pub fn get(&self, register: Register) -> Option<u64> {
        let (index, size, high) = place(register)?;
        let value = self.general[index];
        Some(if high {
            value >> 8 & 0xff
        } else {
            value & mask(size)
        })
    }

    /// Sets `register`, as the processor does: a 32-bit write clears the upper half.
    pub fn set(&mut self, register: Register, value: u64) -> Option<()> {
        let (index, size, high) = place(register)?;
        let old = self.general[index];
        self.general[index] = match (size, high) {
            (_, true) => old & !0xff00 | (value & 0xff) << 8,
            (4, _) => value & mask(4),
            (size, _) => old & !mask(size) | value & mask(size),
        };
        Some(())
    }

    /// `Some` where `register` can be set.
    pub fn check(&self, register: Register) -> Option<()> {
        place(register).map(|_| ())
    }

    /// Sets the low `size` bytes of RAX, by the same rule.
    pub fn set_accumulator(&mut self, size: u8, value: u64) {
        let register = match size {
            1 => Register::AL,
            2 => Register::AX,
            4 => Register::EAX,
            _ => Register::RAX,
        };
        let _ = self.set(register, value);
    }

    /// The repeat count.
    pub fn count(&self, address_size: u8) -> u64 {
        self.general[1] & mask(address_size)
    }

    /// Takes `done` off the repeat count, and returns what is left.
    pub fn count_down(&mut self, address_size: u8, done: u64) -> u64 {
        let left = self.count(address_size).saturating_sub(done);
        self.set_index(1, address_size, left);
        left
    }

    /// Moves RSI or RDI by `bytes` in the direction that the flags say.
    pub fn advance(&mut self, index: Register, address_size: u8, bytes: u64) {
        let at = if index == Register::RSI { 6 } else { 7 };
        let moved = match self.counts_down() {
            true => self.general[at].wrapping_sub(bytes),
            false => self.general[at].wrapping_add(bytes),
        };
        self.set_index(at, address_size, moved);
    }

    /// Whether string instructions count down.
    pub fn counts_down(&self) -> bool {
        self.rflags & DIRECTION != 0
    }

    fn set_index(&mut self, at: usize, address_size: u8, value: u64) {
        let old = self.general[at];
        self.general[at] = match address_size {
            2 => old & !mask(2) | value & mask(2),
            size => value & mask(size),
        };
    }
}

/// Index, bytes, and whether it is AH, CH, DH or BH.
fn place(register: Register) -> Option<(usize, u8, bool)> {
    if !register.is_gpr() {
        return None;
    }
    let high = matches!(
        register,
        Register::AH | Register::CH | Register::DH | Register::BH
    );
    let full = register.full_register() as usize;
    let index = full.checked_sub(Register::RAX as usize)?;
    (index < 16).then_some((index, register.size() as u8, high))
}
