//! Values of registers and what the fields of some of them mean.

use crate::processor::{SegmentRegister, TableRegister};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

/// Value of a register (`HV_REGISTER_VALUE`), 128 bits; shorter registers are zero-extended.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RegisterValue {
    /// Bits 63:0.
    pub low: u64,
    /// Bits 127:64.
    pub high: u64,
}
const _: () = assert!(size_of::<RegisterValue>() == 16);

impl RegisterValue {
    /// The value of a register of at most 64 bits.
    pub const fn u64(self) -> u64 {
        self.low
    }

    /// All 128 bits.
    pub const fn u128(self) -> u128 {
        self.low as u128 | (self.high as u128) << 64
    }

    /// The value of a segment register.
    pub fn segment(self) -> SegmentRegister {
        transmute!(self)
    }

    /// The value of GDTR or IDTR.
    pub fn table(self) -> TableRegister {
        transmute!(self)
    }

    /// The value of [`PENDING_EVENT0`](super::RegisterName::PENDING_EVENT0) as an exception.
    pub fn pending_exception(self) -> PendingException {
        transmute!(self)
    }
}

impl From<u64> for RegisterValue {
    fn from(low: u64) -> Self {
        Self { low, high: 0 }
    }
}

impl From<u128> for RegisterValue {
    fn from(value: u128) -> Self {
        Self {
            low: value as u64,
            high: (value >> 64) as u64,
        }
    }
}

impl From<SegmentRegister> for RegisterValue {
    fn from(segment: SegmentRegister) -> Self {
        transmute!(segment)
    }
}

impl From<TableRegister> for RegisterValue {
    fn from(table: TableRegister) -> Self {
        transmute!(table)
    }
}

impl From<PendingException> for RegisterValue {
    fn from(event: PendingException) -> Self {
        transmute!(event)
    }
}

impl From<PendingInterruption> for RegisterValue {
    fn from(value: PendingInterruption) -> Self {
        value.0.into()
    }
}

impl From<InterruptState> for RegisterValue {
    fn from(value: InterruptState) -> Self {
        value.bits().into()
    }
}

bitflags::bitflags! {
    /// Value of [`INTERRUPT_STATE`](super::RegisterName::INTERRUPT_STATE).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct InterruptState: u64 {
        /// Interrupts wait for the end of the next instruction (STI, MOV SS).
        const INTERRUPT_SHADOW = 1 << 0;
        /// NMIs wait for IRET.
        const NMI_MASKED = 1 << 1;
    }
}

/// What kind of event a [`PendingInterruption`] is (SDM 3, "VM-Entry Controls for Event Injection").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct InterruptionType(pub u8);

impl InterruptionType {
    /// External interrupt.
    pub const INTERRUPT: Self = Self(0);
    /// NMI.
    pub const NMI: Self = Self(2);
    /// Exception.
    pub const EXCEPTION: Self = Self(3);
    /// INT n.
    pub const SOFTWARE_INTERRUPT: Self = Self(4);
    /// INT1.
    pub const PRIVILEGED_SOFTWARE_EXCEPTION: Self = Self(5);
    /// INT3, INTO.
    pub const SOFTWARE_EXCEPTION: Self = Self(6);
}

/// Value of [`PENDING_INTERRUPTION`](super::RegisterName::PENDING_INTERRUPTION): an event whose delivery an intercept cut
/// short.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(transparent)]
pub struct PendingInterruption(pub u64);

impl PendingInterruption {
    /// An event that is to be delivered.
    pub const fn new(kind: InterruptionType, vector: u8, error_code: Option<u32>, length: u8) -> Self {
        let error = match error_code {
            Some(code) => 1 << 4 | (code as u64) << 32,
            None => 0,
        };
        Self(1 | (kind.0 as u64 & 7) << 1 | error | (length as u64 & 0xf) << 5 | (vector as u64) << 16)
    }

    /// Whether there is an event.
    pub const fn is_pending(self) -> bool {
        self.0 & 1 != 0
    }

    /// What kind it is.
    pub const fn kind(self) -> InterruptionType {
        InterruptionType((self.0 >> 1 & 7) as u8)
    }

    /// Its vector.
    pub const fn vector(self) -> u8 {
        (self.0 >> 16) as u8
    }

    /// Its error code.
    pub const fn error_code(self) -> Option<u32> {
        if self.0 & 1 << 4 != 0 {
            Some((self.0 >> 32) as u32)
        } else {
            None
        }
    }

    /// Length of the instruction that raised it, for software interrupts and exceptions.
    pub const fn instruction_length(self) -> u8 {
        (self.0 >> 5 & 0xf) as u8
    }
}

/// An exception to deliver (`HV_X64_PENDING_EXCEPTION_EVENT`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PendingException {
    /// Bit 0 pending, bits 3:1 type (0), bit 8 deliver the error code, bits 31:16 vector.
    pub event: u32,
    /// Error code.
    pub error_code: u32,
    /// CR2 of a page fault, DR6 of a debug exception.
    pub parameter: u64,
}
const _: () = assert!(size_of::<PendingException>() == 16);

impl PendingException {
    /// Exception `vector`.
    pub const fn new(vector: u8, error_code: Option<u32>, parameter: u64) -> Self {
        let (deliver, error_code) = match error_code {
            Some(code) => (1 << 8, code),
            None => (0, 0),
        };
        Self {
            event: 1 | deliver | (vector as u32) << 16,
            error_code,
            parameter,
        }
    }

    /// Whether there is an event.
    pub const fn is_pending(self) -> bool {
        self.event & 1 != 0
    }

    /// Whether it is an exception, the only type that is supported.
    pub const fn is_exception(self) -> bool {
        self.event >> 1 & 7 == 0
    }

    /// Its vector.
    pub const fn vector(self) -> u8 {
        (self.event >> 16) as u8
    }

    /// Its error code.
    pub const fn error_code(self) -> Option<u32> {
        if self.event & 1 << 8 != 0 {
            Some(self.error_code)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_survives_being_a_value() {
        let segment = SegmentRegister {
            base: 0x1234_5678_9abc_def0,
            limit: 0xffff_ffff,
            selector: 8,
            attributes: 0xa09b,
        };
        assert_eq!(RegisterValue::from(segment).segment(), segment);
    }

    #[test]
    fn a_table_has_its_limit_before_its_base() {
        let value = RegisterValue::from(TableRegister {
            reserved: [0; 3],
            limit: 0x17,
            base: 0x1000,
        });
        assert_eq!((value.low, value.high), (0x17 << 48, 0x1000));
    }

    #[test]
    fn an_event_keeps_its_fields() {
        let event = PendingInterruption::new(InterruptionType::EXCEPTION, 14, Some(2), 0);
        assert_eq!(event.0, 0x0000_0002_000e_0017);
        assert_eq!((event.vector(), event.error_code()), (14, Some(2)));
        let exception = PendingException::new(13, Some(0), 0);
        assert_eq!(exception.event, 0x000d_0101);
        assert_eq!(RegisterValue::from(exception).pending_exception(), exception);
    }
}
