//! The capability registers of a VT-d unit (VT-d specification, 11.4.2 and 11.4.3), as far as they matter here.

use alloc::{format, vec::Vec};

use hypercall_api::operator::{IommuInfo, MAX_IOMMUS, SystemInfo};

use crate::shell::output::{Table, Value};

/// The units of the machine.
pub(super) fn units(system: &SystemInfo) -> &[IommuInfo] {
    let count = usize::try_from(system.iommu_count).unwrap_or(MAX_IOMMUS);
    &system.iommu[..count.min(MAX_IOMMUS)]
}

fn bit(register: u64, index: u32) -> bool {
    register >> index & 1 != 0
}

/// CAP.SAGAW bit 2: page tables of 4 levels, 48-bit addresses.
pub(super) fn four_levels(unit: &IommuInfo) -> bool {
    bit(unit.capability, 10)
}

/// CAP.SLLPS: large pages in second-stage tables, both sizes.
pub(super) fn large_pages(unit: &IommuInfo) -> bool {
    bit(unit.capability, 34) && bit(unit.capability, 35)
}

/// CAP.PI: posted interrupts.
pub(super) fn posted_interrupts(unit: &IommuInfo) -> bool {
    bit(unit.capability, 59)
}

/// CAP.CM: caching mode, by which emulated units show themselves.
fn caching_mode(unit: &IommuInfo) -> bool {
    bit(unit.capability, 7)
}

/// ECAP.C: page walks snoop the caches.
pub(super) fn coherent(unit: &IommuInfo) -> bool {
    bit(unit.extended_capability, 0)
}

/// ECAP.QI: queued invalidation.
pub(super) fn queued_invalidation(unit: &IommuInfo) -> bool {
    bit(unit.extended_capability, 1)
}

/// ECAP.IR: interrupt remapping.
fn interrupt_remapping(unit: &IommuInfo) -> bool {
    bit(unit.extended_capability, 3)
}

/// ECAP.EIM: 32-bit APIC ids.
fn extended_interrupt_mode(unit: &IommuInfo) -> bool {
    bit(unit.extended_capability, 4)
}

/// ECAP.PT: pass-through translation.
pub(super) fn pass_through(unit: &IommuInfo) -> bool {
    bit(unit.extended_capability, 6)
}

/// ECAP.SC: page tables can have accesses snoop the caches.
pub(super) fn snoop_control(unit: &IommuInfo) -> bool {
    bit(unit.extended_capability, 7)
}

/// One row a unit.
pub(super) fn table(system: &SystemInfo) -> Table {
    let mut table = Table::new(
        "iommus",
        &[
            ("register_base", "IOMMU"),
            ("segment", ""),
            ("covers_rest", ""),
            ("version", "version"),
            ("address_bits", "bits"),
            ("large_pages", "pages"),
            ("queued_invalidation", "QI"),
            ("interrupt_remapping", "IR"),
            ("extended_interrupt_mode", "EIM"),
            ("pass_through", "PT"),
            ("coherent", "coherent"),
            ("posted_interrupts", "PI"),
            ("caching_mode", "CM"),
            ("capability", ""),
            ("extended_capability", ""),
        ],
    );
    for unit in units(system) {
        table.row([
            Value::Hex(unit.register_base),
            Value::Number(unit.segment.into()),
            Value::Flag(unit.include_all != 0),
            Value::Text(format!("{}.{}", unit.version >> 4 & 0xf, unit.version & 0xf)),
            address_bits(unit),
            page_sizes(unit),
            Value::Flag(queued_invalidation(unit)),
            Value::Flag(interrupt_remapping(unit)),
            Value::Flag(extended_interrupt_mode(unit)),
            Value::Flag(pass_through(unit)),
            Value::Flag(coherent(unit)),
            Value::Flag(posted_interrupts(unit)),
            Value::Flag(caching_mode(unit)),
            Value::Hex(unit.capability),
            Value::Hex(unit.extended_capability),
        ]);
    }
    table
}

/// CAP.SAGAW: bits 1, 2 and 3 of the field stand for 3, 4 and 5 levels.
fn address_bits(unit: &IommuInfo) -> Value {
    let widths = [(9, 39), (10, 48), (11, 57)];
    let found: Vec<Value> = widths
        .into_iter()
        .filter(|(index, _)| bit(unit.capability, *index))
        .map(|(_, width)| Value::Number(width))
        .collect();
    Value::List(found)
}

fn page_sizes(unit: &IommuInfo) -> Value {
    let sizes = [(34, "2M"), (35, "1G")];
    let large = sizes
        .into_iter()
        .filter(|(index, _)| bit(unit.capability, *index))
        .map(|(_, name)| name);
    Value::texts(core::iter::once("4K").chain(large))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    fn qemu() -> IommuInfo {
        IommuInfo {
            capability: 0xd2_008c_222f_0606,
            extended_capability: 0xf00f5a,
            version: 0x10,
            ..IommuInfo::new_zeroed()
        }
    }

    #[test]
    fn the_registers_of_qemus_unit_are_read_right() {
        let unit = qemu();
        assert!(four_levels(&unit) && large_pages(&unit) && pass_through(&unit));
        assert!(queued_invalidation(&unit) && interrupt_remapping(&unit) && extended_interrupt_mode(&unit));
        assert!(!coherent(&unit) && !posted_interrupts(&unit) && !caching_mode(&unit));
        assert_eq!(
            address_bits(&unit),
            Value::List(alloc::vec![Value::Number(39), Value::Number(48)])
        );
    }

    #[test]
    fn a_count_beyond_the_array_is_cut() {
        let mut system = SystemInfo::new_zeroed();
        system.iommu_count = u32::MAX;
        assert_eq!(units(&system).len(), MAX_IOMMUS);
    }
}
