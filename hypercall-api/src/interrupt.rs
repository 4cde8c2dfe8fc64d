//! Interrupts. Those of devices (TLFS names; layouts as Linux's `mshv` root uses them): the owner of a device asks for an
//! interrupt and writes into the device exactly the entry that it is given. Those that a parent raises in its child.

use crate::id::PartitionId;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Identifies a physical device: type in bits 63:62, the rest by type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct DeviceId(pub u64);

/// What a [`DeviceId`] names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Device {
    /// A PCI function.
    Pci {
        /// PCI segment group.
        segment: u16,
        /// Bus in 15:8, device in 7:3, function in 2:0.
        rid: u16,
    },
    /// An IOAPIC, by the id that the MADT gives it.
    IoApic(u8),
}

impl DeviceId {
    /// The id of a PCI function.
    pub const fn pci(segment: u16, rid: u16) -> Self {
        Self(1 << 62 | (segment as u64) << 16 | rid as u64)
    }

    /// The id of an IOAPIC.
    pub const fn io_apic(id: u8) -> Self {
        Self(2 << 62 | id as u64)
    }

    /// What it names; `None` for logical and ACPI devices, which are not supported.
    pub const fn device(self) -> Option<Device> {
        match self.0 >> 62 {
            1 => Some(Device::Pci {
                segment: (self.0 >> 16) as u16,
                rid: self.0 as u16,
            }),
            2 => Some(Device::IoApic(self.0 as u8)),
            _ => None,
        }
    }
}

/// How a device raises an interrupt: [`MSI`](Self::MSI) or [`IO_APIC`](Self::IO_APIC).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct InterruptEntry {
    /// Which of the two.
    pub source: u32,
    /// Reserved.
    pub reserved: u32,
    /// MSI: address in the low half, data in the high. IOAPIC: the redirection entry; as an input its low byte is the pin.
    pub data: u64,
}

impl InterruptEntry {
    /// `source` of a message-signalled interrupt (MSI or MSI-X).
    pub const MSI: u32 = 1;
    /// `source` of an IOAPIC pin.
    pub const IO_APIC: u32 = 2;

    /// An MSI of `address` and `data`.
    pub const fn msi(address: u32, data: u32) -> Self {
        Self {
            source: Self::MSI,
            reserved: 0,
            data: address as u64 | (data as u64) << 32,
        }
    }

    /// An IOAPIC entry.
    pub const fn io_apic(entry: u64) -> Self {
        Self {
            source: Self::IO_APIC,
            reserved: 0,
            data: entry,
        }
    }

    /// Address and data to write into the device's MSI capability or MSI-X table.
    pub const fn msi_address_data(self) -> (u32, u32) {
        (self.data as u32, (self.data >> 32) as u32)
    }
}

/// Input of `HvCallMapDeviceInterrupt`, for a target that is a mask of the first 64 VPs.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MapDeviceInterrupt {
    /// Partition that owns the device.
    pub partition: PartitionId,
    /// The device.
    pub device: DeviceId,
    /// Zero.
    pub flags: u32,
    /// Zero.
    pub base_table_index: u32,
    /// Kind of interrupt, and for an IOAPIC the pin in the low byte of `data`.
    pub entry: InterruptEntry,
    /// Zero: fixed delivery.
    pub interrupt_type: u32,
    /// 0 edge, 1 level.
    pub trigger_mode: u32,
    /// Number of vectors, 1.
    pub vector_count: u32,
    /// Reserved.
    pub reserved: u32,
    /// Vector that the target VP takes, 16 to 255.
    pub vector: u32,
    /// Zero: `vp_mask` names the target.
    pub target_flags: u32,
    /// Bit n: VP n may take it; the hypervisor chooses one.
    pub vp_mask: u64,
}
const _: () = assert!(size_of::<MapDeviceInterrupt>() == 72);

/// [`MapDeviceInterrupt::trigger_mode`] of an edge-triggered interrupt.
pub const TRIGGER_EDGE: u32 = 0;
/// [`MapDeviceInterrupt::trigger_mode`] of a level-triggered interrupt.
pub const TRIGGER_LEVEL: u32 = 1;

