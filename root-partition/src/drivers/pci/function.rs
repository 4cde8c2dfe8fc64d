//! One function: its command register, BARs and capabilities.

use super::config::ConfigSpace;
use super::{Address, requester};

const COMMAND: u16 = 0x04;
const FIRST_BAR: u16 = 0x10;
const CAPABILITIES: u16 = 0x34;
const COMMAND_IO: u32 = 1 << 0;
const COMMAND_MEMORY: u32 = 1 << 1;
const COMMAND_BUS_MASTER: u32 = 1 << 2;
const COMMAND_NO_INTX: u32 = 1 << 10;
const STATUS_CAPABILITIES: u32 = 1 << 20;
/// Bits of the command register's word that a write of it must not set: the status bits there are cleared by ones.
const COMMAND_MASK: u32 = 0xffff;
/// Most capabilities that fit a function's space, so that a list that is a circle ends.
const MAX_CAPABILITIES: usize = 48;

/// What a BAR describes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bar {
    /// Registers in memory.
    Memory {
        /// Physical address.
        base: u64,
        /// Bytes.
        size: u64,
    },
    /// I/O ports.
    Io {
        /// First port.
        base: u16,
        /// Number of ports.
        size: u32,
    },
}

/// One function of a configuration space.
#[derive(Clone, Copy)]
pub struct Function<'a> {
    space: &'a dyn ConfigSpace,
    /// Where it is.
    pub address: Address,
}

impl<'a> Function<'a> {
    /// The function at `address`.
    pub const fn new(space: &'a dyn ConfigSpace, address: Address) -> Self {
        Self { space, address }
    }

    /// The word at `offset`, a multiple of 4.
    pub fn read(&self, offset: u16) -> u32 {
        self.space.read(self.address, offset)
    }

    /// Writes the word at `offset`.
    pub fn write(&self, offset: u16, value: u32) {
        self.space.write(self.address, offset, value);
    }

    /// Lets the function answer at its memory BARs and reach memory itself; its interrupt pin is turned off, as drivers use
    /// message-signalled interrupts.
    pub fn enable(&self) {
        self.space.admit(self.address);
        self.start_bus_master();
    }

    /// The same for a function that reaches a virtual machine's memory, not the root's.
    pub fn start_bus_master(&self) {
        let command = self.read(COMMAND) & COMMAND_MASK;
        self.write(
            COMMAND,
            command | COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_NO_INTX,
        );
    }

    /// Lets the function answer at its memory BARs.
    pub fn answer(&self) {
        let command = self.read(COMMAND) & COMMAND_MASK;
        self.write(COMMAND, command | COMMAND_MEMORY);
    }

    /// Has the function do nothing by itself: neither reach memory nor answer, nor raise its interrupt pin.
    pub fn disable(&self) {
        let command = self.read(COMMAND) & COMMAND_MASK;
        let active = COMMAND_IO | COMMAND_MEMORY | COMMAND_BUS_MASTER;
        self.write(COMMAND, command & !active | COMMAND_NO_INTX);
    }

    /// The id by which the IOMMU knows the function; see [`requester`](super::requester).
    pub fn requester(&self) -> u16 {
        requester::find(self.space, self.address)
    }

    /// Keeps the function from reaching memory itself.
    pub fn stop_bus_master(&self) {
        let command = self.read(COMMAND) & COMMAND_MASK;
        self.write(COMMAND, command & !COMMAND_BUS_MASTER);
    }

    /// The BAR in slot `slot`, 0 to 5. A 64-bit BAR takes two slots, of which the first is asked for. `None` where the slot
    /// is empty or makes no sense.
    pub fn bar(&self, slot: u8) -> Option<Bar> {
        if slot > 5 {
            return None;
        }
        let offset = FIRST_BAR + 4 * u16::from(slot);
        let command = self.read(COMMAND) & COMMAND_MASK;
        // While its size is asked for, the BAR holds no address, and the function must not answer.
        self.write(COMMAND, command & !(COMMAND_IO | COMMAND_MEMORY));
        let bar = self.measure(offset, slot);
        self.write(COMMAND, command);
        bar
    }

    /// Whether the BAR in slot `slot` is one of memory that takes the next slot too.
    pub fn is_64_bit(&self, slot: u8) -> bool {
        slot < 5 && self.read(FIRST_BAR + 4 * u16::from(slot)) & 7 == 4
    }

