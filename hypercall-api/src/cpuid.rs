//! Hypervisor CPUID leaves (TLFS, "Feature and Interface Discovery").

use crate::id::{PartitionId, VpIndex};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Vendor and highest hypervisor leaf.
pub const LEAF_VENDOR: u32 = 0x4000_0000;
/// Interface signature, [`INTERFACE_HV1`].
pub const LEAF_INTERFACE: u32 = 0x4000_0001;
/// Hypervisor version: EAX build, EBX major in the high half and minor in the low, ECX service pack.
pub const LEAF_VERSION: u32 = 0x4000_0002;
/// Features: EAX and EBX privileges, ECX power, EDX [`Features`].
pub const LEAF_FEATURES: u32 = 0x4000_0003;
/// Recommendations: EAX [`Recommendations`], EBX spin-wait retries.
pub const LEAF_RECOMMENDATIONS: u32 = 0x4000_0004;
/// Limits: EAX most VPs, EBX most LPs, ECX most physical interrupt vectors for remapping.
pub const LEAF_LIMITS: u32 = 0x4000_0005;
/// Hardware features in use: EAX [`HardwareFeatures`].
pub const LEAF_HARDWARE: u32 = 0x4000_0006;
/// Isolation: zero, as no partition is isolated.
pub const LEAF_ISOLATION: u32 = 0x4000_000c;
/// Virtualization stack: zero, as there is none that speaks there.
pub const LEAF_STACK_PROPERTIES: u32 = 0x4000_0082;
/// Hypervisor leaves end before this one; those that are not answered read as zero.
pub const LEAF_END: u32 = 0x4001_0000;
/// The highest leaf that is answered.
pub const LEAF_LAST: u32 = LEAF_HARDWARE;

/// EBX, ECX and EDX of [`LEAF_VENDOR`]: "Microsoft Hv".
pub const VENDOR: [u32; 3] = [0x7263_694d, 0x666f_736f, 0x7648_2074];
/// EAX of [`LEAF_INTERFACE`]: "Hv#1".
pub const INTERFACE_HV1: u32 = 0x3123_7648;
/// Build number that Linux's `mshv` driver expects of a hypervisor.
pub const BUILD: u32 = 27744;

/// A leaf to ask for (`HV_CPUID_LEAF_INFO`), an element of `HvCallGetVpCpuidValues`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CpuidLeaf {
    /// Leaf, as in EAX.
    pub eax: u32,
    /// Subleaf, as in ECX.
    pub ecx: u32,
    /// XCR0 to assume, where [`GetVpCpuidValues::USE_VP_XFEM_XSS`] is not set.
    pub xfem: u64,
    /// IA32_XSS to assume, likewise.
    pub xss: u64,
}
const _: () = assert!(size_of::<CpuidLeaf>() == 24);

/// Header of the input of `HvCallGetVpCpuidValues`, before its [`CpuidLeaf`]s; the output is a [`CpuidValues`] each.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct GetVpCpuidValues {
    /// Partition of the VP.
    pub partition: PartitionId,
    /// The VP.
    pub vp: VpIndex,
    /// [`USE_VP_XFEM_XSS`](Self::USE_VP_XFEM_XSS), [`APPLY_REGISTERED_VALUES`](Self::APPLY_REGISTERED_VALUES).
    pub flags: u32,
    /// Zero.
    pub reserved: u64,
}
const _: () = assert!(size_of::<GetVpCpuidValues>() == 24);

impl GetVpCpuidValues {
    /// Take XCR0 and IA32_XSS from the VP.
    pub const USE_VP_XFEM_XSS: u32 = 1 << 0;
    /// Apply what `HvCallRegisterInterceptResult` registered.
    pub const APPLY_REGISTERED_VALUES: u32 = 1 << 1;
}

/// What CPUID returns.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[allow(missing_docs)] // the names are the registers'
pub struct CpuidValues {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}
const _: () = assert!(size_of::<CpuidValues>() == 16);

bitflags::bitflags! {
    /// EDX of [`LEAF_FEATURES`].
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Features: u32 {
        /// Fast hypercall input by XMM registers.
        const XMM_INPUT = 1 << 4;
        /// Frequency MSRs are there.
        const FREQUENCY_MSRS = 1 << 8;
        /// Guest crash MSRs are there.
        const GUEST_CRASH_MSRS = 1 << 10;
        /// Fast hypercall output by XMM registers.
        const XMM_OUTPUT = 1 << 15;
        /// Synthetic timers can raise a vector directly.
        const DIRECT_SYNTHETIC_TIMERS = 1 << 19;
    }

    /// EAX of [`LEAF_RECOMMENDATIONS`].
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Recommendations: u32 {
        /// Flush remote TLBs by hypercall.
        const REMOTE_TLB_FLUSH = 1 << 2;
        /// Reach the APIC by synthetic MSRs.
        const APIC_MSRS = 1 << 3;
        /// Expect late timers.
        const RELAXED_TIMING = 1 << 5;
        /// AutoEOI is not to be used.
        const DEPRECATE_AUTO_EOI = 1 << 9;
        /// Send IPIs by hypercall.
        const CLUSTER_IPI = 1 << 10;
        /// Use the Ex forms with processor sets.
        const EX_PROCESSOR_MASKS = 1 << 11;
    }

    /// EAX of [`LEAF_HARDWARE`].
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct HardwareFeatures: u32 {
        /// APIC overlay assist is in use.
        const APIC_OVERLAY_ASSIST = 1 << 0;
        /// MSR bitmaps are in use.
        const MSR_BITMAPS = 1 << 1;
        /// Second-level address translation is in use.
        const SECOND_LEVEL_ADDRESS_TRANSLATION = 1 << 3;
        /// DMA remapping is in use.
        const DMA_REMAPPING = 1 << 4;
        /// Interrupt remapping is in use.
        const INTERRUPT_REMAPPING = 1 << 5;
    }
}
