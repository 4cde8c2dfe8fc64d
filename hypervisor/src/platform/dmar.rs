//! DMAR: the DMA and interrupt remapping hardware of VT-d (VT-d specification, chapter 8).

use arrayvec::ArrayVec;

use super::table::{AcpiError, Part, Prefix};
use crate::memory::address::{Spa, SpaRange};

/// Most remapping units.
pub const MAX_UNITS: usize = 16;
/// Most reserved memory regions.
pub const MAX_RESERVED_REGIONS: usize = 16;
/// Most lists of root ports with address translation services.
pub const MAX_ATS_REPORTS: usize = 16;
/// Most device scopes, of all units, regions and lists.
pub const MAX_SCOPES: usize = 128;
/// Most bridges between a root bus and a device, and the device.
pub const MAX_PATH: usize = 6;

/// The remapping hardware.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dmar {
    /// Bits of the addresses that DMA can reach.
    pub host_address_width: u8,
    /// Whether interrupts can be remapped.
    pub interrupt_remapping: bool,
    /// Whether the firmware asks not to use x2APIC mode.
    pub x2apic_opt_out: bool,
    /// Whether the firmware asks to keep DMA contained from the start, since it has contained it itself.
    pub dma_protection_opt_in: bool,
    /// Remapping units (DRHD).
    pub units: ArrayVec<RemappingUnit, MAX_UNITS>,
    /// Memory that devices may use without being told (RMRR).
    pub reserved_regions: ArrayVec<ReservedRegion, MAX_RESERVED_REGIONS>,
    /// Root ports below which devices may translate by themselves (ATSR).
    pub ats_reports: ArrayVec<AtsReport, MAX_ATS_REPORTS>,
    scopes: ArrayVec<DeviceScope, MAX_SCOPES>,
}

/// A remapping unit (DRHD; VT-d, 8.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RemappingUnit {
    /// PCI segment group.
    pub segment: u16,
    /// Whether it has all devices of the segment that no other unit has.
    pub include_all: bool,
    /// Its registers.
    pub registers: Spa,
    /// Pages that its registers take.
    pub register_pages: u64,
    /// Its devices; see [`Dmar::scopes`].
    pub scopes: Scopes,
}

impl RemappingUnit {
    /// The memory that its registers take.
    pub fn register_range(&self) -> SpaRange {
        SpaRange::sized(self.registers, self.register_pages * 4096).unwrap_or(SpaRange::EMPTY)
    }
}

/// Memory that a device uses by the firmware's arrangement (RMRR; VT-d, 8.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReservedRegion {
    /// PCI segment group.
    pub segment: u16,
    /// The memory.
    pub range: SpaRange,
    /// The devices that use it; see [`Dmar::scopes`].
    pub scopes: Scopes,
}

/// Root ports with address translation services (ATSR; VT-d, 8.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AtsReport {
    /// PCI segment group.
    pub segment: u16,
    /// Whether all root ports of the segment have them.
    pub all_ports: bool,
    /// The root ports; see [`Dmar::scopes`].
    pub scopes: Scopes,
}

/// Some of a [`Dmar`]'s device scopes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scopes {
    first: u16,
    count: u16,
}

/// A device, or what is below a bridge (VT-d, 8.3.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceScope {
    /// What it is.
    pub kind: ScopeKind,
    /// I/O APIC id, HPET number or ACPI device number.
    pub enumeration_id: u8,
    /// Bus on which the path starts.
    pub start_bus: u8,
    /// Device and function of each bridge on the way, and of the device; at least one.
    pub path: ArrayVec<[u8; 2], MAX_PATH>,
}

/// What a [`DeviceScope`] names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScopeKind(pub u8);

impl ScopeKind {
    /// A PCI function.
    pub const PCI_ENDPOINT: Self = Self(1);
    /// Everything below a PCI bridge.
    pub const PCI_BRIDGE: Self = Self(2);
    /// An I/O APIC.
    pub const IO_APIC: Self = Self(3);
    /// An HPET that sends messages.
    pub const HPET: Self = Self(4);
    /// A device of the ACPI name space.
    pub const ACPI_DEVICE: Self = Self(5);
}

/// Structure types (VT-d, 8.2).
mod kind {
    pub(super) const DRHD: u16 = 0;
    pub(super) const RMRR: u16 = 1;
    pub(super) const ATSR: u16 = 2;
}

impl Dmar {
    pub(super) fn read(table: Part<'_>) -> Result<Self, AcpiError> {
        let [width, flags]: [u8; 2] = table.field(36)?;
        let mut dmar = Self {
            host_address_width: width.saturating_add(1),
            interrupt_remapping: flags & 1 != 0,
            x2apic_opt_out: flags & 2 != 0,
            dma_protection_opt_in: flags & 4 != 0,
            units: ArrayVec::new(),
            reserved_regions: ArrayVec::new(),
            ats_reports: ArrayVec::new(),
            scopes: ArrayVec::new(),
        };
        if dmar.host_address_width > 64 {
            return Err(table.damaged(36, "the host address width is more than 64 bits"));
        }
        for structure in table.structures(48, Prefix::Words) {
            match structure? {
                (kind::DRHD, part) => dmar.take_unit(part)?,
                (kind::RMRR, part) => dmar.take_reserved_region(part)?,
                (kind::ATSR, part) => dmar.take_ats_report(part)?,
                _ => {}
            }
        }
        Ok(dmar)
    }