    fn measure(&self, offset: u16, slot: u8) -> Option<Bar> {
        let (low, low_size) = self.size_word(offset);
        if low & 1 != 0 {
            let size = (!(low_size & !3) & 0xffff).wrapping_add(1);
            return (low_size & !3 != 0).then_some(Bar::Io {
                base: (low & !3) as u16,
                size,
            });
        }
        let (high, high_size) = match low >> 1 & 3 {
            0 => (0, u32::MAX),
            2 if slot < 5 => self.size_word(offset + 4),
            _ => return None,
        };
        let mask = u64::from(high_size) << 32 | u64::from(low_size & !0xf);
        if low_size & !0xf == 0 && (high_size == 0 || high_size == u32::MAX) {
            return None;
        }
        Some(Bar::Memory {
            base: u64::from(high) << 32 | u64::from(low & !0xf),
            size: (!mask).wrapping_add(1),
        })
    }

    /// Value of a BAR's word, and what it reads as after all ones were written.
    fn size_word(&self, offset: u16) -> (u32, u32) {
        let value = self.read(offset);
        self.write(offset, u32::MAX);
        let size = self.read(offset);
        self.write(offset, value);
        (value, size)
    }

    /// Offset of the first capability with the id `id`.
    pub fn capability(&self, id: u8) -> Option<u16> {
        self.capabilities()
            .find(|(other, _)| *other == id)
            .map(|(_, at)| at)
    }

    /// Ids and offsets of the capabilities.
    pub fn capabilities(&self) -> impl Iterator<Item = (u8, u16)> {
        let first = match self.read(COMMAND) & STATUS_CAPABILITIES {
            0 => 0,
            _ => self.read(CAPABILITIES) as u8,
        };
        let this = *self;
        let mut next = first & !3;
        core::iter::from_fn(move || {
            // The first 64 bytes are the header.
            if next < 0x40 {
                return None;
            }
            let at = u16::from(next);
            let [id, following, ..] = this.read(at).to_le_bytes();
            next = following & !3;
            (id != 0xff).then_some((id, at))
        })
        .take(MAX_CAPABILITIES)
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::{Fake, address};
    use super::*;

    const AT: Address = address(0, 3, 0);

    fn space(words: &[(u16, u32)]) -> Fake {
        Fake::with(&[(AT, words)])
    }

    #[test]
    fn bars_are_measured_and_left_as_they_were() {
        let mut space = space(&[
            (4, 7),
            (0x10, 0xfebc_0000),
            (0x14, 0xc001),
            (0x18, 0xc),
            (0x1c, 8),
        ]);
        space.writable.insert((AT, 0x10), 0xfffe_0000);
        space.writable.insert((AT, 0x14), 0xffe0);
        space.writable.insert((AT, 0x18), 0xffff_c000);
        let function = Function::new(&space, AT);
        assert_eq!(
            function.bar(0),
            Some(Bar::Memory {
                base: 0xfebc_0000,
                size: 0x2_0000
            })
        );
        assert_eq!(
            function.bar(1),
            Some(Bar::Io {
                base: 0xc000,
                size: 0x20
            })
        );
        assert_eq!(
            function.bar(2),
            Some(Bar::Memory {
                base: 8 << 32,
                size: 0x4000
            })
        );
        assert_eq!(function.read(4), 7);
        assert_eq!(function.read(0x10), 0xfebc_0000);
        assert_eq!((function.read(0x18), function.read(0x1c)), (0xc, 8));
    }

    #[test]
    fn empty_and_senseless_bars_are_none() {
        let mut space = space(&[(0x14, 6), (0x24, 4)]);
        for offset in (0x10..0x28).step_by(4) {
            space.writable.insert((AT, offset), 0);
        }
        let function = Function::new(&space, AT);
        assert!((0..7).all(|slot| function.bar(slot).is_none()));
    }

    #[test]
    fn capabilities_are_followed_in_order() {
        let space = space(&[
            (4, STATUS_CAPABILITIES),
            (0x34, 0x40),
            (0x40, 0x5005),
            (0x50, 0x0011),
        ]);
        let function = Function::new(&space, AT);
        assert_eq!(function.capability(0x11), Some(0x50));
        assert_eq!(function.capability(0x10), None);
    }

    #[test]
    fn a_list_that_is_a_circle_ends() {
        let space = space(&[(4, STATUS_CAPABILITIES), (0x34, 0x40), (0x40, 0x4009)]);
        assert_eq!(Function::new(&space, AT).capabilities().count(), MAX_CAPABILITIES);
    }

    #[test]
    fn a_function_without_the_status_bit_has_none() {
        let space = space(&[(0x34, 0x40), (0x40, 0x0005)]);
        assert_eq!(Function::new(&space, AT).capabilities().count(), 0);
    }
}
