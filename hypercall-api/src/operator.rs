//! Partita's own calls, for which the TLFS has none: what the system is, and the hypervisor's log. Only a partition
//! with the privilege `CPU_MANAGEMENT` (the root) may make them.

use crate::id::PartitionId;
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

/// Bytes of [`IommuState::problem`].
pub const PROBLEM_LENGTH: usize = 160;
/// Faults that [`IommuState`] holds.
pub const MAX_DMA_FAULTS: usize = 32;
/// Devices that [`IommuState`] holds.
pub const MAX_DMA_DEVICES: usize = 64;

bitflags::bitflags! {
    /// What the IOMMU does.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct IommuFlags: u64 {
        /// Devices reach only what their domain maps.
        const TRANSLATES = 1 << 0;
        /// Devices raise only interrupts that they were given.
        const REMAPS_INTERRUPTS = 1 << 1;
        /// On processors with any APIC id.
        const EXTENDED_INTERRUPTS = 1 << 2;
    }
}

/// Output of `HvCallPartitaQueryIommu`, which takes no input.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IommuState {
    /// [`IommuFlags`] bits.
    pub flags: u64,
    /// Size of the largest pages, in bytes.
    pub largest_page: u64,
    /// Levels of page tables.
    pub levels: u32,
    /// Bits of the addresses that devices can use.
    pub address_bits: u32,
    /// Domains.
    pub domains: u32,
    /// Interrupt remapping entries in use.
    pub interrupts: u32,
    /// Interrupt remapping entries.
    pub interrupt_entries: u32,
    /// Devices of which there is something to tell; `devices` holds the first of them.
    pub device_count: u32,
    /// Invalidations that the units have been told to do.
    pub invalidations: u64,
    /// Refused accesses and interrupts since the start, as far as the units had room to record them.
    pub fault_count: u64,
    /// Times that a unit had no room.
    pub fault_overflows: u64,
    /// Number of valid elements of `faults`.
    pub faults_kept: u32,
    /// Reserved.
    pub reserved: u32,
    /// Why DMA is not translated, ASCII, zero-padded; empty where it is.
    pub problem: [u8; PROBLEM_LENGTH],
    /// The last faults, the oldest first.
    pub faults: [DmaFault; MAX_DMA_FAULTS],
    /// The devices.
    pub devices: [DmaDevice; MAX_DMA_DEVICES],
}
const _: () = assert!(size_of::<IommuState>() <= 4096 && size_of::<IommuState>().is_multiple_of(8));

/// A refused access or interrupt of a device.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DmaFault {
    /// The root's reference time, in 100 ns.
    pub time: u64,
    /// Page that was accessed; of an interrupt (`reason` from 0x20 on), the number of its entry.
    pub address: u64,
    /// PCI segment group.
    pub segment: u16,
    /// Bus, device and function.
    pub rid: u16,
    /// The fault reason (VT-d, 7.1.3).
    pub reason: u8,
    /// Non-zero for a read.
    pub is_read: u8,
    /// Reserved.
    pub reserved: [u8; 2],
}
const _: () = assert!(size_of::<DmaFault>() == 24);

/// How a device stands with the IOMMU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct DmaDeviceState(pub u32);

impl DmaDeviceState {
    /// It reaches nothing.
    pub const BLOCKED: Self = Self(0);
    /// It reaches what its domain maps.
    pub const ATTACHED: Self = Self(1);
    /// So it does, and firmware has reserved memory for it, so that it stays the root's.
    pub const RESERVED: Self = Self(2);
    /// It reaches nothing, and is not heard, after too many refused accesses.
    pub const SILENCED: Self = Self(3);
}

/// A device, as the IOMMU knows it.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DmaDevice {
    /// Partition that has it, where it is attached.
    pub owner: PartitionId,
    /// PCI segment group.
    pub segment: u16,
    /// Bus, device and function.
    pub rid: u16,
    /// Number of its domain; 0 for none.
    pub domain: u32,
    /// How it stands.
    pub state: DmaDeviceState,
    /// Refused accesses since it was attached.
    pub faults: u32,
}
const _: () = assert!(size_of::<DmaDevice>() == 24);

/// What the reason of a [`DmaFault`] means (VT-d, 7.1.3, tables of fault reasons), in legacy mode.
pub const fn fault_reason(reason: u8) -> &'static str {
    match reason {
        0x01 => "no root entry",
        0x02 => "the device is in no domain",
        0x03 => "damaged context entry",
        0x04 => "beyond the addresses that the IOMMU translates",
        0x05 => "not writable in its domain",
        0x06 => "not readable in its domain",
        0x07 => "a page table cannot be read",
        0x08 => "the root table cannot be read",
        0x09 => "a context table cannot be read",
        0x0a => "reserved bits in a root entry",
        0x0b => "reserved bits in a context entry",
        0x0c => "reserved bits in a page table",
        0x0d => "a translated or translation request, which it may not make",
        0x20 => "reserved bits in an interrupt",
        0x21 => "an entry beyond the interrupt table",
        0x22 => "an interrupt entry that is not in use",
        0x23 => "the interrupt table cannot be read",
        0x24 => "reserved bits in an interrupt entry",
        0x25 => "an interrupt in the old format",
        0x26 => "an interrupt entry of another device",
        _ => "unknown reason",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_reason_of_legacy_mode_has_words() {
        for reason in (1..=0xd).chain(0x20..=0x26) {
            assert_ne!(fault_reason(reason), "unknown reason", "{reason:#x}");
        }
        assert_eq!(fault_reason(0xff), "unknown reason");
    }
}
