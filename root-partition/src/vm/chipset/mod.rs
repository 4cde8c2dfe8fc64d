//! The devices that a child's processors reach by ports and memory: a chipset like that of Hyper-V's generation 2 plus
//! two serial ports. There is no PIC, no PIT, no PCI, and of an RTC only the time: unclaimed ports read all ones and
//! ignore writes.
//!
//! | module | holds |
//! |---|---|
//! | [`clock`] | the time of day |
//! | [`io_apic`] | 24 pins at 0xfec00000 |
//! | [`uart`] | a 16550A |
//!
//! | ports | device |
//! |---|---|
//! | 0x70–0x71 | the time of day, to be read |
//! | 0x3f8–0x3ff | COM1, IOAPIC pin 4 |
//! | 0x2f8–0x2ff | COM2, IOAPIC pin 3 |
//! | 0x600 | sleep control: `0x34` powers off (ACPI's SLP_TYP 5, SLP_EN) |
//! | 0x601 | sleep status: 0 |
//! | 0x602 | reset: `1` resets |
//!
//! It is a state machine: accesses in, [`Effect`]s out.

pub mod clock;
pub mod io_apic;
pub mod uart;

use arrayvec::ArrayVec;
use clock::Clock;
use io_apic::{Interrupt, IoApic};
use uart::Uart;

/// Port of the ACPI sleep control register.
pub const SLEEP_CONTROL: u16 = 0x600;
/// SLP_TYP of the state in which the machine is off.
pub const POWER_OFF_TYPE: u8 = 5;
/// What powers off: SLP_TYP in bits 4:2, SLP_EN in bit 5.
pub const POWER_OFF: u8 = POWER_OFF_TYPE << 2 | 1 << 5;
/// Port of the ACPI sleep status register; nothing ever wakes.
pub const SLEEP_STATUS: u16 = 0x601;
/// Port of the ACPI reset register.
pub const RESET: u16 = 0x602;
/// What resets.
pub const RESET_VALUE: u8 = 1;

/// Serial ports: first port, IOAPIC pin.
pub const SERIAL: [(u16, usize); SERIAL_PORTS] = [(0x3f8, 4), (0x2f8, 3)];
/// Number of serial ports.
pub const SERIAL_PORTS: usize = 2;

/// What an access leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// An interrupt for the guest.
    Interrupt(Interrupt),
    /// A byte that serial port `port` (0 is COM1) sent.
    Serial {
        /// Which port.
        port: usize,
        /// The byte.
        byte: u8,
    },
    /// The guest powers itself off.
    PowerOff,
    /// The guest resets itself.
    Reset,
}

/// What an access leads to, all of it: at most two effects a byte of a port, one of memory.
pub type Effects = ArrayVec<Effect, 8>;

/// The devices of one child.
#[derive(Clone, Debug, Default)]
pub struct Chipset {
    serial: [Uart; SERIAL_PORTS],
    io_apic: IoApic,
    clock: Clock,
}

impl Chipset {
    /// Whether an access to `port` may ask for the time, which [`set_time`](Self::set_time) is then to tell.
    pub fn wants_time(port: u16) -> bool {
        (clock::INDEX..=clock::DATA).contains(&port)
    }

    /// Tells the time: 100 ns since 1601, UTC.
    pub fn set_time(&mut self, now: Option<u64>) {
        self.clock.set(now);
    }

    /// The guest reads `size` (1, 2 or 4) bytes from `port`.
    pub fn read_port(&mut self, port: u16, size: u8, effects: &mut Effects) -> u32 {
        let bytes = (0..size.min(4)).map(|index| match port.checked_add(u16::from(index)) {
            Some(port) => u32::from(self.read_byte(port, effects)) << (8 * index),
            None => 0xff << (8 * index),
        });
        bytes.fold(0, |value, byte| value | byte)
    }

    /// The guest writes the low `size` (1, 2 or 4) bytes of `value` to `port`.
    pub fn write_port(&mut self, port: u16, size: u8, value: u32, effects: &mut Effects) {
        for index in 0..size.min(4) {
            if let Some(port) = port.checked_add(u16::from(index)) {
                self.write_byte(port, (value >> (8 * index)) as u8, effects);
            }
        }
    }

