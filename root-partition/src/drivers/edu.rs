//! QEMU's `edu` device (`docs/specs/edu.rst` of QEMU): a device for teaching, which copies memory and raises interrupts when it
//! is told to. Partita tests its IOMMU with it.

use super::pci::Address;
use super::pci::device;
use super::pci::function::Function;
use super::pci::scan::Identity;
use crate::memory::mmio::Registers;
use alloc::format;
use alloc::string::String;
use embassy_time::{Duration, Timer};

const VENDOR: u16 = 0x1234;
const DEVICE: u16 = 0x11e8;

const IDENTIFICATION: u64 = 0x00;
const RAISE: u64 = 0x60;
const ACKNOWLEDGE: u64 = 0x64;
const INTERRUPT_STATUS: u64 = 0x24;
const SOURCE: u64 = 0x80;
const DESTINATION: u64 = 0x88;
const COUNT: u64 = 0x90;
const COMMAND: u64 = 0x98;
const START: u32 = 1 << 0;
const TO_MEMORY: u32 = 1 << 1;
/// Where the device has its buffer, in its own addresses.
const BUFFER: u32 = 0x4_0000;

/// Bytes of the device's buffer.
pub const BUFFER_SIZE: u32 = 4096;
/// Addresses that the device can use end here: it has 28 bits.
pub const ADDRESS_LIMIT: u64 = 1 << 28;

/// The device.
pub struct Edu<'a> {
    /// Its function.
    pub function: Function<'a>,
    registers: Registers,
}

/// Which way the device copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From memory into its buffer.
    Read,
    /// From its buffer to memory.
    Write,
}

impl<'a> Edu<'a> {
    /// The first edu device among `found`.
    pub fn address(found: &[Identity]) -> Option<Address> {
        let edu = |function: &&Identity| (function.vendor, function.device) == (VENDOR, DEVICE);
        found.iter().find(edu).map(|function| function.address)
    }

    /// Makes the device ready.
    pub fn new(function: Function<'a>) -> Result<Self, String> {
        let registers =
            device::registers(&function).map_err(|error| format!("{}: {error}", function.address))?;
        function.enable();
        match registers.read(IDENTIFICATION) & 0xff {
            0xed => Ok(Self { function, registers }),
            other => Err(format!("{} calls itself {other:#x}, not 0xed", function.address)),
        }
    }

    /// Has the device copy `count` bytes (at most [`BUFFER_SIZE`]) between its buffer and `address`, which must lie below
    /// [`ADDRESS_LIMIT`]. It does not tell whether it could.
    pub async fn copy(&self, direction: Direction, address: u64, count: u32) {
        let address = address.min(ADDRESS_LIMIT - u64::from(BUFFER_SIZE)) as u32;
        let (from, to, command) = match direction {
            Direction::Read => (address, BUFFER, START),
            Direction::Write => (BUFFER, address, START | TO_MEMORY),
        };
        self.registers.write(SOURCE, from);
        self.registers.write(DESTINATION, to);
        self.registers.write(COUNT, count.min(BUFFER_SIZE));
        self.registers.write(COMMAND, command);
        // It takes its time: 100 ms.
        while self.registers.read(COMMAND) & START != 0 {
            Timer::after(Duration::from_millis(5)).await;
        }
    }

    /// Has the device raise its interrupt.
    pub fn raise(&self) {
        self.registers.write(RAISE, 1);
    }

    /// Ends what [`raise`](Self::raise) began.
    pub fn acknowledge(&self) {
        let causes = self.registers.read(INTERRUPT_STATUS);
        self.registers.write(ACKNOWLEDGE, causes);
    }
}
