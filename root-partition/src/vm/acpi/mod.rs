//! The ACPI tables that a child finds: hardware-reduced ACPI, as the child has no PIC, PIT, RTC or PCI.
//!
//! | module | holds |
//! |---|---|
//! | [`dsdt`] | the devices: VMBus, serial ports |
//! | [`fixed`] | power registers, processors, console, entropy |
//!
//! The tables lie in the hole below 1 MiB, which the memory map reserves and where firmware has them on a PC, too.

pub mod dsdt;
pub mod fixed;

use super::memory::{GuestMemory, LEGACY_HOLE, OutsideRam};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};
use alloc::vec::Vec;
use core::ops::Range;
use hypercall_api::address::Gpa;

/// Where the tables lie; their root pointer comes first.
pub const AREA: Range<u64> = 0xe_0000..0xf_0000;
const _: () = assert!(AREA.start >= LEGACY_HOLE.start && AREA.end <= LEGACY_HOLE.end);

/// Tables begin at multiples of this.
const ALIGN: usize = 64;

const OEM: [u8; 6] = *b"PARTIT";
const OEM_TABLE: [u8; 8] = *b"PARTITA ";
const OEM_REVISION: u32 = 1;

/// What a guest is told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    /// Processors, serial ports, power.
    Plain,
    /// And VMBus, with windows of addresses for its devices.
    VmBus,
}

/// The machine that the tables describe.
#[derive(Clone, Debug)]
pub struct Machine<'a> {
    /// What the guest is told of.
    pub profile: Profile,
    /// Number of VPs; their APIC ids are their indexes.
    pub processors: u32,
    /// The serial port that is the console.
    pub console: usize,
    /// Where the RAM ends.
    pub ram_end: u64,
    /// Random bytes for the guest's own generator; none where there are none.
    pub entropy: &'a [u8],
}

/// Why tables could not be placed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AcpiError {
    /// They are larger than [`AREA`].
    #[error("the machine's ACPI tables have {0} bytes, which is too much")]
    TooLarge(usize),
    /// The memory is not as it was said to be.
    #[error(transparent)]
    OutsideRam(#[from] OutsideRam),
}

/// Writes the tables into `memory` and returns the address of their root pointer.
pub fn place(machine: &Machine<'_>, memory: &GuestMemory) -> Result<u64, AcpiError> {
    let bytes = build(machine);
    if bytes.len() as u64 > AREA.end - AREA.start {
        return Err(AcpiError::TooLarge(bytes.len()));
    }
    memory.write(Gpa(AREA.start), &bytes)?;
    Ok(AREA.start)
}

/// The tables as they lie from [`AREA`]'s beginning on.
pub fn build(machine: &Machine<'_>) -> Vec<u8> {
    let mut area = Area::default();
    area.skip(Rsdp::len());
    let dsdt = area.add(&dsdt::table(machine));
    let mut root = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    root.add_entry(area.add(&fixed::fadt(dsdt)));
    root.add_entry(area.add(&fixed::madt(machine)));
    root.add_entry(area.add(&fixed::console(machine)));
    if let Some(table) = fixed::entropy(machine.entropy) {
        root.add_entry(area.add(&table));
    }
    let root = area.add(&root);
    let mut pointer = Vec::new();
    Rsdp::new(OEM, root).to_aml_bytes(&mut pointer);
    area.0[..pointer.len()].copy_from_slice(&pointer);
    area.0
}

/// Tables, one behind the other.
#[derive(Default)]
struct Area(Vec<u8>);

impl Area {
    fn skip(&mut self, size: usize) {
        self.0.resize((self.0.len() + size).next_multiple_of(ALIGN), 0);
    }

    /// Adds a table; its address.
    fn add(&mut self, table: &dyn Aml) -> u64 {
        let address = AREA.start + self.0.len() as u64;
        let mut sink = Bytes(&mut self.0);
        table.to_aml_bytes(&mut sink);
        self.skip(0);
        address
    }
}

struct Bytes<'a>(&'a mut Vec<u8>);

