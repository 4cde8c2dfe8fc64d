//! Identifiers of partitions and processors (TLFS, "Basic Data Types").

use core::fmt;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Identifies a partition. Never reused while anything refers to it.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct PartitionId(pub u64);

impl PartitionId {
    /// Stands for the caller's own partition (`HV_PARTITION_ID_SELF`).
    pub const SELF: Self = Self(u64::MAX);
    /// No partition.
    pub const INVALID: Self = Self(0);
}

/// Index of a virtual processor inside its partition, dense from 0.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct VpIndex(pub u32);

impl VpIndex {
    /// Stands for the calling VP (`HV_VP_INDEX_SELF`).
    pub const SELF: Self = Self(0xffff_fffe);
    /// Any VP (`HV_ANY_VP`).
    pub const ANY: Self = Self(0xffff_ffff);
}

/// Index of a logical processor, dense from 0; 0 is the processor that booted.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct LpIndex(pub u32);

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for VpIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for LpIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