    /// The guest reads `size` bytes of memory where it has none: all ones where no device is.
    pub fn read_memory(&mut self, address: u64, size: u8) -> u64 {
        let ones = u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)));
        match address.checked_sub(io_apic::BASE) {
            // Registers are read whole, or in part.
            Some(offset @ 0..io_apic::SIZE) => {
                let register = u64::from(self.io_apic.read(offset & !3));
                register >> (8 * (offset & 3)) & ones
            }
            _ => ones,
        }
    }

    /// The guest writes `size` bytes of memory where it has none.
    pub fn write_memory(&mut self, address: u64, size: u8, value: u64, effects: &mut Effects) {
        if let Some(offset @ 0..io_apic::SIZE) = address.checked_sub(io_apic::BASE)
            && size >= 4
        {
            effects.extend(self.io_apic.write(offset, value as u32).map(Effect::Interrupt));
        }
    }

    /// Bytes from outside for serial port `port`.
    pub fn receive(&mut self, port: usize, bytes: &[u8], effects: &mut Effects) {
        if let Some(uart) = self.serial.get_mut(port) {
            uart.receive(bytes);
            self.update_line(port, effects);
        }
    }

    /// A VP has ended a level-triggered interrupt at `vector`.
    pub fn end_of_interrupt(&mut self, vector: u8, effects: &mut Effects) {
        effects.extend(self.io_apic.end_of_interrupt(vector).map(Effect::Interrupt));
    }

    fn read_byte(&mut self, port: u16, effects: &mut Effects) -> u8 {
        let Some((serial, offset)) = serial(port) else {
            return match port {
                SLEEP_CONTROL | SLEEP_STATUS | RESET | clock::INDEX => 0,
                clock::DATA => self.clock.read(),
                _ => 0xff,
            };
        };
        let value = self.serial[serial].read(offset);
        self.update_line(serial, effects);
        value
    }

    fn write_byte(&mut self, port: u16, value: u8, effects: &mut Effects) {
        match (serial(port), port, value) {
            (Some((serial, offset)), ..) => {
                let sent = self.serial[serial].write(offset, value);
                effects.extend(sent.map(|byte| Effect::Serial { port: serial, byte }));
                self.update_line(serial, effects);
            }
            (None, SLEEP_CONTROL, POWER_OFF) => effects.push(Effect::PowerOff),
            (None, RESET, RESET_VALUE) => effects.push(Effect::Reset),
            (None, clock::INDEX, index) => self.clock.select(index),
            _ => {}
        }
    }

    fn update_line(&mut self, serial: usize, effects: &mut Effects) {
        let high = self.serial[serial].interrupt();
        effects.extend(
            self.io_apic
                .set_line(SERIAL[serial].1, high)
                .map(Effect::Interrupt),
        );
    }
}

/// Which serial port has `port`, and the register.
fn serial(port: u16) -> Option<(usize, u16)> {
    SERIAL
        .iter()
        .enumerate()
        .find_map(|(index, (base, _))| match port.checked_sub(*base) {
            Some(offset) if offset < uart::PORTS => Some((index, offset)),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write(chipset: &mut Chipset, port: u16, value: u8) -> Vec<Effect> {
        let mut effects = Effects::new();
        chipset.write_port(port, 1, value.into(), &mut effects);
        effects.to_vec()
    }

    #[test]
    fn unclaimed_ports_and_memory_read_all_ones() {
        let mut chipset = Chipset::default();
        let mut effects = Effects::new();
        for (size, ones) in [(1, 0xff), (2, 0xffff), (4, u32::MAX)] {
            assert_eq!(chipset.read_port(0xcf8, size, &mut effects), ones);
            assert_eq!(chipset.read_memory(0xfed0_0000, size), u64::from(ones));
        }
        assert_eq!(chipset.read_memory(0xd000_0000, 8), u64::MAX);
        assert_eq!(chipset.read_port(0xffff, 4, &mut effects), u32::MAX);
        assert!(effects.is_empty());
    }

    #[test]
    fn the_clock_tells_the_time_and_no_update_is_in_progress() {
        let mut chipset = Chipset::default();
        // Two hours, three minutes and four seconds into 1970.
        chipset.set_time(Some(116_444_736_000_000_000 + 7_384 * 10_000_000));
        let time = [0x0a, 0x04, 0x02, 0x00].map(|register| {
            assert!(write(&mut chipset, 0x70, register).is_empty());
            chipset.read_port(0x71, 1, &mut Effects::new())
        });
        assert_eq!(time, [0, 2, 3, 4]);
    }

    #[test]
    fn the_power_registers_do_what_acpi_says() {
        let mut chipset = Chipset::default();
        assert_eq!(write(&mut chipset, 0x600, 0x34), [Effect::PowerOff]);
        assert_eq!(write(&mut chipset, 0x602, 1), [Effect::Reset]);
        assert_eq!(write(&mut chipset, 0x600, 0x14), []);
        assert_eq!(write(&mut chipset, 0x602, 0), []);
    }

    #[test]
    fn a_serial_port_interrupts_by_its_pin() {
        let mut chipset = Chipset::default();
        let mut effects = Effects::new();
        for (register, value) in [(0x18, 0x24), (0x19, 0)] {
            chipset.write_memory(io_apic::BASE, 4, register, &mut effects);
            chipset.write_memory(io_apic::BASE + 0x10, 4, value, &mut effects);
        }
        assert_eq!(chipset.read_memory(io_apic::BASE + 0x10, 4), 0);
        assert!(effects.is_empty());
        write(&mut chipset, 0x3f9, 1);
        chipset.receive(0, b"x", &mut effects);
        assert!(matches!(
            effects[..],
            [Effect::Interrupt(Interrupt { vector: 0x24, .. })]
        ));
    }

    #[test]
    fn what_is_sent_names_its_port() {
        let mut chipset = Chipset::default();
        assert_eq!(
            write(&mut chipset, 0x2f8, b'!'),
            [Effect::Serial { port: 1, byte: b'!' }]
        );
    }

    proptest! {
        #[test]
        fn no_access_panics(steps in prop::collection::vec((any::<u64>(), any::<u8>(), any::<u64>()), 0..50)) {
            let mut chipset = Chipset::default();
            let mut effects = Effects::new();
            for (address, size, value) in steps {
                effects.clear();
                chipset.write_port(address as u16, size, value as u32, &mut effects);
                effects.clear();
                chipset.read_port(address as u16, size, &mut effects);
                effects.clear();
                chipset.write_memory(io_apic::BASE + address % 0x1010, size, value, &mut effects);
                chipset.read_memory(address, size);
                chipset.read_memory(io_apic::BASE + address % 0x1010, size);
            }
        }
    }
}