impl AmlSink for Bytes<'_> {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(processors: u32, profile: Profile) -> Machine<'static> {
        Machine {
            profile,
            processors,
            console: 0,
            ram_end: 512 << 20,
            entropy: &[7; 64],
        }
    }

    /// The table at an address, whose checksum must be right.
    fn table(bytes: &[u8], address: u64) -> &[u8] {
        let at = (address - AREA.start) as usize;
        let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        let table = &bytes[at..at + length];
        assert_eq!(sum(table), 0, "{:?}", core::str::from_utf8(&table[..4]));
        table
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    fn word(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    fn tables(bytes: &[u8]) -> Vec<&[u8]> {
        assert_eq!(&bytes[..8], b"RSD PTR ");
        assert_eq!((sum(&bytes[..20]), sum(&bytes[..36])), (0, 0));
        let root = table(bytes, word(bytes, 24));
        root[36..]
            .chunks_exact(8)
            .map(|entry| table(bytes, word(entry, 0)))
            .collect()
    }

    fn named<'a>(tables: &[&'a [u8]], name: &[u8; 4]) -> Option<&'a [u8]> {
        tables.iter().find(|table| table.starts_with(name)).copied()
    }

    #[test]
    fn a_guest_finds_each_table_from_the_root_pointer() {
        let bytes = build(&machine(2, Profile::VmBus));
        let tables = tables(&bytes);
        let names: Vec<_> = tables
            .iter()
            .map(|table| core::str::from_utf8(&table[..4]).unwrap())
            .collect();
        assert_eq!(names, ["FACP", "APIC", "SPCR", "OEM0"]);
    }

    #[test]
    fn acpi_is_hardware_reduced_with_the_chipsets_registers() {
        let bytes = build(&machine(1, Profile::Plain));
        let fadt = named(&tables(&bytes), b"FACP").unwrap();
        let flags = u32::from_le_bytes(fadt[112..116].try_into().unwrap());
        assert_eq!(flags & (1 << 20 | 1 << 10), 1 << 20 | 1 << 10);
        // Boot architecture: no VGA, no ASPM, no CMOS RTC; neither legacy devices nor an 8042.
        assert_eq!(u16::from_le_bytes([fadt[109], fadt[110]]), 0x34);
        // I/O space, 8 bits, byte access.
        let register = |at: usize| (fadt[at], fadt[at + 1], fadt[at + 3], word(fadt, at + 4));
        assert_eq!(register(116), (1, 8, 1, 0x602));
        assert_eq!(fadt[128], 1);
        assert_eq!(register(244), (1, 8, 1, 0x600));
        assert_eq!(register(256), (1, 8, 1, 0x601));
        assert_eq!(&table(&bytes, word(fadt, 140))[..4], b"DSDT");
    }

    #[test]
    fn each_vp_has_a_local_apic_and_the_ioapic_is_there() {
        let bytes = build(&machine(3, Profile::Plain));
        let madt = named(&tables(&bytes), b"APIC").unwrap();
        assert_eq!(madt[40..44], [0; 4], "no PC/AT interrupt controllers");
        let entries: Vec<_> = madt[44..44 + 3 * 8].chunks_exact(8).collect();
        for (index, entry) in (0u8..).zip(entries) {
            assert_eq!(entry, [0, 8, index, index, 1, 0, 0, 0]);
        }
        assert_eq!(madt[44 + 3 * 8..], [1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
    }

    #[test]
    fn vmbus_is_there_in_its_profile_only() {
        let has = |profile| {
            let bytes = build(&machine(1, profile));
            let fadt = named(&tables(&bytes), b"FACP").unwrap();
            let dsdt = table(&bytes, word(fadt, 140));
            (
                dsdt.windows(6).any(|window| window == b"VMBUS\0"),
                dsdt.windows(4).any(|window| window == b"COM2"),
            )
        };
        assert_eq!(has(Profile::VmBus), (true, true));
        assert_eq!(has(Profile::Plain), (false, true));
    }

    #[test]
    fn the_largest_machine_fits() {
        let mut machine = machine(64, Profile::VmBus);
        machine.entropy = &[7; 4096];
        assert!(build(&machine).len() < 0x1_0000);
    }
}
