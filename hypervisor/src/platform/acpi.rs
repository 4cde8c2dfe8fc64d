//! What the ACPI tables say about the machine (ACPI 6.5, chapter 5), checked and copied.
//!
//! Tables are data of a stranger: a damaged one is refused with a reason. The `acpi` crate trusts lengths in them (a root
//! table shorter than its header underflows, a short FADT is read past its end), hence this reader.

use arrayvec::ArrayVec;

use super::dmar::Dmar;
use super::fadt::{self, Power};
use super::madt::{self, Interrupts};
use super::table::{AcpiError, HEADER, Part, Signature, sum};
use crate::boot::information::Rsdp;
use crate::memory::address::Spa;
use crate::memory::physical::{PhysicalMemory, field};

/// Most PCI Express configuration regions.
pub const MAX_ECAM_REGIONS: usize = 8;

/// Everything that is taken from the tables.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Platform {
    /// Processors and interrupt controllers.
    pub interrupts: Interrupts,
    /// Power management registers; none of them without a FADT.
    pub power: Power,
    /// Memory-mapped PCI configuration space.
    pub ecam: ArrayVec<Ecam, MAX_ECAM_REGIONS>,
    /// VT-d remapping hardware.
    pub dmar: Option<Dmar>,
    /// Why the table of the remapping hardware was refused, where it was: the machine does without.
    pub dmar_error: Option<AcpiError>,
}

/// Configuration space of some PCI buses: 4 KiB a function, from `base` for bus 0 (PCI Firmware 3.3, 4.1.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ecam {
    /// Where bus 0 is, or would be.
    pub base: Spa,
    /// PCI segment group.
    pub segment: u16,
    /// First bus.
    pub first_bus: u8,
    /// Last bus.
    pub last_bus: u8,
}

impl Platform {
    /// Reads the tables that begin at `rsdp`, which is searched for where the boot loader did not give it.
    pub fn read(memory: &impl PhysicalMemory, rsdp: Rsdp) -> Result<Self, AcpiError> {
        let rsdp = match rsdp {
            Rsdp::At(address) => rsdp_at(memory, address),
            Rsdp::Copy(bytes) => root_of(&bytes),
            Rsdp::Unknown => search(memory),
        };
        let tables = Tables::list(memory, rsdp.ok_or(AcpiError::NoRsdp)?)?;
        let madt = tables
            .get(memory, Signature(*b"APIC"))?
            .ok_or(AcpiError::Missing(Signature(*b"APIC")))?;
        let fadt = tables.get(memory, Signature(*b"FACP"))?;
        let mcfg = tables.get(memory, Signature(*b"MCFG"))?;
        let dmar = tables
            .get(memory, Signature(*b"DMAR"))
            .and_then(|dmar| dmar.map(Dmar::read).transpose());
        Ok(Self {
            interrupts: madt::read(madt)?,
            power: fadt.map_or(Ok(Power::default()), |fadt| fadt::read(memory, fadt))?,
            ecam: mcfg.map_or(Ok(ArrayVec::new()), read_mcfg)?,
            dmar_error: dmar.as_ref().err().copied(),
            dmar: dmar.ok().flatten(),
        })
    }
}

/// The root table and the size of the pointers in it.
#[derive(Clone, Copy)]
struct Root {
    address: Spa,
    pointer_size: usize,
}

/// The root table that a root system description pointer leads to, if it is one (ACPI 6.5, 5.2.5.3).
fn root_of(rsdp: &[u8]) -> Option<Root> {
    let first = rsdp.get(..20)?;
    if !first.starts_with(b"RSD PTR ") || sum(first) != 0 {
        return None;
    }
    let revision: u8 = field(rsdp, 15)?;
    if revision >= 2 {
        let length: u32 = field(rsdp, 20)?;
        let xsdt: u64 = field(rsdp, 24)?;
        if length != 36 || sum(rsdp.get(..36)?) != 0 {
            return None;
        }
        if xsdt != 0 {
            return Some(Root {
                address: Spa(xsdt),
                pointer_size: 8,
            });
        }
    }
    let rsdt: u32 = field(rsdp, 16)?;
    Some(Root {
        address: Spa(rsdt.into()),
        pointer_size: 4,
    })
}

fn rsdp_at(memory: &impl PhysicalMemory, address: Spa) -> Option<Root> {
    // ACPI 1.0's may be the last 20 bytes of what can be read.
    let bytes = memory.bytes(address, 36).or_else(|| memory.bytes(address, 20))?;
    root_of(bytes)
}

/// Looks where a BIOS puts the pointer: the first KiB of the EBDA, then 0xe0000 to 0xfffff (ACPI 6.5, 5.2.5.1).
fn search(memory: &impl PhysicalMemory) -> Option<Root> {
    let ebda = memory
        .read::<u16>(Spa(0x40e))
        .map_or(0, |segment| u64::from(segment) << 4);
    let places = (ebda..ebda + 0x400)
        .step_by(16)
        .chain((0xe_0000..0x10_0000).step_by(16));
    places
        .filter(|place| *place != 0)
        .find_map(|place| rsdp_at(memory, Spa(place)))
}

/// The root table, which lists the others.
struct Tables<'a> {
    root: Part<'a>,
    pointer_size: usize,
}

impl<'a> Tables<'a> {
    fn list(memory: &'a impl PhysicalMemory, root: Root) -> Result<Self, AcpiError> {
        let table = Part::table(memory, root.address)?;
        let expected: &[u8] = if root.pointer_size == 8 { b"XSDT" } else { b"RSDT" };
        if !table.bytes.starts_with(expected) {
            return Err(table.damaged(0, "the root pointer leads to it instead of to a root table"));
        }
        if !(table.bytes.len() - HEADER).is_multiple_of(root.pointer_size) {
            return Err(table.damaged(4, "its length is no number of pointers"));
        }
        Ok(Self {
            root: table,
            pointer_size: root.pointer_size,
        })
    }

    /// The first table with this signature. Firmware lists null pointers at times; they are passed over.
    fn get(
        &self,
        memory: &'a impl PhysicalMemory,
        signature: Signature,
    ) -> Result<Option<Part<'a>>, AcpiError> {
        for offset in (HEADER..self.root.bytes.len()).step_by(self.pointer_size) {
            let address = Spa(match self.pointer_size {
                8 => self.root.field::<u64>(offset)?,
                _ => self.root.field::<u32>(offset)?.into(),
            });
            if address.0 == 0 {
                continue;
            }
            let found: [u8; 4] = memory.read(address).ok_or(AcpiError::Unreadable(address))?;
            if Signature(found) == signature {
                return Part::table(memory, address).map(Some);
            }
        }
        Ok(None)
    }
}

fn read_mcfg(mcfg: Part<'_>) -> Result<ArrayVec<Ecam, MAX_ECAM_REGIONS>, AcpiError> {
    const FIRST: usize = HEADER + 8;
    let mut regions = ArrayVec::new();
    for offset in (FIRST..mcfg.bytes.len()).step_by(16) {
        let [first_bus, last_bus]: [u8; 2] = mcfg.field(offset + 10)?;
        let (base, segment) = (Spa(mcfg.field(offset)?), mcfg.field(offset + 8)?);
        if first_bus > last_bus || !base.is_aligned(1 << 20) {
            return Err(mcfg.damaged(offset, "a configuration region is impossible"));
        }
        let region = Ecam {
            base,
            segment,
            first_bus,
            last_bus,
        };
        regions
            .try_push(region)
            .map_err(|_| mcfg.damaged(offset, "it lists too many regions"))?;
    }
    Ok(regions)
}

#[cfg(test)]
pub(super) mod tests;