/// Output of `HvCallMapDeviceInterrupt`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MappedDeviceInterrupt {
    /// What the owner writes into the device.
    pub entry: InterruptEntry,
    /// Zero; room for an extended status.
    pub extended_status: [u64; 5],
}
const _: () = assert!(size_of::<MappedDeviceInterrupt>() == 56);

/// Input of `HvCallUnmapDeviceInterrupt`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct UnmapDeviceInterrupt {
    /// Partition that owns the device.
    pub partition: PartitionId,
    /// The device.
    pub device: DeviceId,
    /// The entry that mapping returned.
    pub entry: InterruptEntry,
}
const _: () = assert!(size_of::<UnmapDeviceInterrupt>() == 32);

/// Input of `HvCallRetargetDeviceInterrupt`, for a target that is a mask of the first 64 VPs. The device keeps its entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RetargetDeviceInterrupt {
    /// Partition that owns the device.
    pub partition: PartitionId,
    /// The device.
    pub device: DeviceId,
    /// The entry that mapping returned.
    pub entry: InterruptEntry,
    /// Zero.
    pub reserved: u64,
    /// Vector that the target VP takes, 16 to 255.
    pub vector: u32,
    /// Zero: `vp_mask` names the target.
    pub target_flags: u32,
    /// Bit n: VP n may take it; the hypervisor chooses one.
    pub vp_mask: u64,
}
const _: () = assert!(size_of::<RetargetDeviceInterrupt>() == 56);

/// How an interrupt arrives (`HV_INTERRUPT_TYPE`); the numbers are those of APIC delivery modes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct InterruptType(pub u32);

impl InterruptType {
    /// At the vector given.
    pub const FIXED: Self = Self(0);
    /// At the vector given, to the VP of lowest priority.
    pub const LOWEST_PRIORITY: Self = Self(1);
    /// SMI.
    pub const SMI: Self = Self(2);
    /// NMI.
    pub const NMI: Self = Self(4);
    /// INIT.
    pub const INIT: Self = Self(5);
    /// SIPI; the vector is the start page.
    pub const SIPI: Self = Self(6);
    /// As from a PIC.
    pub const EXTINT: Self = Self(7);
    /// APIC pin LINT0.
    pub const LOCAL_INT0: Self = Self(8);
    /// APIC pin LINT1.
    pub const LOCAL_INT1: Self = Self(9);
}

/// Input of `HvCallAssertVirtualInterrupt`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct AssertVirtualInterrupt {
    /// The child.
    pub partition: PartitionId,
    /// How the interrupt arrives.
    pub interrupt_type: InterruptType,
    /// [`LEVEL_TRIGGERED`](Self::LEVEL_TRIGGERED), [`LOGICAL_DESTINATION`](Self::LOGICAL_DESTINATION).
    pub flags: u32,
    /// APIC id, or logical destination.
    pub destination: u64,
    /// Vector.
    pub vector: u32,
    /// Zero.
    pub target_vtl: u8,
    /// Zero.
    pub reserved: [u8; 3],
}
const _: () = assert!(size_of::<AssertVirtualInterrupt>() == 32);

impl AssertVirtualInterrupt {
    /// [`flags`](Self::flags): level-triggered; its EOI is told to the parent (`APIC_EOI`).
    pub const LEVEL_TRIGGERED: u32 = 1 << 0;
    /// [`flags`](Self::flags): `destination` is a logical one.
    pub const LOGICAL_DESTINATION: u32 = 1 << 1;

    /// An edge-triggered interrupt at `vector` for the VP with APIC id `apic_id`.
    pub const fn edge(partition: PartitionId, apic_id: u32, vector: u8) -> Self {
        Self {
            partition,
            interrupt_type: InterruptType::FIXED,
            flags: 0,
            destination: apic_id as u64,
            vector: vector as u32,
            target_vtl: 0,
            reserved: [0; 3],
        }
    }
}

/// Input of `HvCallClearVirtualInterrupt`: an interrupt of the PIC's kind was acknowledged.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ClearVirtualInterrupt {
    /// The child.
    pub partition: PartitionId,
}
const _: () = assert!(size_of::<ClearVirtualInterrupt>() == 8);
