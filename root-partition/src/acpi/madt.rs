//! The MADT's interrupt controllers (ACPI 5.2.12). Its entries are read here, with bounds, because the crate's iterator
//! trusts their lengths.

use alloc::vec::Vec;

/// Bytes before the first entry: the common header, the local APIC address, flags.
const FIRST_ENTRY: usize = 44;
const IO_APIC: u8 = 1;
const SOURCE_OVERRIDE: u8 = 2;

/// One IOAPIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoApic {
    /// Its id, which hypercalls name it by.
    pub id: u8,
    /// Address of its registers.
    pub address: u32,
    /// Global system interrupt of its pin 0.
    pub first_interrupt: u32,
}

/// What the MADT says of device interrupts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct InterruptControllers {
    /// The IOAPICs.
    pub io_apics: Vec<IoApic>,
    /// ISA interrupts that are not at the global system interrupt of the same number.
    overrides: Vec<(u8, u32)>,
}

impl InterruptControllers {
    /// The IOAPIC and pin of ISA interrupt `irq`.
    pub fn isa(&self, irq: u8) -> Option<(IoApic, u8)> {
        let moved = self.overrides.iter().find(|(from, _)| *from == irq);
        let interrupt = moved.map_or(u32::from(irq), |(_, to)| *to);
        let controller = self
            .io_apics
            .iter()
            .filter(|controller| controller.first_interrupt <= interrupt)
            .max_by_key(|controller| controller.first_interrupt)?;
        let pin = u8::try_from(interrupt - controller.first_interrupt).ok()?;
        Some((*controller, pin))
    }
}

/// Reads a MADT. An entry that does not fit ends the list.
pub fn parse(table: &[u8]) -> InterruptControllers {
    let mut found = InterruptControllers::default();
    let mut rest = table.get(FIRST_ENTRY..).unwrap_or(&[]);
    while let Some(&[kind, length]) = rest.first_chunk() {
        let Some((entry, next)) = rest.split_at_checked(usize::from(length)) else {
            break;
        };
        match (kind, entry) {
            (IO_APIC, &[_, _, id, _, a, b, c, d, e, f, g, h, ..]) => found.io_apics.push(IoApic {
                id,
                address: u32::from_le_bytes([a, b, c, d]),
                first_interrupt: u32::from_le_bytes([e, f, g, h]),
            }),
            (SOURCE_OVERRIDE, &[_, _, 0, irq, a, b, c, d, ..]) => {
                found.overrides.push((irq, u32::from_le_bytes([a, b, c, d])));
            }
            _ if length < 2 => break,
            _ => {}
        }
        rest = next;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table() -> Vec<u8> {
        let mut table = vec![0; FIRST_ENTRY];
        table.extend([0, 8, 0, 0, 1, 0, 0, 0]);
        table.extend([1, 12, 2, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
        table.extend([1, 12, 9, 0, 0, 0x10, 0xc0, 0xfe, 24, 0, 0, 0]);
        table.extend([2, 10, 0, 0, 2, 0, 0, 0, 0, 0]);
        table.extend([2, 10, 0, 4, 28, 0, 0, 0, 0, 0]);
        table
    }

    #[test]
    fn an_isa_interrupt_is_found_at_its_pin() {
        let found = parse(&table());
        let pin = |irq| found.isa(irq).map(|(controller, pin)| (controller.id, pin));
        assert_eq!(pin(1), Some((2, 1)));
        assert_eq!(pin(0), Some((2, 2)));
        assert_eq!(pin(4), Some((9, 4)));
    }

    #[test]
    fn without_an_io_apic_there_is_no_pin() {
        assert_eq!(parse(&[]).isa(4), None);
    }

    #[test]
    fn an_entry_that_does_not_fit_ends_the_list() {
        for (length, count) in [(0u8, 0), (1, 0), (200, 0), (11, 1)] {
            let mut damaged = table();
            damaged[FIRST_ENTRY + 8 + 1] = length;
            assert!(parse(&damaged).io_apics.len() <= count, "length {length}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_run_on(table in prop::collection::vec(any::<u8>(), 0..300), irq: u8) {
            let found = parse(&table);
            prop_assert!(found.io_apics.len() <= table.len() / 12 + 1);
            let _ = found.isa(irq);
        }
    }
}
