//! An IOAPIC with 24 pins (Intel 82093AA, version 0x20 for its EOI register), as registers and lines; delivery is the
//! caller's.

/// Address of its page.
pub const BASE: u64 = 0xfec0_0000;
/// Bytes of its page.
pub const SIZE: u64 = 0x1000;
/// Pins.
pub const PINS: usize = 24;

const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
const EOI: u64 = 0x40;

const ID: u8 = 0x00;
const VERSION: u8 = 0x01;
const ARBITRATION: u8 = 0x02;
const FIRST_ENTRY: u8 = 0x10;
/// Version in the low byte, last pin in bits 23:16.
const VERSION_VALUE: u32 = 0x20 | (PINS as u32 - 1) << 16;

const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
/// Delivery status and remote IRR are not the guest's to write; bits 55:17 are reserved.
const WRITABLE: u64 = 0xff00_0000_0001_afff;

/// An interrupt that a pin sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interrupt {
    /// Its vector.
    pub vector: u8,
    /// Delivery mode: 0 fixed, 1 lowest priority, 4 NMI and so on, as in the redirection entry.
    pub delivery_mode: u8,
    /// The destination is a logical one.
    pub logical: bool,
    /// The destination: an APIC id, or a set.
    pub destination: u8,
    /// Level-triggered.
    pub level: bool,
}

/// The IOAPIC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IoApic {
    select: u8,
    id: u8,
    entries: [u64; PINS],
    /// Which lines are high.
    lines: u32,
}

impl Default for IoApic {
    fn default() -> Self {
        Self {
            select: 0,
            id: 0,
            entries: [MASKED; PINS],
            lines: 0,
        }
    }
}

impl IoApic {
    /// The guest reads the 32-bit register at `offset` of the page.
    pub fn read(&self, offset: u64) -> u32 {
        match offset {
            SELECT => u32::from(self.select),
            WINDOW => self.read_register(),
            _ => 0,
        }
    }

    /// The guest writes the 32-bit register at `offset` of the page, which may make a pin send.
    pub fn write(&mut self, offset: u64, value: u32) -> Option<Interrupt> {
        match offset {
            SELECT => self.select = value as u8,
            WINDOW => return self.write_register(value),
            EOI => return self.end_of_interrupt(value as u8),
            _ => {}
        }
        None
    }

    /// Sets the line of `pin`, which sends at a rising edge, or as long as it is high where it is level-triggered.
    pub fn set_line(&mut self, pin: usize, high: bool) -> Option<Interrupt> {
        if pin >= PINS {
            return None;
        }
        let rose = high && self.lines & 1 << pin == 0;
        self.lines = self.lines & !(1 << pin) | u32::from(high) << pin;
        let edge = self.entries[pin] & LEVEL == 0;
        if edge && !rose { None } else { self.send(pin) }
    }

    /// The guest has handled a level-triggered interrupt at `vector`: a line that is still high sends again.
    pub fn end_of_interrupt(&mut self, vector: u8) -> Option<Interrupt> {
        let mut again = None;
        for pin in 0..PINS {
            let entry = self.entries[pin];
            if entry & LEVEL != 0 && entry & REMOTE_IRR != 0 && entry as u8 == vector {
                self.entries[pin] &= !REMOTE_IRR;
                // Pins that share the vector are sent as one, and looked at again at its next end.
                again = self.send(pin).or(again);
            }
        }
        again
    }

    /// The redirection entry of `pin`, for people.
    pub fn entry(&self, pin: usize) -> Option<u64> {
        self.entries.get(pin).copied()
    }

    fn read_register(&self) -> u32 {
        match self.select {
            ID => u32::from(self.id) << 24,
            VERSION => VERSION_VALUE,
            ARBITRATION => u32::from(self.id) << 24,
            _ => match self.selected() {
                Some((pin, false)) => self.entries[pin] as u32,
                Some((pin, true)) => (self.entries[pin] >> 32) as u32,
                None => 0,
            },
        }
    }

    fn write_register(&mut self, value: u32) -> Option<Interrupt> {
        if self.select == ID {
            self.id = (value >> 24) as u8 & 0x0f;
        }
        let (pin, high) = self.selected()?;
        let entry = self.entries[pin];
        let (mask, value) = match high {
            true => (WRITABLE & !0xffff_ffff, u64::from(value) << 32),
            false => (WRITABLE & 0xffff_ffff, u64::from(value)),
        };
        let mut written = entry & !mask | value & mask;
        if written & LEVEL == 0 {
            written &= !REMOTE_IRR;
        }
        self.entries[pin] = written;
        // An edge that came while the pin was masked is lost; a level is not.
        if written & LEVEL != 0 {
            self.send(pin)
        } else {
            None
        }
    }

