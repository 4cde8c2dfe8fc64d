//! From the DMAR table to units that translate, before the root's first instruction.
#![allow(unsafe_code)]

use super::capability::{Abilities, Capability, ExtendedCapability};
use super::context::ContextTree;
use super::device::{self, DeviceName};
use super::domain::{self, ROOT_DOMAIN};
use super::interrupt_table::InterruptTable;
use super::pci::{self, Config, Ports};
use super::queue::{QUEUE_FRAMES, Queue};
use super::registers::{Mmio, Registers, offset};
use super::second_stage::DmaAccess;
use super::unit::{Unit, UnitError};
use super::{IOMMU, Iommu, Segment, cache, fault, report};
use crate::memory::address::{Spa, SpaRange};
use crate::memory::frames::FrameAllocator;
use crate::memory::map::MemoryMap;
use crate::memory::tables::TableError;
use crate::partition::table::ROOT_ID;
use crate::platform::acpi::Platform;
use crate::platform::dmar::{Dmar, ScopeKind};
use crate::processor::local::{DEVICE_VECTORS, Processor};
use arrayvec::ArrayVec;
use hypercall_api::status::HvStatus;

/// Why DMA is not translated. The machine runs, but its devices can write anywhere, and none can be assigned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages are the documentation
pub enum Problem {
    #[error("there is no DMAR table: turn VT-d on in the firmware")]
    NoTable,
    #[error("the DMAR table is damaged: {0}")]
    Damaged(crate::platform::AcpiError),
    #[error("the DMAR table lists no unit")]
    NoUnit,
    #[error("the units have no depth of page tables in common (CAP.SAGAW)")]
    NoCommonDepth,
    #[error("the DMAR table gives the unit at {0} less room than its registers take")]
    NoRoomForRegisters(Spa),
    #[error("the units are of more than {} PCI segments", super::MAX_SEGMENTS)]
    TooManySegments,
    #[error("the hypervisor's reserve has no room for its tables")]
    OutOfFrames,
    #[error("its page tables: {0}")]
    Tables(#[from] TableError),
    #[error("a call failed: {0}")]
    Call(HvStatus),
    #[error("a unit does not obey: {0}")]
    Unit(#[from] UnitError),
}

/// A unit's capabilities.
fn capabilities(registers: &Mmio) -> (Capability, ExtendedCapability) {
    (
        Capability(registers.read64(offset::CAPABILITY)),
        ExtendedCapability(registers.read64(offset::EXTENDED_CAPABILITY)),
    )
}

/// What all units of the table can do.
fn abilities(dmar: &Dmar) -> Option<Abilities> {
    // SAFETY: the DMAR table says that the units are there, and they are mapped as device memory; reading tells only.
    let registers = dmar.units.iter().map(|unit| unsafe { Mmio::new(unit.registers) });
    let common = Abilities::common(registers.map(|registers| capabilities(&registers)))?;
    Some(Abilities {
        address_bits: common.address_bits.min(dmar.host_address_width.into()),
        remaps_interrupts: common.remaps_interrupts && dmar.interrupt_remapping,
        extended_interrupts: common.extended_interrupts && dmar.interrupt_remapping,
        ..common
    })
}

/// Whether processors may use x2APIC mode: interrupts that are remapped reach them there only in extended mode, and firmware
/// may ask not to.
pub fn allows_x2apic(platform: &Platform) -> bool {
    let Some(dmar) = &platform.dmar else { return true };
    let remapping =
        abilities(dmar).filter(|abilities| abilities.remaps_interrupts && abilities.levels.is_some());
    remapping.is_none_or(|abilities| abilities.extended_interrupts) && !dmar.x2apic_opt_out
}

/// What the root's devices may reach, and what they may not.
pub struct Layout<'a> {
    /// What the root has.
    pub map: &'a MemoryMap,
    /// What is the hypervisor's.
    pub kept: &'a [SpaRange],
    /// Whether processors are in x2APIC mode.
    pub x2apic: bool,
}

/// Takes the units over and starts them. On a problem DMA is as it was, and `report` tells the root why.
pub fn start(platform: &Platform, layout: &Layout<'_>, frames: &mut FrameAllocator) {
    match try_start(platform, layout, frames) {
        Ok(()) => {}
        Err(problem) => {
            log::warn!("DMA is not restricted, and no device can be assigned: {problem}");
            report::set_problem(problem);
        }
    }
}

fn try_start(platform: &Platform, layout: &Layout<'_>, frames: &mut FrameAllocator) -> Result<(), Problem> {
    let dmar = match (&platform.dmar, platform.dmar_error) {
        (Some(dmar), _) => dmar,
        (None, Some(error)) => return Err(Problem::Damaged(error)),
        (None, None) => return Err(Problem::NoTable),
    };
    let abilities = abilities(dmar).ok_or(Problem::NoUnit)?;
    if abilities.levels.is_none() {
        return Err(Problem::NoCommonDepth);
    }
    if abilities.coherent {
        cache::set_coherent();
    }
    let iommu = build(dmar, abilities, layout.x2apic, frames)?;
    let iommu = IOMMU.call_once(|| iommu);
    build_root_domain(iommu, dmar, layout, frames)?;
    // SAFETY: the root does not run yet.
    let mut config = unsafe { Ports::new() };
    let reserved = reserved_devices(dmar, &mut config);
    let contained = pci::contain(&mut config, |rid| {
        reserved.contains(&DeviceName { segment: 0, rid })
    });
    for &name in &reserved {
        device::reserve(iommu, name, frames).map_err(Problem::Call)?;
    }
    enable(iommu)?;
    log::info!(
        "DMA is translated: {} levels, {} bits, pages up to {:?}; {contained} devices were bus masters; {} have reserved memory",
        abilities.levels.unwrap_or(0),
        abilities.address_bits,
        abilities.largest,
        reserved.len(),
    );
    match iommu
        .segments
        .first()
        .and_then(|segment| segment.interrupts.as_ref())
    {
        Some(table) => log::info!(
            "interrupts are remapped: {} entries, {}-bit APIC ids",
            1u32 << table.place().1,
            if table.is_extended() { 32 } else { 8 }
        ),
        None => log::warn!("interrupts are not remapped: no device can be assigned"),
    }
    Ok(())
}

fn build(
    dmar: &Dmar,
    abilities: Abilities,
    x2apic: bool,
    frames: &mut FrameAllocator,
) -> Result<Iommu, Problem> {
    let mut iommu = Iommu {
        units: ArrayVec::new(),
        segments: ArrayVec::new(),
        abilities,
        io_apics: ArrayVec::new(),
    };
    for found in &dmar.units {
        const ORDER: u32 = QUEUE_FRAMES.trailing_zeros();
        let run = frames.allocate_run(ORDER).ok_or(Problem::OutOfFrames)?;
        // SAFETY: the run was just allocated, zeroed, and is never freed.
        let queue = unsafe { Queue::new(run) };
        // SAFETY: the DMAR table says that a unit is there; it is mapped, and from now on driven here only.
        let registers = unsafe { Mmio::new(found.registers) };
        let unit = Unit::new(found.segment, registers, queue);
        if unit.register_bytes() > found.register_range().size() {
            return Err(Problem::NoRoomForRegisters(found.registers));
        }
        iommu.units.push(unit);
        if iommu.segment(found.segment).is_none() {
            let segment = Segment {
                number: found.segment,
                contexts: ContextTree::new(frames).ok_or(Problem::OutOfFrames)?,
                interrupts: interrupt_table(abilities, x2apic, frames)?,
            };
            iommu
                .segments
                .try_push(segment)
                .map_err(|_| Problem::TooManySegments)?;
        }
        for scope in dmar.scopes(found.scopes) {
            // An I/O APIC's path is its name on the bus, not a function that can be read.
            if let (ScopeKind::IO_APIC, [[device, function]]) = (scope.kind, scope.path.as_slice()) {
                let name = DeviceName {
                    segment: found.segment,
                    rid: u16::from(scope.start_bus) << 8
                        | u16::from(device & 0x1f) << 3
                        | u16::from(function & 7),
                };
                if iommu.io_apics.try_push((scope.enumeration_id, name)).is_err() {
                    log::warn!("I/O APIC {} is one too many", scope.enumeration_id);
                }
            }
        }
    }
    Ok(iommu)
}

/// A segment's interrupt remapping table, where the units can.
fn interrupt_table(
    abilities: Abilities,
    x2apic: bool,
    frames: &mut FrameAllocator,
) -> Result<Option<InterruptTable>, Problem> {
    if !abilities.remaps_interrupts {
        return Ok(None);
    }
    let order = InterruptTable::frame_order(Processor::count() * DEVICE_VECTORS as u32);
    let run = frames.allocate_run(order).ok_or(Problem::OutOfFrames)?;
    let extended = abilities.extended_interrupts && x2apic;
    // SAFETY: the run was just allocated, zeroed, and is never freed.
    Ok(Some(unsafe { InterruptTable::new(run, order, extended) }))
}

/// The root's domain: its RAM, and what firmware has reserved for devices.
fn build_root_domain(
    iommu: &Iommu,
    dmar: &Dmar,
    layout: &Layout<'_>,
    frames: &mut FrameAllocator,
) -> Result<(), Problem> {
    let number = domain::create(iommu, ROOT_ID, 0, frames).map_err(Problem::Call)?;
    debug_assert_eq!(number, ROOT_DOMAIN);
    let limit = 1u64 << iommu.abilities.address_bits;
    for ram in layout.map.ram_ranges() {
        let ram = ram.shrink_to_frames();
        let end = ram.end().0.min(limit);
        if end < ram.end().0 {
            log::warn!("devices reach memory up to {limit:#x} only, of {ram}");
        }
        let size = end.saturating_sub(ram.start().0);
        domain::map(number, ram.start().0, ram.start(), size, DmaAccess::ALL, frames)?;
    }
    for region in &dmar.reserved_regions {
        let range = region.range.grow_to_frames().unwrap_or(SpaRange::EMPTY);
        if layout.kept.iter().any(|kept| kept.overlaps(range)) || range.end().0 > limit {
            log::error!("reserved memory {range} of devices is not given to them: it cannot be theirs");
            continue;
        }
        log::info!("reserved memory {range} of devices");
        domain::map(
            number,
            range.start().0,
            range.start(),
            range.size(),
            DmaAccess::ALL,
            frames,
        )?;
    }
    Ok(())
}

/// The devices that have reserved memory, which they may use at any time.
fn reserved_devices(dmar: &Dmar, config: &mut impl Config) -> ArrayVec<DeviceName, 32> {
    let mut found = ArrayVec::new();
    for region in &dmar.reserved_regions {
        for scope in dmar.scopes(region.scopes) {
            let rid = match (region.segment, scope.kind) {
                (0, ScopeKind::PCI_ENDPOINT) => pci::resolve(config, scope),
                _ => None,
            };
            let name = rid.map(|rid| DeviceName {
                segment: region.segment,
                rid,
            });
            match name {
                Some(name) if found.contains(&name) => {}
                Some(name) if found.try_push(name).is_ok() => {}
                _ => log::warn!("a device with reserved memory is not found, and stays blocked: {scope:?}"),
            }
        }
    }
    found
}

/// Starts every unit.
fn enable(iommu: &Iommu) -> Result<(), Problem> {
    for unit in &iommu.units {
        unit.reset()?;
        unit.start_queue()?;
        let segment = iommu.segment(unit.segment).ok_or(Problem::TooManySegments)?;
        unit.set_root_table(segment.contexts.root())?;
        if let Some(table) = &segment.interrupts {
            let (start, order) = table.place();
            unit.start_interrupts(start, order, table.is_extended())?;
        }
        unit.start_translation()?;
    }
    fault::listen(iommu);
    Ok(())
}

#[cfg(test)]
mod tests;
