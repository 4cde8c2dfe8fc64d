//! The hypercall input value and result value (TLFS, "Hypercall Interface").

use crate::code::HypercallCode;
use crate::status::HvStatus;

/// The 64-bit input value that a caller passes in RCX.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct HypercallInput(pub u64);

impl HypercallInput {
    /// Largest rep count or rep start index.
    pub const MAX_REPS: u16 = 0xfff;
    /// Bits that must be zero: 27–30, 44–47 and 60–63.
    const RESERVED: u64 = 0xf000_f000_7800_0000;

    /// A simple call whose parameters are in memory.
    pub const fn simple(code: HypercallCode) -> Self {
        Self(code.0 as u64)
    }

    /// A simple call whose parameters are in registers.
    pub const fn fast(code: HypercallCode) -> Self {
        Self(code.0 as u64 | 1 << 16)
    }

    /// A rep call over `count` elements.
    pub const fn rep(code: HypercallCode, count: u16) -> Self {
        Self(code.0 as u64 | (count as u64 & 0xfff) << 32)
    }

    /// The same call with a variable header of `qwords` 8-byte units.
    pub const fn with_variable_header(self, qwords: u16) -> Self {
        Self(self.0 & !(0x3ff << 17) | (qwords as u64 & 0x3ff) << 17)
    }

    /// The same call, to go on at element `start`.
    pub const fn with_rep_start(self, start: u16) -> Self {
        Self(self.0 & !(0xfff << 48) | (start as u64 & 0xfff) << 48)
    }

    /// Which call it is.
    pub const fn code(self) -> HypercallCode {
        HypercallCode(self.0 as u16)
    }

    /// Whether the parameters are in registers.
    pub const fn is_fast(self) -> bool {
        self.0 & 1 << 16 != 0
    }

    /// Size of the variable header, in 8-byte units.
    pub const fn variable_header_qwords(self) -> u16 {
        (self.0 >> 17 & 0x3ff) as u16
    }

    /// Whether the call is for the hypervisor below this one.
    pub const fn is_nested(self) -> bool {
        self.0 & 1 << 31 != 0
    }

    /// Number of elements of a rep call; 0 for a simple one.
    pub const fn rep_count(self) -> u16 {
        (self.0 >> 32 & 0xfff) as u16
    }

    /// First element that is still to be done.
    pub const fn rep_start(self) -> u16 {
        (self.0 >> 48 & 0xfff) as u16
    }

    /// Whether every reserved bit is zero, as it must be.
    pub const fn reserved_is_zero(self) -> bool {
        self.0 & Self::RESERVED == 0
    }
}

/// The 64-bit result value that a caller gets in RAX.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct HypercallResult(pub u64);

impl HypercallResult {
    /// A result with `status` after `reps` elements were done.
    pub const fn new(status: HvStatus, reps: u16) -> Self {
        Self(status.0 as u64 | (reps as u64 & 0xfff) << 32)
    }

    /// How the call ended.
    pub const fn status(self) -> HvStatus {
        HvStatus(self.0 as u16)
    }

    /// Elements done so far, counted from the first (not from the rep start).
    pub const fn reps_completed(self) -> u16 {
        (self.0 >> 32 & 0xfff) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_sit_where_the_specification_puts_them() {
        let input = HypercallInput::rep(HypercallCode(0x48), 0x123)
            .with_variable_header(5)
            .with_rep_start(0x21);
        assert_eq!(input.0, 0x0021_0123_000a_0048);
        assert_eq!(
            (input.code().0, input.rep_count(), input.rep_start()),
            (0x48, 0x123, 0x21)
        );
        assert_eq!(input.variable_header_qwords(), 5);
        assert!(!input.is_fast() && !input.is_nested() && input.reserved_is_zero());
    }

    #[test]
    fn each_reserved_bit_is_seen() {
        for bit in (27..31).chain(44..48).chain(60..64) {
            assert!(!HypercallInput(1 << bit).reserved_is_zero(), "bit {bit}");
        }
        assert!(HypercallInput(!HypercallInput::RESERVED).reserved_is_zero());
    }

    #[test]
    fn a_result_holds_status_and_reps() {
        let result = HypercallResult::new(HvStatus::INSUFFICIENT_MEMORY, 7);
        assert_eq!(
            (result.status(), result.reps_completed()),
            (HvStatus::INSUFFICIENT_MEMORY, 7)
        );
    }
}
