//! Arithmetic and logic: results and flags (SDM 1, appendix A).

use super::mask;
use iced_x86::Mnemonic;

const CARRY: u64 = 1 << 0;
const PARITY: u64 = 1 << 2;
const ADJUST: u64 = 1 << 4;
const ZERO: u64 = 1 << 6;
const SIGN: u64 = 1 << 7;
const OVERFLOW: u64 = 1 << 11;
const ALL: u64 = CARRY | PARITY | ADJUST | ZERO | SIGN | OVERFLOW;

/// What is calculated of two operands; INC and DEC have 1 as their second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the names are the instructions'
pub enum Operation {
    Add,
    Or,
    And,
    Sub,
    Xor,
    Cmp,
    Test,
    Inc,
    Dec,
}

impl Operation {
    /// The operation of an instruction.
    pub fn of(mnemonic: Mnemonic) -> Option<Self> {
        Some(match mnemonic {
            Mnemonic::Add => Self::Add,
            Mnemonic::Or => Self::Or,
            Mnemonic::And => Self::And,
            Mnemonic::Sub => Self::Sub,
            Mnemonic::Xor => Self::Xor,
            Mnemonic::Cmp => Self::Cmp,
            Mnemonic::Test => Self::Test,
            Mnemonic::Inc => Self::Inc,
            Mnemonic::Dec => Self::Dec,
            _ => return None,
        })
    }

    /// Whether the result is kept, and not only the flags.
    pub fn keeps_result(self) -> bool {
        !matches!(self, Self::Cmp | Self::Test)
    }

    /// The result of two operands of `size` bytes, and the flags that `flags` become.
    pub fn apply(self, first: u64, second: u64, size: u8, flags: u64) -> (u64, u64) {
        let mask = mask(size);
        let (first, second) = (first & mask, second & mask);
        let sign = mask ^ mask >> 1;
        let (result, carry, overflow) = match self {
            Self::Add | Self::Inc => {
                let result = first.wrapping_add(second) & mask;
                (
                    result,
                    result < first,
                    (first ^ result) & (second ^ result) & sign != 0,
                )
            }
            Self::Sub | Self::Cmp | Self::Dec => {
                let result = first.wrapping_sub(second) & mask;
                (
                    result,
                    first < second,
                    (first ^ second) & (first ^ result) & sign != 0,
                )
            }
            Self::Or => (first | second, false, false),
            Self::And | Self::Test => (first & second, false, false),
            Self::Xor => (first ^ second, false, false),
        };
        let adjust = match self {
            Self::Or | Self::And | Self::Test | Self::Xor => false,
            _ => (first ^ second ^ result) & 0x10 != 0,
        };
        // INC and DEC leave the carry flag alone.
        let changed = match self {
            Self::Inc | Self::Dec => ALL & !CARRY,
            _ => ALL,
        };
        let flag = |bit, set| if set { bit } else { 0 };
        let new = flag(CARRY, carry)
            | flag(PARITY, (result as u8).count_ones().is_multiple_of(2))
            | flag(ADJUST, adjust)
            | flag(ZERO, result == 0)
            | flag(SIGN, result & sign != 0)
            | flag(OVERFLOW, overflow);
        (result, flags & !changed | new & changed)
    }
}
