//! What was found at boot, in the form that the root is told.
#![allow(unsafe_code)]

use crate::cpuid;
use crate::platform::acpi::Platform;
use crate::platform::dmar::RemappingUnit;
use crate::platform::{clock, local_apic};
use crate::processor::local::Processor;
use hypercall_api::operator::{HardwareSupport, IommuInfo, MAX_IOMMUS, SystemInfo, VIRTUALIZATION_SVM};
use zerocopy::FromZeros;

/// What was found.
pub struct Found<'a> {
    /// By ACPI.
    pub platform: &'a Platform,
    /// In the processor.
    pub hardware: HardwareSupport,
    /// RAM, in bytes.
    pub ram: u64,
    /// What the hypervisor keeps of it, in bytes.
    pub kept: u64,
    /// TSC at the hypervisor's first instruction in Rust.
    pub entered: u64,
}

/// Extended capability register: queued invalidation, interrupt remapping, extended interrupt mode.
const ECAP_QI: u64 = 1 << 1;
const ECAP_IR: u64 = 1 << 3;
const ECAP_EIM: u64 = 1 << 4;

/// Composes the description, reads the IOMMUs' capabilities and logs what they are.
pub fn information(found: &Found<'_>) -> SystemInfo {
    let mut information = SystemInfo::new_zeroed();
    let [major, minor, patch] = crate::VERSION;
    information.version = [major, minor, patch, 0];
    information.cpu_vendor = cpuid::vendor();
    information.cpu_brand = cpuid::brand();
    information.virtualization = VIRTUALIZATION_SVM;
    information.lp_count = Processor::count();
    let processors = &found.platform.interrupts.processors;
    let present = processors.iter().filter(|processor| processor.enabled).count();
    let spare = !Processor::current().is_listed();
    information.lp_present = present as u32 - spare as u32;
    information.memory_total = found.ram;
    information.memory_hypervisor = found.kept;
    information.memory_root = found.ram - found.kept;
    information.tsc_frequency = clock::tsc_frequency();
    information.apic_frequency = clock::apic_frequency();
    information.tsc_at_entry = found.entered;
    information.physical_address_bits = cpuid::physical_address_bits();
    let mut hardware = found.hardware | processor_support();
    if !found.platform.ecam.is_empty() {
        hardware |= HardwareSupport::ECAM;
    }
    hardware |= describe_iommus(found.platform, &mut information);
    information.hardware = hardware.bits();
    information
}

fn processor_support() -> HardwareSupport {
    [
        (cpuid::has_gib_pages(), HardwareSupport::GIB_PAGES),
        (local_apic::has_x2apic(), HardwareSupport::X2APIC),
        (cpuid::has_invariant_tsc(), HardwareSupport::INVARIANT_TSC),
        (local_apic::has_tsc_deadline(), HardwareSupport::TSC_DEADLINE),
        (cpuid::has_xsave(), HardwareSupport::XSAVE),
    ]
    .into_iter()
    .filter(|(there, _)| *there)
    .fold(HardwareSupport::empty(), |all, (_, flag)| all | flag)
}

fn describe_iommus(platform: &Platform, information: &mut SystemInfo) -> HardwareSupport {
    let Some(dmar) = &platform.dmar else {
        return HardwareSupport::empty();
    };
    information.dmar_flags = u32::from(dmar.interrupt_remapping) | u32::from(dmar.x2apic_opt_out) << 1;
    information.rmrr_count = dmar.reserved_regions.len() as u32;
    information.iommu_count = dmar.units.len().min(MAX_IOMMUS) as u32;
    let mut common = u64::MAX;
    for (unit, place) in dmar.units.iter().zip(&mut information.iommu) {
        *place = read_unit(unit);
        common &= place.extended_capability;
        log::info!(
            "IOMMU at {}: segment {}, CAP {:#x}, ECAP {:#x}{}",
            unit.registers,
            unit.segment,
            place.capability,
            place.extended_capability,
            if unit.include_all { ", all devices" } else { "" }
        );
    }
    if information.iommu_count == 0 {
        return HardwareSupport::empty();
    }
    let remaps = dmar.interrupt_remapping && common & ECAP_IR != 0;
    [
        (true, HardwareSupport::IOMMU),
        (remaps, HardwareSupport::INTERRUPT_REMAPPING),
        (
            remaps && common & ECAP_EIM != 0,
            HardwareSupport::EXTENDED_INTERRUPT_MODE,
        ),
        (common & ECAP_QI != 0, HardwareSupport::QUEUED_INVALIDATION),
    ]
    .into_iter()
    .filter(|(there, _)| *there)
    .fold(HardwareSupport::empty(), |all, (_, flag)| all | flag)
}

fn read_unit(unit: &RemappingUnit) -> IommuInfo {
    let base = unit.registers.0;
    // SAFETY: the DMAR table says that a unit's registers are there; they are mapped as device memory, and these three
    // only tell.
    let (version, capability, extended_capability) = unsafe {
        (
            (base as *const u32).read_volatile(),
            ((base + 0x08) as *const u64).read_volatile(),
            ((base + 0x10) as *const u64).read_volatile(),
        )
    };
    IommuInfo {
        register_base: base,
        capability,
        extended_capability,
        segment: unit.segment,
        include_all: u16::from(unit.include_all),
        version,
    }
}
