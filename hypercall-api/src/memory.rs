//! Memory pools and guest physical address spaces (TLFS, "Resource Management" and "Guest Physical Address Spaces").
//!
//! Each partition has a pool of pages from which the hypervisor takes what it needs for the partition. The parent
//! deposits pages and gets the unused ones back by withdrawing. Deposited pages leave the parent's address space; pages
//! mapped as a child's RAM stay in it.

use crate::address::Gpfn;
use crate::id::PartitionId;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Where memory should come from (`HV_PROXIMITY_DOMAIN_INFO`). Zero: anywhere.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ProximityDomainInfo {
    /// ACPI proximity domain.
    pub domain: u32,
    /// Bit 0 preferred, bit 31 the information is valid.
    pub flags: u32,
}

impl ProximityDomainInfo {
    /// Anywhere.
    pub const ANY: Self = Self { domain: 0, flags: 0 };
    /// The flags that have a meaning.
    pub const VALID_FLAGS: u32 = 1 << 0 | 1 << 31;
}

/// Header of the input of `HvCallDepositMemory`, before a list of pages ([`Gpfn`]s of the caller), which leave the
/// caller's address space.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DepositMemory {
    /// Partition whose pool gets them: a child, or the caller.
    pub partition: PartitionId,
}
const _: () = assert!(size_of::<DepositMemory>() == 8);

/// Input of `HvCallWithdrawMemory`; the output is a list of pages ([`Gpfn`]s of the caller), zeroed, one a rep.
/// `HV_STATUS_NO_RESOURCES` tells that the pool has no (further) unused page.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct WithdrawMemory {
    /// Partition whose pool gives them.
    pub partition: PartitionId,
    /// Which of them.
    pub proximity: ProximityDomainInfo,
}
const _: () = assert!(size_of::<WithdrawMemory>() == 16);

/// Input of `HvCallGetMemoryBalance`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct GetMemoryBalance {
    /// Partition whose pool is asked after.
    pub partition: PartitionId,
    /// Which part of it.
    pub proximity: ProximityDomainInfo,
}
const _: () = assert!(size_of::<GetMemoryBalance>() == 16);

/// Output of `HvCallGetMemoryBalance`, in pages.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MemoryBalance {
    /// Deposited and unused.
    pub available: u64,
    /// Deposited and in use.
    pub in_use: u64,
}
const _: () = assert!(size_of::<MemoryBalance>() == 16);

bitflags::bitflags! {
    /// How pages are mapped (`HV_MAP_GPA_FLAGS`).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct MapGpaFlags: u32 {
        /// The child may read.
        const READABLE = 1 << 0;
        /// The child may write.
        const WRITABLE = 1 << 1;
        /// The child's kernel may execute.
        const KERNEL_EXECUTABLE = 1 << 2;
        /// The child's user mode may execute.
        const USER_EXECUTABLE = 1 << 3;
        /// The page may be moved later.
        const ADJUSTABLE = 1 << 15;
        /// Every access is an intercept, but the pages stay bound.
        const NO_ACCESS = 1 << 16;
        /// Uncached.
        const NOT_CACHED = 1 << 21;
        /// Elements are large pages of 2 MiB: bases and page numbers are multiples of 512.
        const LARGE_PAGE = 1 << 31;

        /// What RAM is mapped with.
        const RAM = 0xf;
    }
}

/// Pages of 4 KiB in a large page.
pub const LARGE_PAGE_PAGES: u64 = 512;

/// Header of the input of `HvCallMapGpaPages`, before a list of the caller's pages, one for each page (or large page)
/// of the child from `target` on.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MapGpaPages {
    /// The child.
    pub partition: PartitionId,
    /// First page in its address space.
    pub target: Gpfn,
    /// [`MapGpaFlags`].
    pub flags: u32,
    /// Zero.
    pub padding: u32,
}
const _: () = assert!(size_of::<MapGpaPages>() == 24);

/// Input of `HvCallUnmapGpaPages`; the rep count is the number of pages (or large pages).
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct UnmapGpaPages {
    /// The child.
    pub partition: PartitionId,
    /// First page in its address space.
    pub target: Gpfn,
    /// Zero or [`LARGE_PAGE`](Self::LARGE_PAGE).
    pub flags: u32,
    /// Zero.
    pub padding: u32,
}
const _: () = assert!(size_of::<UnmapGpaPages>() == 24);

impl UnmapGpaPages {
    /// A rep is a large page.
    pub const LARGE_PAGE: u32 = 1 << 1;
}
