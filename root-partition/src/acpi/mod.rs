//! What the firmware's tables say: IOAPICs, the configuration space of PCI, how to power off. Reading starts from the RSDP
//! that the start information names; the crate `acpi` finds the tables and checks their sums.
//!
//! | module | holds |
//! |---|---|
//! | [`madt`] | the interrupt controllers, from the table's bytes |
//! | [`sleep`] | the `\_S5_` package, from the DSDT's bytes |
#![allow(unsafe_code)]

pub mod madt;
pub mod sleep;

use crate::memory::address_space;
use acpi::madt::Madt;
use acpi::mcfg::Mcfg;
use acpi::{AcpiError, AcpiHandler, AcpiTable, AcpiTables, AmlTable, PhysicalMapping};
use alloc::vec::Vec;
use core::ptr::NonNull;
use madt::InterruptControllers;
use sleep::SleepType;

/// Longest AML table that is searched.
const MAX_AML: usize = 4 << 20;
/// Most SSDTs that are searched.
const MAX_SSDTS: usize = 64;

/// The parts of the tables that the root uses. What is missing or damaged is empty.
#[derive(Clone, Debug, Default)]
pub struct Firmware {
    /// IOAPICs and interrupt source overrides.
    pub interrupts: InterruptControllers,
    /// Memory-mapped configuration spaces of PCI.
    pub ecam: Vec<EcamRange>,
    /// How to enter S5.
    pub soft_off: Option<SleepType>,
}

/// Memory-mapped configuration space of some buses of a segment group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EcamRange {
    /// Where bus 0 would be.
    pub base: u64,
    /// Segment group.
    pub segment: u16,
    /// First bus.
    pub first_bus: u8,
    /// Last bus.
    pub last_bus: u8,
}

impl Firmware {
    /// Reads the tables from the RSDP at `rsdp` on; 0 means that there is none.
    pub fn read(rsdp: u64) -> Self {
        if rsdp == 0 {
            log::warn!(
                "the firmware has no ACPI tables: the machine cannot be powered off, and serial input is polled"
            );
            return Self::default();
        }
        // SAFETY: the hypervisor found the RSDP there; everything it leads to is checked by its sum before it is used.
        match unsafe { AcpiTables::from_rsdp(Identity, rsdp as usize) } {
            Ok(tables) => Self::from_tables(&tables),
            Err(error) => {
                log::error!("the ACPI tables cannot be used: {error:?}");
                Self::default()
            }
        }
    }

    fn from_tables(tables: &AcpiTables<Identity>) -> Self {
        Self {
            interrupts: find::<Madt>(tables)
                // SAFETY: the mapping is as long as its header says, and its sum was right.
                .map(|madt| madt::parse(unsafe { table_bytes(&madt) }))
                .unwrap_or_default(),
            ecam: find::<Mcfg>(tables)
                .map(|mcfg| ecam_ranges(&mcfg))
                .unwrap_or_default(),
            soft_off: soft_off(tables),
        }
    }
}

/// A table, or a line in the log. Old machines lack some.
fn find<T: AcpiTable>(tables: &AcpiTables<Identity>) -> Option<PhysicalMapping<Identity, T>> {
    match tables.find_table::<T>() {
        Ok(table) => Some(table),
        Err(AcpiError::TableMissing(_)) => {
            log::info!("ACPI: there is no {} table", T::SIGNATURE.as_str());
            None
        }
        Err(error) => {
            log::warn!(
                "ACPI: the {} table cannot be used: {error:?}",
                T::SIGNATURE.as_str()
            );
            None
        }
    }
}

fn ecam_ranges(mcfg: &Mcfg) -> Vec<EcamRange> {
    mcfg.entries()
        .iter()
        .map(|entry| EcamRange {
            base: entry.base_address,
            segment: entry.pci_segment_group,
            first_bus: entry.bus_number_start,
            last_bus: entry.bus_number_end,
        })
        .filter(|range| range.first_bus <= range.last_bus && range.base.is_multiple_of(1 << 20))
        .collect()
}

/// The `\_S5_` package of the DSDT, or of the first SSDT that has one.
fn soft_off(tables: &AcpiTables<Identity>) -> Option<SleepType> {
    let dsdt = tables.dsdt().ok();
    dsdt.into_iter()
        .chain(tables.ssdts().take(MAX_SSDTS))
        .find_map(|table| {
            // SAFETY: the crate has checked the table's sum over this length.
            sleep::find_s5(unsafe { aml_bytes(&table) })
        })
}

/// The whole of a table.
///
/// # Safety
/// The table must be mapped for the length that its header says.
unsafe fn table_bytes<T: AcpiTable>(table: &PhysicalMapping<Identity, T>) -> &[u8] {
    let length = table.region_length();
    // SAFETY: the caller vouches for the length; tables are not written.
    unsafe { core::slice::from_raw_parts(table.virtual_start().as_ptr().cast(), length) }
}

/// The byte code of a table.
///
/// # Safety
/// As for [`table_bytes`].
unsafe fn aml_bytes(table: &AmlTable) -> &'static [u8] {
    let length = (table.length as usize).min(MAX_AML);
    // SAFETY: the caller vouches for the length; tables are not written, and stay.
    unsafe { core::slice::from_raw_parts(table.address as *const u8, length) }
}

/// Physical addresses are virtual ones.
#[derive(Clone, Copy, Debug)]
struct Identity;

impl AcpiHandler for Identity {
    unsafe fn map_physical_region<T>(&self, address: usize, size: usize) -> PhysicalMapping<Self, T> {
        if let Err(error) = address_space::map_device(address as u64..(address + size) as u64) {
            log::error!("an ACPI table at {address:#x} cannot be mapped: {error}");
        }
        let start = NonNull::new(address as *mut T).unwrap_or(NonNull::dangling());
        // SAFETY: every address below 4 GiB is mapped, and this range has just been otherwise.
        unsafe { PhysicalMapping::new(address, start, size, size, *self) }
    }

    fn unmap_physical_region<T>(_: &PhysicalMapping<Self, T>) {}
}
