//! What each intercept message begins with.

use crate::id::VpIndex;
use crate::processor::SegmentRegister;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How the VP accessed what was intercepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct AccessType(pub u8);

impl AccessType {
    /// It read.
    pub const READ: Self = Self(0);
    /// It wrote.
    pub const WRITE: Self = Self(1);
    /// It executed.
    pub const EXECUTE: Self = Self(2);
}

/// State in which the VP was (`HV_X64_VP_EXECUTION_STATE`).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct ExecutionState(pub u16);

impl ExecutionState {
    /// CR0.PE is set.
    pub const CR0_PE: u16 = 1 << 2;
    /// CR0.AM is set.
    pub const CR0_AM: u16 = 1 << 3;
    /// EFER.LMA is set.
    pub const EFER_LMA: u16 = 1 << 4;
    /// A debug register is active.
    pub const DEBUG_ACTIVE: u16 = 1 << 5;
    /// An event was being delivered.
    pub const INTERRUPTION_PENDING: u16 = 1 << 6;
    /// Interrupts are held off by STI or MOV SS.
    pub const INTERRUPT_SHADOW: u16 = 1 << 12;

    /// Current privilege level.
    pub const fn privilege_level(self) -> u8 {
        (self.0 & 3) as u8
    }

    /// Whether each bit of `bits` is set.
    pub const fn has(self, bits: u16) -> bool {
        self.0 & bits == bits
    }
}

/// Header of an intercept message (`HV_X64_INTERCEPT_MESSAGE_HEADER`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct InterceptHeader {
    /// The VP.
    pub vp: VpIndex,
    /// Instruction length (0: not known) in bits 3:0, CR8 in bits 7:4.
    pub length_and_cr8: u8,
    /// How it accessed.
    pub access: AccessType,
    /// State in which it was.
    pub state: ExecutionState,
    /// Its code segment.
    pub cs: SegmentRegister,
    /// Its instruction pointer.
    pub rip: u64,
    /// Its flags.
    pub rflags: u64,
}
const _: () = assert!(size_of::<InterceptHeader>() == 40);

impl InterceptHeader {
    /// Length of the instruction, 0 where it is not known.
    pub const fn instruction_length(&self) -> u8 {
        self.length_and_cr8 & 0xf
    }

    /// Task priority.
    pub const fn cr8(&self) -> u8 {
        self.length_and_cr8 >> 4
    }

    /// Both, as they stand in the header.
    pub const fn pack(instruction_length: u8, cr8: u8) -> u8 {
        instruction_length & 0xf | cr8 << 4
    }
}
