//! Looking into a child (TLFS, "Virtual MMU"): translating its virtual addresses, reading and writing its memory as a VP
//! sees it.

use crate::address::{Gpa, Gpfn};
use crate::id::{PartitionId, VpIndex};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

bitflags::bitflags! {
    /// How a virtual address is translated (`HV_TRANSLATE_GVA_CONTROL_FLAGS`).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct TranslateFlags: u64 {
        /// As for a read.
        const VALIDATE_READ = 1 << 0;
        /// As for a write.
        const VALIDATE_WRITE = 1 << 1;
        /// As for an instruction fetch.
        const VALIDATE_EXECUTE = 1 << 2;
        /// User and supervisor pages alike.
        const PRIVILEGE_EXEMPT = 1 << 3;
        /// Accessed and dirty bits are set.
        const SET_PAGE_TABLE_BITS = 1 << 4;
        /// The TLB is locked until the VP goes on.
        const TLB_FLUSH_INHIBIT = 1 << 5;
        /// As the supervisor, whatever the VP's mode is.
        const SUPERVISOR_ACCESS = 1 << 6;
        /// As the user, whatever the VP's mode is.
        const USER_ACCESS = 1 << 7;
        /// SMAP holds whatever RFLAGS.AC says.
        const ENFORCE_SMAP = 1 << 8;
        /// SMAP does not hold whatever RFLAGS.AC says.
        const OVERRIDE_SMAP = 1 << 9;
    }
}

/// Input of `HvCallTranslateVirtualAddress` and `HvCallTranslateVirtualAddressEx`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TranslateVirtualAddress {
    /// Partition of the VP.
    pub partition: PartitionId,
    /// The VP whose tables and mode count.
    pub vp: VpIndex,
    /// Zero.
    pub reserved: u32,
    /// [`TranslateFlags`].
    pub flags: u64,
    /// Virtual page: the address divided by 4096.
    pub page: u64,
}
const _: () = assert!(size_of::<TranslateVirtualAddress>() == 32);

/// How a translation ended (`HV_TRANSLATE_GVA_RESULT_CODE`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct TranslateResult(pub u32);

impl TranslateResult {
    /// There is a page.
    pub const SUCCESS: Self = Self(0);
    /// A table entry is not present.
    pub const PAGE_NOT_PRESENT: Self = Self(1);
    /// The access is not allowed.
    pub const PRIVILEGE_VIOLATION: Self = Self(2);
    /// A reserved bit is set in a table entry.
    pub const INVALID_PAGE_TABLE_FLAGS: Self = Self(3);
    /// A table, or the page, is at a GPA without a mapping.
    pub const GPA_UNMAPPED: Self = Self(4);
    /// The mapping of the GPA does not allow reads.
    pub const GPA_NO_READ_ACCESS: Self = Self(5);
    /// The mapping of the GPA does not allow writes.
    pub const GPA_NO_WRITE_ACCESS: Self = Self(6);
    /// The page is an overlay that cannot be accessed so.
    pub const GPA_ILLEGAL_OVERLAY_ACCESS: Self = Self(7);
    /// The access would be intercepted.
    pub const INTERCEPT: Self = Self(8);
}

/// Output of `HvCallTranslateVirtualAddress`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TranslatedVirtualAddress {
    /// How it ended.
    pub result: TranslateResult,
    /// Memory type in bits 7:0, bit 8 the page is an overlay.
    pub page_info: u32,
    /// The page, where it succeeded.
    pub page: Gpfn,
}
const _: () = assert!(size_of::<TranslatedVirtualAddress>() == 16);

/// Output of `HvCallTranslateVirtualAddressEx`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TranslatedVirtualAddressEx {
    /// How it ended.
    pub result: TranslateResult,
    /// Memory type in bits 7:0, bit 8 the page is an overlay.
    pub page_info: u32,
    /// Zero.
    pub reserved: u64,
    /// The event to raise where it failed, as registers `PENDING_EVENT0` and `PENDING_EVENT1` take it.
    pub event: [u64; 4],
    /// The page, where it succeeded.
    pub page: Gpfn,
    /// Zero.
    pub padding: u64,
}
const _: () = assert!(size_of::<TranslatedVirtualAddressEx>() == 64);

/// Bytes that one call reads or writes at most.
pub const MAX_ACCESS: usize = 16;

/// Input of `HvCallReadGpa`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ReadGpa {
    /// Partition of the VP.
    pub partition: PartitionId,
    /// The VP whose view counts.
    pub vp: VpIndex,
    /// How many bytes: 1 to [`MAX_ACCESS`], inside one page.
    pub byte_count: u32,
    /// Where.
    pub gpa: Gpa,
    /// Memory type in bits 7:0.
    pub control: u64,
}
const _: () = assert!(size_of::<ReadGpa>() == 32);

/// Input of `HvCallWriteGpa`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct WriteGpa {
    /// Where and how much.
    pub target: ReadGpa,
    /// What.
    pub data: [u8; MAX_ACCESS],
}
const _: () = assert!(size_of::<WriteGpa>() == 48);

/// How a read or write ended (`HV_ACCESS_GPA_RESULT_CODE`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct AccessResult(pub u32);

impl AccessResult {
    /// It was done.
    pub const SUCCESS: Self = Self(0);
    /// The GPA has no mapping.
    pub const UNMAPPED: Self = Self(1);
    /// The mapping does not allow reads.
    pub const READ_INTERCEPT: Self = Self(2);
    /// The mapping does not allow writes.
    pub const WRITE_INTERCEPT: Self = Self(3);
    /// The page is an overlay that cannot be accessed so.
    pub const ILLEGAL_OVERLAY_ACCESS: Self = Self(4);
}

/// Output of `HvCallReadGpa`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ReadGpaResult {
    /// How it ended.
    pub result: AccessResult,
    /// Zero.
    pub reserved: u32,
    /// What was read.
    pub data: [u8; MAX_ACCESS],
}
const _: () = assert!(size_of::<ReadGpaResult>() == 24);

/// Output of `HvCallWriteGpa`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct WriteGpaResult {
    /// How it ended.
    pub result: AccessResult,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<WriteGpaResult>() == 8);
