//! Creating, describing and deleting partitions (TLFS, "Partition Management").
//!
//! A partition is created (its memory comes from the caller's own pool), gets its first pages by deposit, is
//! initialized, lives, is finalized and then deleted.

use crate::id::PartitionId;
use crate::memory::ProximityDomainInfo;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

bitflags::bitflags! {
    /// What kind of partition is created (`HV_PARTITION_CREATION_FLAG_*`).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct CreationFlags: u64 {
        /// VPs may be siblings on a core.
        const SMT_ENABLED = 1 << 0;
        /// The child may be a hypervisor itself.
        const NESTED_VIRTUALIZATION = 1 << 1;
        /// Large pages may be mapped.
        const GPA_SUPER_PAGES = 1 << 4;
        /// Exo partition: intercepts and memory are the parent's alone.
        const EXO_PARTITION = 1 << 8;
        /// The hypervisor provides local APICs.
        const LAPIC_ENABLED = 1 << 13;
        /// Intercept messages are written to a page of the VP, not into the SynIC.
        const INTERCEPT_MESSAGE_PAGE_ENABLED = 1 << 19;
        /// The local APICs have x2APIC mode.
        const X2APIC_CAPABLE = 1 << 22;
    }
}

/// [`CreatePartition::compatibility_version`] that Linux asks for: major in 15:8, minor in 7:0.
pub const COMPATIBILITY_21H2: u32 = 0x609;

/// Input of `HvCallCreatePartition`; the output is the new [`PartitionId`].
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CreatePartition {
    /// [`CreationFlags`].
    pub flags: u64,
    /// Where its memory should come from.
    pub proximity: ProximityDomainInfo,
    /// [`COMPATIBILITY_21H2`].
    pub compatibility_version: u32,
    /// Zero.
    pub padding: u32,
    /// Processor features that the partition does not get, two banks.
    pub disabled_processor_features: [u64; 2],
    /// XSAVE features that it does not get: [`XsaveFeatures`].
    pub disabled_xsave_features: u64,
    /// Zero: no isolation.
    pub isolation: u64,
}
const _: () = assert!(size_of::<CreatePartition>() == 56);

impl CreatePartition {
    /// A partition of `flags` with all that the processor offers.
    pub const fn new(flags: CreationFlags) -> Self {
        Self {
            flags: flags.bits(),
            proximity: ProximityDomainInfo::ANY,
            compatibility_version: COMPATIBILITY_21H2,
            padding: 0,
            disabled_processor_features: [0; 2],
            disabled_xsave_features: 0,
            isolation: 0,
        }
    }
}

bitflags::bitflags! {
    /// XSAVE features (`HV_PARTITION_PROCESSOR_XSAVE_FEATURES`).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct XsaveFeatures: u64 {
        /// XSAVE.
        const XSAVE = 1 << 0;
        /// XSAVEOPT.
        const XSAVEOPT = 1 << 1;
        /// AVX state.
        const AVX = 1 << 2;
    }

    /// Parts of the hypervisor's interface that a partition is shown ([`PartitionProperty::SYNTHETIC_PROCESSOR_FEATURES`]).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct SyntheticFeatures: u64 {
        /// CPUID tells that there is a hypervisor.
        const HYPERVISOR_PRESENT = 1 << 0;
        /// Its interface is "Hv#1": leaves 0x40000000 to 0x40000006.
        const HV1 = 1 << 1;
        /// VP run time MSR.
        const ACCESS_VP_RUN_TIME_REG = 1 << 2;
        /// Reference counter MSR.
        const ACCESS_PARTITION_REFERENCE_COUNTER = 1 << 3;
        /// SynIC MSRs.
        const ACCESS_SYNIC_REGS = 1 << 4;
        /// Synthetic timer MSRs.
        const ACCESS_SYNTHETIC_TIMER_REGS = 1 << 5;
        /// APIC MSRs and the VP assist page.
        const ACCESS_INTR_CTRL_REGS = 1 << 6;
        /// Guest OS id and hypercall MSRs.
        const ACCESS_HYPERCALL_REGS = 1 << 7;
        /// VP index MSR.
        const ACCESS_VP_INDEX = 1 << 8;
        /// Reference TSC page.
        const ACCESS_PARTITION_REFERENCE_TSC = 1 << 9;
        /// Guest idle MSR.
        const ACCESS_GUEST_IDLE_REG = 1 << 10;
        /// Frequency MSRs.
        const ACCESS_FREQUENCY_REGS = 1 << 11;
        /// Fast hypercall output.
        const FAST_HYPERCALL_OUTPUT = 1 << 18;
        /// `HvCallStartVirtualProcessor`.
        const START_VIRTUAL_PROCESSOR = 1 << 20;
        /// Synthetic timers in direct mode.
        const DIRECT_SYNTHETIC_TIMERS = 1 << 22;
        /// Calls with processor sets.
        const EXTENDED_PROCESSOR_MASKS = 1 << 24;
        /// TLB flushes by hypercall.
        const TB_FLUSH_HYPERCALLS = 1 << 25;
        /// IPIs by hypercall.
        const SYNTHETIC_CLUSTER_IPI = 1 << 26;
        /// `HvCallNotifyLongSpinWait`.
        const NOTIFY_LONG_SPIN_WAIT = 1 << 27;
        /// `HvCallSignalEvent`.
        const SIGNAL_EVENTS = 1 << 29;
        /// `HvCallRetargetDeviceInterrupt`.
        const RETARGET_DEVICE_INTERRUPT = 1 << 30;
    }
}

