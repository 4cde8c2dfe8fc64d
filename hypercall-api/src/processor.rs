//! Starting virtual processors and asking after logical ones (TLFS, "Virtual Processor Management").

use crate::id::{LpIndex, PartitionId, VpIndex};
use crate::memory::ProximityDomainInfo;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A segment register (`HV_X64_SEGMENT_REGISTER`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SegmentRegister {
    /// Base address.
    pub base: u64,
    /// Limit, in bytes.
    pub limit: u32,
    /// Selector.
    pub selector: u16,
    /// Type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15.
    pub attributes: u16,
}
const _: () = assert!(size_of::<SegmentRegister>() == 16);

/// GDTR or IDTR (`HV_X64_TABLE_REGISTER`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TableRegister {
    /// Reserved.
    pub reserved: [u16; 3],
    /// Limit, in bytes.
    pub limit: u16,
    /// Base address.
    pub base: u64,
}
const _: () = assert!(size_of::<TableRegister>() == 16);

/// The state in which a VP starts (`HV_INITIAL_VP_CONTEXT`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[allow(missing_docs)] // the names are the registers'
pub struct InitialVpContext {
    pub rip: u64,
    pub rsp: u64,
    pub rflags: u64,
    pub cs: SegmentRegister,
    pub ds: SegmentRegister,
    pub es: SegmentRegister,
    pub fs: SegmentRegister,
    pub gs: SegmentRegister,
    pub ss: SegmentRegister,
    pub tr: SegmentRegister,
    pub ldtr: SegmentRegister,
    pub idtr: TableRegister,
    pub gdtr: TableRegister,
    pub efer: u64,
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub pat: u64,
}
const _: () = assert!(size_of::<InitialVpContext>() == 224);

/// Input of `HvCallStartVirtualProcessor`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct StartVirtualProcessor {
    /// Partition of the VP.
    pub partition: PartitionId,
    /// The VP; it must not have been started.
    pub vp: VpIndex,
    /// Zero.
    pub target_vtl: u8,
    /// Reserved.
    pub reserved: [u8; 3],
    /// Its first state.
    pub context: InitialVpContext,
}
const _: () = assert!(size_of::<StartVirtualProcessor>() == 240);

/// Input of `HvCallGetLogicalProcessorRunTime`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct GetLogicalProcessorRunTime {
    /// The processor.
    pub lp: LpIndex,
    /// Reserved.
    pub reserved: u32,
}

/// Output of `HvCallGetLogicalProcessorRunTime`, times in 100 ns.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LogicalProcessorRunTime {
    /// Time since the hypervisor started.
    pub global_time: u64,
    /// Time that the processor was not idle.
    pub local_run_time: u64,
    /// Reserved.
    pub reserved: u64,
    /// Of that, time in the hypervisor.
    pub hypervisor_time: u64,
}
const _: () = assert!(size_of::<LogicalProcessorRunTime>() == 32);

/// Input of `HvCallCreateVp`. A child's VP is born explicitly suspended, its registers as after INIT.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CreateVp {
    /// Partition that gets the VP.
    pub partition: PartitionId,
    /// Its index, which is also its APIC id.
    pub vp: VpIndex,
    /// Zero.
    pub padding: [u8; 3],
    /// Zero: any subnode.
    pub subnode_type: u8,
    /// Zero.
    pub subnode: u64,
    /// Where its memory should come from.
    pub proximity: ProximityDomainInfo,
    /// Zero for a child; the logical processor for a VP of the root.
    pub flags: u64,
}
const _: () = assert!(size_of::<CreateVp>() == 40);

/// Input of `HvCallDeleteVp`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DeleteVp {
    /// Partition of the VP.
    pub partition: PartitionId,
    /// The VP.
    pub vp: VpIndex,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<DeleteVp>() == 16);

/// Header of the input of `HvCallGetVpIndexFromApicId`, before a list of 32-bit APIC ids; the output is a VP index each.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct GetVpIndexFromApicId {
    /// Partition of the VPs.
    pub partition: PartitionId,
    /// Zero.
    pub target_vtl: u8,
    /// Zero.
    pub reserved: [u8; 7],
}
const _: () = assert!(size_of::<GetVpIndexFromApicId>() == 16);
