//! A function and its registers, which are in memory: what drivers have of a device.

use super::Address;
use super::config::ConfigSpace;
use super::function::{Bar, Function};
use crate::memory::mmio::Registers;
use crate::memory::paging::PagingError;

/// A device's registers. On the host they are those of a device made of memory.
pub trait Device: Send + Sync + 'static {
    /// Bytes of the register window.
    fn window(&self) -> u64;

    /// Reads the 32-bit register at `offset`, inside the window and aligned.
    fn read(&self, offset: u64) -> u32;

    /// Writes the 32-bit register at `offset`, inside the window and aligned.
    fn write(&self, offset: u64, value: u32);

    /// Keeps the device from memory for good, whatever it does.
    fn cut_off(&self);
}

/// Why a device's registers cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NoRegisters {
    /// Its first BAR is none of memory.
    #[error("it has no registers in memory")]
    None,
    /// They are not reachable.
    #[error("its registers cannot be mapped: {0}")]
    Mapping(#[from] PagingError),
}

/// The registers of `function`, where its first BAR says.
pub fn registers(function: &Function<'_>) -> Result<Registers, NoRegisters> {
    match function.bar(0) {
        Some(Bar::Memory { base, size }) => Ok(Registers::map(base, size)?),
        _ => Err(NoRegisters::None),
    }
}

/// A function and its registers.
pub struct PciDevice {
    /// The function.
    pub function: Function<'static>,
    registers: Registers,
}

impl PciDevice {
    /// The device at `address`, which neither answers nor reaches memory before it is [enabled](Function::enable).
    pub fn find(space: &'static dyn ConfigSpace, address: Address) -> Result<Self, NoRegisters> {
        let function = Function::new(space, address);
        let registers = registers(&function)?;
        Ok(Self { function, registers })
    }
}

impl Device for PciDevice {
    fn window(&self) -> u64 {
        self.registers.size()
    }

    fn read(&self, offset: u64) -> u32 {
        self.registers.read(offset)
    }

    fn write(&self, offset: u64, value: u32) {
        self.registers.write(offset, value);
    }

    fn cut_off(&self) {
        self.function.stop_bus_master();
    }
}