/// Which property of a partition (`HV_PARTITION_PROPERTY_CODE`). Values are 64-bit words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct PartitionProperty(pub u32);

impl PartitionProperty {
    /// [`crate::privilege::Privileges`].
    pub const PRIVILEGE_FLAGS: Self = Self(0x1_0000);
    /// [`SyntheticFeatures`].
    pub const SYNTHETIC_PROCESSOR_FEATURES: Self = Self(0x1_0001);
    /// Non-zero: no VP runs.
    pub const SUSPEND: Self = Self(0x2_0000);
    /// Processor time that each VP is sure of, [`CPU_SHARE_ALL`] being a whole processor.
    pub const CPU_RESERVE: Self = Self(0x2_0001);
    /// Processor time that each VP gets at most, [`CPU_SHARE_ALL`] being a whole processor: no cap, as at first.
    pub const CPU_CAP: Self = Self(0x2_0002);
    /// Weight of each VP against others, [`CPU_WEIGHT_MIN`] to [`CPU_WEIGHT_MAX`].
    pub const CPU_WEIGHT: Self = Self(0x2_0003);
    /// Non-zero: the root schedules (never, here).
    pub const INTEGRATED_SCHEDULER_ENABLED: Self = Self(0x2_0005);
    /// Non-zero: the reference time stands still.
    pub const TIME_FREEZE: Self = Self(0x3_0003);
    /// The partition's reference time, in 100 ns.
    pub const REFERENCE_TIME: Self = Self(0x3_0005);
    /// Non-zero: accesses to pages are tracked.
    pub const GPA_PAGE_ACCESS_TRACKING: Self = Self(0x5_0005);
    /// What an MSR that is not implemented does: [`UNIMPLEMENTED_MSR_FAULT`] or [`UNIMPLEMENTED_MSR_IGNORE`].
    pub const UNIMPLEMENTED_MSR_ACTION: Self = Self(0x5_0017);
    /// 0 AMD, 1 Intel, 2 Hygon.
    pub const PROCESSOR_VENDOR: Self = Self(0x6_0000);
    /// [`XsaveFeatures`] that VPs have.
    pub const PROCESSOR_XSAVE_FEATURES: Self = Self(0x6_0002);
    /// Bits of XCR0 that VPs have.
    pub const XSAVE_STATES: Self = Self(0x6_0007);
    /// Bytes of a VP's largest XSAVE area.
    pub const MAX_XSAVE_DATA_SIZE: Self = Self(0x6_0008);
    /// TSC frequency, in Hz.
    pub const PROCESSOR_CLOCK_FREQUENCY: Self = Self(0x6_0009);
    /// What the guest wrote to its identity MSR.
    pub const GUEST_OS_ID: Self = Self(0x7_0000);
}

/// [`PartitionProperty::CPU_RESERVE`] and [`PartitionProperty::CPU_CAP`]: a whole processor.
pub const CPU_SHARE_ALL: u64 = 1 << 16;
/// Least [`PartitionProperty::CPU_WEIGHT`].
pub const CPU_WEIGHT_MIN: u64 = 1;
/// [`PartitionProperty::CPU_WEIGHT`] of a new partition.
pub const CPU_WEIGHT_DEFAULT: u64 = 100;
/// Largest [`PartitionProperty::CPU_WEIGHT`].
pub const CPU_WEIGHT_MAX: u64 = 10_000;

/// [`PartitionProperty::UNIMPLEMENTED_MSR_ACTION`]: #GP.
pub const UNIMPLEMENTED_MSR_FAULT: u64 = 0;
/// [`PartitionProperty::UNIMPLEMENTED_MSR_ACTION`]: reads are zero, writes are ignored.
pub const UNIMPLEMENTED_MSR_IGNORE: u64 = 1;

/// Input of `HvCallGetPartitionProperty`; the output is the value, 64 bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct GetPartitionProperty {
    /// The partition.
    pub partition: PartitionId,
    /// Which property.
    pub property: PartitionProperty,
    /// Zero.
    pub padding: u32,
}
const _: () = assert!(size_of::<GetPartitionProperty>() == 16);

/// Input of `HvCallSetPartitionProperty`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SetPartitionProperty {
    /// The partition.
    pub partition: PartitionId,
    /// Which property.
    pub property: PartitionProperty,
    /// Zero.
    pub padding: u32,
    /// Its value.
    pub value: u64,
}
const _: () = assert!(size_of::<SetPartitionProperty>() == 24);
