//! Payloads of intercept messages. Each is at most 240 bytes.

use super::InterceptHeader;
use crate::address::{Gpa, Gva};
use crate::id::VpIndex;
use crate::message::MESSAGE_PAYLOAD;
use crate::processor::SegmentRegister;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Payload of `OPAQUE_INTERCEPT`: the message proper is in the VP's intercept message page.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct OpaqueIntercept {
    /// The VP that is suspended; its partition is the message's origin.
    pub vp: VpIndex,
}
const _: () = assert!(size_of::<OpaqueIntercept>() == 4);

/// How a port was accessed (`HV_X64_IO_PORT_ACCESS_INFO`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct IoPortAccess(pub u8);

impl IoPortAccess {
    /// An access of `size` bytes, INS or OUTS if `string`, with a repeat prefix if `repeat`.
    pub const fn new(size: u8, string: bool, repeat: bool) -> Self {
        Self(size & 7 | (string as u8) << 3 | (repeat as u8) << 4)
    }

    /// Bytes: 1, 2 or 4.
    pub const fn size(self) -> u8 {
        self.0 & 7
    }

    /// Whether it is INS or OUTS.
    pub const fn is_string(self) -> bool {
        self.0 & 1 << 3 != 0
    }

    /// Whether it has a repeat prefix.
    pub const fn is_repeated(self) -> bool {
        self.0 & 1 << 4 != 0
    }
}

/// Payload of `IO_PORT_INTERCEPT`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IoPortIntercept {
    /// Where the VP was.
    pub header: InterceptHeader,
    /// Which port.
    pub port: u16,
    /// How.
    pub access: IoPortAccess,
    /// Bytes of `instruction` that count.
    pub instruction_byte_count: u8,
    /// Zero.
    pub reserved: u32,
    /// RAX: what is written, or what a read is merged into.
    pub rax: u64,
    /// The instruction.
    pub instruction: [u8; 16],
    /// Segment of OUTS' source.
    pub ds: SegmentRegister,
    /// Segment of INS' target.
    pub es: SegmentRegister,
    /// Repeat count.
    pub rcx: u64,
    /// OUTS' source.
    pub rsi: u64,
    /// INS' target.
    pub rdi: u64,
}
const _: () = assert!(size_of::<IoPortIntercept>() == 128);

/// What is known of a memory access (`HV_X64_MEMORY_ACCESS_INFO`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct MemoryAccess(pub u8);

impl MemoryAccess {
    /// [`MemoryIntercept::gva`] is valid.
    pub const GVA_VALID: u8 = 1 << 0;
    /// The GVA translates to the GPA (and the access is not one to a page table).
    pub const GVA_GPA_VALID: u8 = 1 << 1;
}

/// Payload of `UNMAPPED_GPA` and `GPA_INTERCEPT`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MemoryIntercept {
    /// Where the VP was.
    pub header: InterceptHeader,
    /// Memory type of the access: 0 UC, 1 WC, 4 WT, 5 WP, 6 WB.
    pub cache_type: u32,
    /// Bytes of `instruction` that count; 0 where they could not be read.
    pub instruction_byte_count: u8,
    /// What is known of the access.
    pub access: MemoryAccess,
    /// Task priority.
    pub tpr_priority: u8,
    /// Zero.
    pub reserved: u8,
    /// Virtual address.
    pub gva: Gva,
    /// Physical address.
    pub gpa: Gpa,
    /// The instruction.
    pub instruction: [u8; 16],
}
const _: () = assert!(size_of::<MemoryIntercept>() == 80);

/// Payload of `MSR_INTERCEPT`; the header's access tells reads from writes.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MsrIntercept {
    /// Where the VP was.
    pub header: InterceptHeader,
    /// Which MSR.
    pub msr: u32,
    /// Zero.
    pub reserved: u32,
    /// High half of what is written.
    pub rdx: u64,
    /// Low half of what is written.
    pub rax: u64,
}
const _: () = assert!(size_of::<MsrIntercept>() == 64);

impl MsrIntercept {
    /// What is written.
    pub const fn value(&self) -> u64 {
        self.rdx << 32 | self.rax & 0xffff_ffff
    }
}

