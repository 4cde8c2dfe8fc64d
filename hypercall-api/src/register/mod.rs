//! Registers of a VP by name (TLFS, "Virtual Processor Registers"): how a parent reads and sets what its child's VP holds,
//! and how it suspends and resumes it.

mod name;
mod value;

pub use name::RegisterName;
pub use value::{InterruptState, InterruptionType, PendingException, PendingInterruption, RegisterValue};

use crate::id::{PartitionId, VpIndex};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Header of the input of `HvCallGetVpRegisters` (before a list of [`RegisterName`]s; the output is a [`RegisterValue`]
/// each) and of `HvCallSetVpRegisters` (before a list of [`RegisterAssociation`]s).
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct VpRegisters {
    /// Partition of the VP.
    pub partition: PartitionId,
    /// The VP.
    pub vp: VpIndex,
    /// Zero, or 0x10: VTL 0.
    pub target_vtl: u8,
    /// Zero.
    pub reserved: [u8; 3],
}
const _: () = assert!(size_of::<VpRegisters>() == 16);

impl VpRegisters {
    /// Registers of `vp`.
    pub const fn of(partition: PartitionId, vp: VpIndex) -> Self {
        Self {
            partition,
            vp,
            target_vtl: 0,
            reserved: [0; 3],
        }
    }
}

/// A register and the value it gets (`HV_REGISTER_ASSOC`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RegisterAssociation {
    /// Which register.
    pub name: RegisterName,
    /// Zero.
    pub reserved: u32,
    /// Zero.
    pub padding: u64,
    /// Its value.
    pub value: RegisterValue,
}
const _: () = assert!(size_of::<RegisterAssociation>() == 32);

impl RegisterAssociation {
    /// `name` gets `value`.
    pub fn new(name: RegisterName, value: impl Into<RegisterValue>) -> Self {
        Self {
            name,
            reserved: 0,
            padding: 0,
            value: value.into(),
        }
    }
}

/// Registers that one call can get: names and values fill a page each.
pub const MAX_GET: usize = 4096 / size_of::<RegisterValue>();
/// Registers that one call can set.
pub const MAX_SET: usize = (4096 - size_of::<VpRegisters>()) / size_of::<RegisterAssociation>();
