//! Partita's own calls, for which the TLFS has none: what the system is, and the hypervisor's log. Only a partition
//! with the privilege `CPU_MANAGEMENT` (the root) may make them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Most IOMMU units that [`SystemInfo`] describes.
pub const MAX_IOMMUS: usize = 8;

/// Output of `HvCallPartitaQuerySystem`, which takes no input.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SystemInfo {
    /// Hypervisor version: major, minor, patch, and a reserved word.
    pub version: [u32; 4],
    /// The processor's vendor, ASCII.
    pub cpu_vendor: [u8; 12],
    /// [`VIRTUALIZATION_SVM`] or [`VIRTUALIZATION_VMX`].
    pub virtualization: u32,
    /// The processor's name, ASCII, zero-padded.
    pub cpu_brand: [u8; 48],
    /// Logical processors that run.
    pub lp_count: u32,
    /// Logical processors that the firmware lists.
    pub lp_present: u32,
    /// Usable RAM of the machine, in bytes.
    pub memory_total: u64,
    /// What the hypervisor keeps, in bytes.
    pub memory_hypervisor: u64,
    /// Of that, what is still free.
    pub memory_hypervisor_free: u64,
    /// RAM that the root has, in bytes.
    pub memory_root: u64,
    /// [`HardwareSupport`] bits.
    pub hardware: u64,
    /// TSC frequency, in Hz.
    pub tsc_frequency: u64,
    /// Frequency of the local APIC timer, in Hz.
    pub apic_frequency: u64,
    /// TSC at the hypervisor's first instruction in Rust.
    pub tsc_at_entry: u64,
    /// TSC when the root was entered.
    pub tsc_at_root: u64,
    /// Address width of physical addresses, in bits.
    pub physical_address_bits: u32,
    /// Number of valid elements of `iommu`.
    pub iommu_count: u32,
    /// Flags of the DMAR table: bit 0 interrupt remapping, bit 1 x2APIC opt-out. Zero where there is none.
    pub dmar_flags: u32,
    /// Number of reserved memory regions (RMRR) in the DMAR table.
    pub rmrr_count: u32,
    /// The IOMMU units.
    pub iommu: [IommuInfo; MAX_IOMMUS],
}
const _: () = assert!(size_of::<SystemInfo>() <= 4096 && size_of::<SystemInfo>().is_multiple_of(8));

/// One IOMMU unit, as found.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IommuInfo {
    /// Address of its registers.
    pub register_base: u64,
    /// Capability register.
    pub capability: u64,
    /// Extended capability register.
    pub extended_capability: u64,
    /// PCI segment.
    pub segment: u16,
    /// Non-zero: it covers every device of the segment that no other unit names.
    pub include_all: u16,
    /// Version register.
    pub version: u32,
}
const _: () = assert!(size_of::<IommuInfo>() == 32);

/// [`SystemInfo::virtualization`]: AMD-V.
pub const VIRTUALIZATION_SVM: u32 = 1;
/// [`SystemInfo::virtualization`]: Intel VT-x.
pub const VIRTUALIZATION_VMX: u32 = 2;

bitflags::bitflags! {
    /// What the processor offers of what the hypervisor needs or could use.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct HardwareSupport: u64 {
        /// Second-level address translation (NPT or EPT).
        const NESTED_PAGING = 1 << 0;
        /// The processor tells the next instruction's address (NRIPS; always on VT-x).
        const NEXT_RIP = 1 << 1;
        /// TLBs can be flushed by address space (flush-by-ASID, INVVPID).
        const FLUSH_BY_ASID = 1 << 2;
        /// Decode assists.
        const DECODE_ASSISTS = 1 << 3;
        /// VMCB clean bits.
        const VMCB_CLEAN = 1 << 4;
        /// Virtual global interrupt flag.
        const VIRTUAL_GIF = 1 << 5;
        /// AVIC or APICv.
        const VIRTUAL_APIC = 1 << 6;
        /// Pause filter or PAUSE-loop exiting.
        const PAUSE_FILTER = 1 << 7;
        /// 1 GiB pages.
        const GIB_PAGES = 1 << 8;
        /// x2APIC.
        const X2APIC = 1 << 9;
        /// TSC that runs at one rate in every power state.
        const INVARIANT_TSC = 1 << 10;
        /// TSC-deadline timer.
        const TSC_DEADLINE = 1 << 11;
        /// XSAVE.
        const XSAVE = 1 << 12;
        /// TSC scaling.
        const TSC_SCALING = 1 << 13;
        /// A DMAR table was found.
        const IOMMU = 1 << 16;
        /// Every IOMMU unit can remap interrupts.
        const INTERRUPT_REMAPPING = 1 << 17;
        /// Every IOMMU unit can remap interrupts to 32-bit APIC ids (EIM).
        const EXTENDED_INTERRUPT_MODE = 1 << 18;
        /// Every IOMMU unit has queued invalidation.
        const QUEUED_INVALIDATION = 1 << 19;
        /// PCI configuration space is memory-mapped (MCFG).
        const ECAM = 1 << 20;
    }
}

/// Input of `HvCallPartitaReadLog`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ReadLog {
    /// Where to read from, in bytes since the hypervisor started; 0 for the oldest that is kept.
    pub position: u64,
}

/// Bytes of log that one call returns at most.
pub const LOG_CHUNK: usize = 4064;

/// Output of `HvCallPartitaReadLog`: a page.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LogChunk {
    /// Where `data` begins; later than asked where the ring has overwritten that.
    pub position: u64,
    /// Position to ask for next.
    pub next: u64,
    /// Bytes of `data` that count; 0 at the end.
    pub length: u32,
    /// Reserved.
    pub reserved: [u32; 3],
    /// Lines, UTF-8, each ending in a newline.
    pub data: [u8; LOG_CHUNK],
}
const _: () = assert!(size_of::<LogChunk>() == 4096);