    /// The pin whose entry is selected, and whether its upper half is.
    fn selected(&self) -> Option<(usize, bool)> {
        let index = usize::from(self.select.checked_sub(FIRST_ENTRY)?);
        (index / 2 < PINS).then_some((index / 2, index % 2 == 1))
    }

    fn send(&mut self, pin: usize) -> Option<Interrupt> {
        let entry = self.entries[pin];
        let high = self.lines & 1 << pin != 0;
        if !high || entry & (MASKED | REMOTE_IRR) != 0 {
            return None;
        }
        let level = entry & LEVEL != 0;
        if level {
            self.entries[pin] |= REMOTE_IRR;
        }
        Some(Interrupt {
            vector: entry as u8,
            delivery_mode: (entry >> 8) as u8 & 7,
            logical: entry & 1 << 11 != 0,
            destination: (entry >> 56) as u8,
            level,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write_entry(apic: &mut IoApic, pin: usize, entry: u64) -> Option<Interrupt> {
        apic.write(SELECT, 0x11 + 2 * pin as u32);
        apic.write(WINDOW, (entry >> 32) as u32);
        apic.write(SELECT, 0x10 + 2 * pin as u32);
        apic.write(WINDOW, entry as u32)
    }

    #[test]
    fn it_tells_what_it_is() {
        let mut apic = IoApic::default();
        apic.write(SELECT, 1);
        assert_eq!(apic.read(WINDOW), 0x17_0020);
        apic.write(SELECT, 0);
        apic.write(WINDOW, 0x0500_0000);
        assert_eq!(apic.read(WINDOW), 0x0500_0000);
    }

    #[test]
    fn entries_are_masked_at_first_and_keep_what_may_be_written() {
        let mut apic = IoApic::default();
        apic.write(SELECT, 0x10);
        assert_eq!(apic.read(WINDOW), 0x1_0000);
        write_entry(&mut apic, 0, u64::MAX);
        assert_eq!(apic.entry(0), Some(WRITABLE));
    }

    #[test]
    fn an_edge_sends_once() {
        let mut apic = IoApic::default();
        write_entry(&mut apic, 4, 0x0200_0000_0000_0831);
        let interrupt = Interrupt {
            vector: 0x31,
            delivery_mode: 0,
            logical: true,
            destination: 2,
            level: false,
        };
        assert_eq!(apic.set_line(4, true), Some(interrupt));
        assert_eq!(apic.set_line(4, true), None);
        assert_eq!(apic.set_line(4, false), None);
        assert_eq!(apic.set_line(4, true), Some(interrupt));
    }

    #[test]
    fn a_level_sends_again_after_eoi_while_it_is_high() {
        let mut apic = IoApic::default();
        write_entry(&mut apic, 9, LEVEL | 0x41);
        assert!(apic.set_line(9, true).is_some());
        assert_eq!(apic.set_line(9, true), None, "remote IRR holds it back");
        assert_eq!(apic.end_of_interrupt(0x40), None);
        assert!(apic.end_of_interrupt(0x41).is_some());
        apic.set_line(9, false);
        assert_eq!(apic.write(EOI, 0x41), None);
        assert_eq!(apic.entry(9), Some(LEVEL | 0x41));
    }

    #[test]
    fn a_level_that_came_while_masked_is_sent_when_unmasked() {
        let mut apic = IoApic::default();
        write_entry(&mut apic, 9, LEVEL | MASKED | 0x41);
        assert_eq!(apic.set_line(9, true), None);
        assert!(write_entry(&mut apic, 9, LEVEL | 0x41).is_some());
    }

    proptest! {
        #[test]
        fn masked_pins_and_low_lines_never_send(
            steps in prop::collection::vec((0u8..3, any::<u8>(), any::<u32>()), 0..200),
        ) {
            let mut apic = IoApic::default();
            for (kind, at, value) in steps {
                let sent = match kind {
                    0 => apic.write([SELECT, WINDOW, EOI, 0x20][usize::from(at % 4)], value),
                    1 => apic.set_line(usize::from(at), value & 1 != 0),
                    _ => apic.end_of_interrupt(at),
                };
                if let Some(interrupt) = sent {
                    let sender = (0..PINS).any(|pin| {
                        let entry = apic.entries[pin];
                        entry & MASKED == 0 && entry as u8 == interrupt.vector && apic.lines & 1 << pin != 0
                    });
                    prop_assert!(sender);
                }
                for pin in 0..PINS {
                    prop_assert_eq!(apic.entries[pin] & !(WRITABLE | REMOTE_IRR), 0);
                }
            }
        }
    }
}