    /// The devices of a unit or a region.
    pub fn scopes(&self, scopes: Scopes) -> &[DeviceScope] {
        let first = usize::from(scopes.first);
        self.scopes
            .get(first..first + usize::from(scopes.count))
            .unwrap_or_default()
    }

    fn take_unit(&mut self, part: Part<'_>) -> Result<(), AcpiError> {
        let registers = Spa(part.field(8)?);
        if registers.0 == 0 || !registers.is_aligned(4096) {
            return Err(part.damaged(8, "a remapping unit has an impossible register address"));
        }
        if self.units.iter().any(|unit| unit.registers == registers) {
            return Err(part.damaged(8, "two remapping units have one register address"));
        }
        let (segment, include_all) = (part.field(6)?, part.field::<u8>(4)? & 1 != 0);
        let takes_rest = |unit: &RemappingUnit| unit.include_all && unit.segment == segment;
        if include_all && self.units.iter().any(takes_rest) {
            return Err(part.damaged(4, "two remapping units have all other devices of one segment"));
        }
        let unit = RemappingUnit {
            segment,
            include_all,
            registers,
            register_pages: 1 << (part.field::<u8>(5)? & 0xf),
            scopes: self.take_scopes(part, 16)?,
        };
        self.units
            .try_push(unit)
            .map_err(|_| part.damaged(0, "there are too many remapping units"))
    }

    fn take_reserved_region(&mut self, part: Part<'_>) -> Result<(), AcpiError> {
        let (base, limit): (u64, u64) = (part.field(8)?, part.field(16)?);
        let range = limit
            .checked_add(1)
            .and_then(|end| SpaRange::new(Spa(base), Spa(end)));
        let range = range.filter(|range| !range.is_empty());
        let region = ReservedRegion {
            segment: part.field(6)?,
            range: range.ok_or(part.damaged(8, "a reserved region ends before it starts"))?,
            scopes: self.take_scopes(part, 24)?,
        };
        let full = |_| part.damaged(0, "there are too many reserved regions");
        self.reserved_regions.try_push(region).map_err(full)
    }

    fn take_ats_report(&mut self, part: Part<'_>) -> Result<(), AcpiError> {
        let report = AtsReport {
            segment: part.field(6)?,
            all_ports: part.field::<u8>(4)? & 1 != 0,
            scopes: self.take_scopes(part, 8)?,
        };
        let full = |_| part.damaged(0, "there are too many lists of root ports");
        self.ats_reports.try_push(report).map_err(full)
    }

    /// Copies the device scopes of `part` from `offset` on.
    fn take_scopes(&mut self, part: Part<'_>, offset: usize) -> Result<Scopes, AcpiError> {
        let first = self.scopes.len();
        for scope in part.structures(offset, Prefix::Bytes) {
            let (kind, scope) = scope?;
            let path = scope.bytes.get(6..).unwrap_or_default();
            let (steps, odd) = path.as_chunks::<2>();
            if steps.is_empty() || !odd.is_empty() {
                return Err(scope.damaged(1, "a device scope has no whole path"));
            }
            let path = steps
                .try_into()
                .map_err(|_| scope.damaged(1, "a device scope's path is too long"))?;
            let [enumeration_id, start_bus] = scope.field(4)?;
            let scope_kind = ScopeKind(kind as u8);
            let device = DeviceScope {
                kind: scope_kind,
                enumeration_id,
                start_bus,
                path,
            };
            self.scopes
                .try_push(device)
                .map_err(|_| scope.damaged(0, "there are too many device scopes"))?;
        }
        Ok(Scopes {
            first: first as u16,
            count: (self.scopes.len() - first) as u16,
        })
    }
}

/// Entry for fuzzers: whatever the bytes of the table are, it is refused or makes sense.
#[cfg(any(test, feature = "fuzz"))]
pub fn fuzz(bytes: &[u8]) {
    let Ok(dmar) = Dmar::read(Part::unchecked(*b"DMAR", bytes)) else {
        return;
    };
    assert!(dmar.host_address_width <= 64);
    for unit in &dmar.units {
        assert!(unit.registers.0 != 0 && unit.registers.is_aligned(4096));
        let same = |other: &&RemappingUnit| other.registers == unit.registers;
        assert_eq!(dmar.units.iter().filter(same).count(), 1);
    }
    let regions = dmar.reserved_regions.iter().map(|region| region.scopes);
    let units = dmar.units.iter().map(|unit| unit.scopes);
    for scopes in units.chain(regions) {
        assert!(dmar.scopes(scopes).iter().all(|scope| !scope.path.is_empty()));
    }
    assert!(
        dmar.reserved_regions
            .iter()
            .all(|region| !region.range.is_empty())
    );
}

#[cfg(test)]
pub(crate) mod tests;
