//! The IOMMU (VT-d): what devices can reach, and which interrupts they can raise.
//!
//! All units share one set of tables: a tree of context entries a PCI segment, domains, and one interrupt remapping table. So
//! a device finds the same entry whichever unit it is behind, and the firmware's account of that is not relied upon; what is
//! taken away is forgotten by every unit. A device reaches nothing until its owner has asked for it: the root by attaching it
//! to its default domain, or by mapping an interrupt of it.
//!
//! | module | holds |
//! |---|---|
//! | [`start`] | from the DMAR table to units that translate: read this first |
//! | [`device`] | which device is whose, and in which domain |
//! | [`domain`] | domains by number |
//! | [`device_memory`] | what partitions map in their domains |
//! | [`second_stage`] | a domain's page tables |
//! | [`context`] | root and context tables |
//! | [`interrupt_table`] | the interrupt remapping table |
//! | [`fault`] | what devices have tried and were refused |
//! | [`unit`], [`queue`], [`registers`] | the hardware |
//! | [`capability`] | what it can do |
//! | [`cache`] | tables that it reads past the caches |
//! | [`pci`] | devices as firmware has left them |
//! | [`report`] | all of this, told to the root |
//! | this one | [`Iommu`] |

pub mod cache;
pub mod capability;
pub mod context;
pub mod device;
pub mod device_memory;
pub mod domain;
pub mod fault;
pub mod interrupt_table;
pub mod pci;
pub mod queue;
pub mod registers;
pub mod report;
pub mod second_stage;
pub mod start;
pub mod unit;

use crate::memory::frames::FrameSource;
use crate::partition::memory::status_of;
use crate::platform::dmar::MAX_UNITS;
use crate::platform::io_apic::MAX_IO_APICS;
use arrayvec::ArrayVec;
use capability::Abilities;
use context::{Context, ContextTree};
use device::DeviceName;
use hypercall_api::interrupt::Device;
use hypercall_api::status::HvStatus;
use interrupt_table::InterruptTable;
use registers::Mmio;
use second_stage::AddressSpace;
use spin::Once;
use unit::{Invalidation, Unit, UnitError};

/// Most PCI segments.
pub const MAX_SEGMENTS: usize = 4;

/// The tables of a PCI segment, which its units share.
struct Segment {
    number: u16,
    contexts: ContextTree,
    /// Where interrupts are remapped.
    interrupts: Option<InterruptTable>,
}

/// The machine's units, and the tables that they share.
pub struct Iommu {
    units: ArrayVec<Unit<Mmio>, MAX_UNITS>,
    segments: ArrayVec<Segment, MAX_SEGMENTS>,
    abilities: Abilities,
    /// Ids of the I/O APICs, and what they name themselves by.
    io_apics: ArrayVec<(u8, DeviceName), MAX_IO_APICS>,
}

/// Who raises an interrupt, where interrupts are remapped.
#[derive(Clone, Copy)]
pub struct InterruptSource {
    /// What it names itself by.
    pub name: DeviceName,
    /// The table that its interrupts go through.
    pub table: &'static InterruptTable,
}

static IOMMU: Once<Iommu> = Once::new();

/// The IOMMU, where DMA is translated.
#[inline]
pub fn get() -> Option<&'static Iommu> {
    IOMMU.get()
}

/// What a device's interrupts go through; `None` where they are not remapped.
pub fn interrupt_source(device: Device) -> Result<Option<InterruptSource>, HvStatus> {
    let Some(iommu) = get().filter(|iommu| iommu.abilities.remaps_interrupts) else {
        return Ok(None);
    };
    let name = match device {
        Device::Pci { segment, rid } => Some(DeviceName { segment, rid }),
        // One that the DMAR table does not list cannot be told from a device that forges its interrupts.
        Device::IoApic(id) => iommu
            .io_apics
            .iter()
            .find(|(known, _)| *known == id)
            .map(|(_, name)| *name),
    };
    let name = name.ok_or(HvStatus::INVALID_DEVICE_ID)?;
    let table = iommu
        .segment(name.segment)
        .and_then(|segment| segment.interrupts.as_ref())
        .ok_or(HvStatus::INVALID_DEVICE_ID)?;
    Ok(Some(InterruptSource { name, table }))
}

impl Iommu {
    /// An empty address space that every unit can walk.
    fn new_space(&self, source: &mut dyn FrameSource) -> Result<AddressSpace, HvStatus> {
        let levels = self.abilities.levels.ok_or(HvStatus::OPERATION_DENIED)?;
        AddressSpace::new(
            levels,
            self.abilities.address_bits,
            self.abilities.largest,
            source,
        )
        .map_err(status_of)
    }

    fn segment(&self, number: u16) -> Option<&Segment> {
        self.segments.iter().find(|segment| segment.number == number)
    }

    /// Changes what a device reaches. When this returns, what it reached before it does not reach any more. Callers take turns.
    fn set_context(
        &self,
        device: DeviceName,
        context: Context,
        source: &mut dyn FrameSource,
    ) -> Result<(), HvStatus> {
        let tree = &self
            .segment(device.segment)
            .ok_or(HvStatus::INVALID_DEVICE_ID)?
            .contexts;
        let number = |context: Context| match context {
            Context::Translated { domain, .. } => domain,
            Context::Blocked | Context::Silenced => 0,
        };
        let before = number(tree.get(device.rid));
        if !tree.set(device.rid, context, source) {
            return Err(HvStatus::INSUFFICIENT_MEMORY);
        }
        let units = self.units.iter().filter(|unit| unit.segment == device.segment);
        for unit in units {
            let forgotten = unit.invalidate(&[
                Invalidation::Context {
                    domain: before,
                    rid: device.rid,
                },
                Invalidation::Domain(if before != 0 { before } else { number(context) }),
            ]);
            forgotten.map_err(|error| unit_failed(error, HvStatus::OPERATION_FAILED))?;
        }
        Ok(())
    }

    /// Has every unit forget runs of pages (address, number) of a domain, or all of it where there is no run.
    fn forget(&self, domain: u16, runs: &[(u64, u64)]) -> Result<(), UnitError> {
        for unit in &self.units {
            let mut what = ArrayVec::<Invalidation, 16>::new();
            for &(address, pages) in runs {
                if what
                    .try_push(unit.invalidation_of(domain, address, pages))
                    .is_err()
                {
                    what.clear();
                    break;
                }
            }
            if what.is_empty() {
                what.push(Invalidation::Domain(domain));
            }
            unit.invalidate(&what)?;
        }
        Ok(())
    }

    /// Has the units of a segment forget an interrupt remapping entry. Interrupts that came by it before have reached their
    /// processor.
    fn forget_interrupt(&self, segment: u16, index: u16) -> Result<(), UnitError> {
        self.units
            .iter()
            .filter(|unit| unit.segment == segment)
            .try_for_each(|unit| unit.invalidate(&[Invalidation::Interrupt(index)]))
    }
}

impl InterruptSource {
    /// Has the units forget an entry of the table; see [`Iommu`].
    pub fn forget(&self, index: u16) -> Result<(), HvStatus> {
        let Some(iommu) = get() else { return Ok(()) };
        iommu
            .forget_interrupt(self.name.segment, index)
            .map_err(|error| unit_failed(error, HvStatus::OPERATION_FAILED))
    }
}

/// Tells of a unit that did not do what it was told.
pub fn unit_failed(error: UnitError, status: HvStatus) -> HvStatus {
    crate::rate_limited!(log::Level::Error, "an IOMMU fails: {error}");
    status
}