/// Payload of `CPUID_INTERCEPT`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[allow(missing_docs)] // the names are the registers'
pub struct CpuidIntercept {
    pub header: InterceptHeader,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rbx: u64,
    /// What the hypervisor would have answered.
    pub default_rax: u64,
    pub default_rcx: u64,
    pub default_rdx: u64,
    pub default_rbx: u64,
}
const _: () = assert!(size_of::<CpuidIntercept>() == 104);

/// What is known of an exception (`HV_X64_EXCEPTION_INFO`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct ExceptionInfo(pub u8);

impl ExceptionInfo {
    /// The error code is valid.
    pub const ERROR_CODE_VALID: u8 = 1 << 0;
    /// INT3 or INTO.
    pub const SOFTWARE_EXCEPTION: u8 = 1 << 1;
}

/// Payload of `EXCEPTION_INTERCEPT`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ExceptionIntercept {
    /// Where the VP was.
    pub header: InterceptHeader,
    /// Vector.
    pub vector: u16,
    /// What is known of it.
    pub info: ExceptionInfo,
    /// Bytes of `instruction` that count.
    pub instruction_byte_count: u8,
    /// Error code.
    pub error_code: u32,
    /// CR2 of a page fault, DR6 of a debug exception.
    pub parameter: u64,
    /// Zero.
    pub reserved: u64,
    /// The instruction.
    pub instruction: [u8; 16],
    /// DS.
    pub ds: SegmentRegister,
    /// SS.
    pub ss: SegmentRegister,
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub general: [u64; 16],
}
const _: () = assert!(size_of::<ExceptionIntercept>() == 240);

/// Payload of `HALT`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HaltIntercept {
    /// Where the VP was.
    pub header: InterceptHeader,
}

/// Payload of `UNRECOVERABLE_EXCEPTION`: a triple fault.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct UnrecoverableException {
    /// Where the VP was.
    pub header: InterceptHeader,
}

/// Payload of `INVALID_VP_REGISTER_VALUE`: the VP's registers are a state that the processor refuses.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct InvalidVpRegister {
    /// The VP.
    pub vp: VpIndex,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<InvalidVpRegister>() == 8);

/// Payload of `UNSUPPORTED_FEATURE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct UnsupportedFeature {
    /// The VP.
    pub vp: VpIndex,
    /// 1 an intercept that cannot be, 2 a task switch.
    pub feature: u32,
    /// More of it.
    pub parameter: u64,
}
const _: () = assert!(size_of::<UnsupportedFeature>() == 16);

/// Payload of `APIC_EOI`: a level-triggered interrupt was ended.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ApicEoiMessage {
    /// The VP that ended it; its partition is the message's origin.
    pub vp: VpIndex,
    /// Its vector.
    pub vector: u32,
}
const _: () = assert!(size_of::<ApicEoiMessage>() == 8);

/// Payload of `SIPI_INTERCEPT`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SipiIntercept {
    /// Where the VP was.
    pub header: InterceptHeader,
    /// The VP that is started.
    pub target: VpIndex,
    /// Page at which it starts.
    pub vector: u32,
}
const _: () = assert!(size_of::<SipiIntercept>() == 48);

const _: () = assert!(size_of::<ExceptionIntercept>() <= MESSAGE_PAYLOAD);

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn fields_sit_where_linux_and_the_vmms_look() {
        assert_eq!(offset_of!(IoPortIntercept, rax), 48);
        assert_eq!(offset_of!(IoPortIntercept, ds), 72);
        assert_eq!(offset_of!(MemoryIntercept, gva), 48);
        assert_eq!(offset_of!(MemoryIntercept, gpa), 56);
        assert_eq!(offset_of!(MemoryIntercept, instruction), 64);
        assert_eq!(offset_of!(MsrIntercept, rdx), 48);
        assert_eq!(offset_of!(ExceptionIntercept, general), 112);
        assert_eq!(offset_of!(InterceptHeader, rip), 24);
        assert_eq!(offset_of!(InterceptHeader, state), 6);
    }

    #[test]
    fn an_outsb_with_rep_is_told_as_such() {
        let access = IoPortAccess::new(1, true, true);
        assert_eq!(access.0, 0x19);
        assert!(access.size() == 1 && access.is_string() && access.is_repeated());
    }
}
