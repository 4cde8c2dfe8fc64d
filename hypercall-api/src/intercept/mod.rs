//! Intercepts (TLFS, "Intercepts"): what a child does that its parent handles.
//!
//! An intercept suspends the VP (register `INTERCEPT_SUSPEND`). The [`Message`](crate::message::Message) that says why
//! lies in the VP's intercept message page ([`crate::state::VpStatePage::INTERCEPT_MESSAGE`]); the parent is told by a message of
//! type [`OPAQUE_INTERCEPT`](crate::message::MessageType::OPAQUE_INTERCEPT) in its SINT 0, whose payload is an
//! [`OpaqueIntercept`]. It answers by setting registers, `INTERCEPT_SUSPEND` = 0 among them.

mod header;
mod message;

pub use header::{AccessType, ExecutionState, InterceptHeader};
pub use message::{
    ApicEoiMessage, CpuidIntercept, ExceptionInfo, ExceptionIntercept, HaltIntercept, InvalidVpRegister,
    IoPortAccess, IoPortIntercept, MemoryAccess, MemoryIntercept, MsrIntercept, OpaqueIntercept,
    SipiIntercept, UnrecoverableException, UnsupportedFeature,
};

use crate::id::{PartitionId, VpIndex};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What an intercept is about (`HV_INTERCEPT_TYPE`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct InterceptType(pub u32);

impl InterceptType {
    /// An I/O port; parameter: the port.
    pub const IO_PORT: Self = Self(0);
    /// MSRs, all that the hypervisor does not handle itself.
    pub const MSR: Self = Self(1);
    /// A CPUID leaf; parameter: the leaf.
    pub const CPUID: Self = Self(2);
    /// An exception; parameter: the vector.
    pub const EXCEPTION: Self = Self(3);
    /// APIC EOI.
    pub const APIC_EOI: Self = Self(0xe);
    /// I/O ports; parameter: first port in 15:0, last in 31:16.
    pub const IO_PORT_RANGE: Self = Self(0x11);
    /// One MSR; parameter: its number.
    pub const MSR_INDEX: Self = Self(0xc);
    /// Hypercalls that the hypervisor does not handle.
    pub const HYPERCALL: Self = Self(8);
}

bitflags::bitflags! {
    /// Which accesses are intercepted (`HV_INTERCEPT_ACCESS_TYPE_MASK`). None removes the intercept.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct AccessMask: u32 {
        /// Reads.
        const READ = 1 << 0;
        /// Writes.
        const WRITE = 1 << 1;
        /// Execution: CPUID, exceptions.
        const EXECUTE = 1 << 2;
    }
}

/// Input of `HvCallInstallIntercept`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct InstallIntercept {
    /// The child.
    pub partition: PartitionId,
    /// [`AccessMask`].
    pub access: u32,
    /// What to intercept.
    pub intercept: InterceptType,
    /// Port, leaf, vector or MSR, by the type.
    pub parameter: u64,
}
const _: () = assert!(size_of::<InstallIntercept>() == 24);

impl InstallIntercept {
    /// [`parameter`](Self::parameter) of [`InterceptType::IO_PORT_RANGE`].
    pub const fn port_range(first: u16, last: u16) -> u64 {
        first as u64 | (last as u64) << 16
    }
}

/// Input of `HvCallRegisterInterceptResult` for CPUID: what a leaf reads as, so that it needs no intercept.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RegisterCpuidResult {
    /// The child.
    pub partition: PartitionId,
    /// The VP, or [`VpIndex::ANY`].
    pub vp: VpIndex,
    /// [`InterceptType::CPUID`].
    pub intercept: InterceptType,
    /// Leaf.
    pub leaf: u32,
    /// Subleaf.
    pub subleaf: u32,
    /// Non-zero: for this subleaf only.
    pub subleaf_specific: u8,
    /// Non-zero: also where the hypervisor has its own value.
    pub always_override: u8,
    /// Zero.
    pub padding: u16,
    /// EAX, and then which of its bits count; likewise for the others.
    pub eax: [u32; 2],
    /// EBX.
    pub ebx: [u32; 2],
    /// ECX.
    pub ecx: [u32; 2],
    /// EDX.
    pub edx: [u32; 2],
    /// Zero: the block is a multiple of 8 bytes.
    pub reserved: u32,
}
const _: () = assert!(size_of::<RegisterCpuidResult>() == 64);
