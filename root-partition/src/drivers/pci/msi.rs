//! Message-signalled interrupts (PCI 6.8): what the hypervisor gives for an interrupt is written into the function.

use super::function::{Bar, Function};
use crate::interrupt::{Interrupt, InterruptError};
use crate::memory::mmio::Registers;
use crate::memory::paging::PagingError;

const MSI: u8 = 0x05;
const MSI_X: u8 = 0x11;
const MSI_ENABLE: u32 = 1 << 16;
const MSI_MULTIPLE: u32 = 7 << 20;
const MSI_64_BIT: u32 = 1 << 23;
const MSI_X_ENABLE: u32 = 1 << 31;
const MSI_X_MASK_ALL: u32 = 1 << 30;
/// Bytes of an MSI-X table entry: address, upper address, data, control.
const ENTRY: u64 = 16;
const ENTRY_MASKED: u32 = 1;

/// Why a function has no message-signalled interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MsiError {
    /// It has neither capability.
    #[error("the function has neither MSI nor MSI-X")]
    NotSupported,
    /// There is no such entry in its MSI-X table, or the table is outside its BAR.
    #[error("the function's MSI-X table has no entry {0}")]
    NoSuchEntry(u16),
    /// The table cannot be mapped.
    #[error("the MSI-X table cannot be mapped: {0}")]
    Mapping(#[from] PagingError),
    /// There is no interrupt to have.
    #[error(transparent)]
    Interrupt(#[from] InterruptError),
}

/// Gives `function` one interrupt on this processor: MSI-X entry 0 where it has MSI-X, MSI otherwise.
pub fn enable(function: &Function<'_>) -> Result<Interrupt, MsiError> {
    match Table::find(function)? {
        Some(table) => table.enable(0),
        None => enable_msi(function),
    }
}

/// Gives `function` one interrupt on this processor by MSI.
pub fn enable_msi(function: &Function<'_>) -> Result<Interrupt, MsiError> {
    let at = function.capability(MSI).ok_or(MsiError::NotSupported)?;
    let interrupt = Interrupt::message_signalled(function.address.segment, function.requester())?;
    let (address, data) = interrupt.message();
    write_msi(function, at, address, data);
    Ok(interrupt)
}

/// Has `function` raise its MSI, or where it has none entry 0 of its MSI-X table, by `message`, an address and data of the
/// caller's choice.
pub fn set_message(function: &Function<'_>, message: (u32, u32)) -> Result<(), MsiError> {
    if let Some(at) = function.capability(MSI) {
        write_msi(function, at, message.0, message.1);
        return Ok(());
    }
    let table = Table::find(function)?.ok_or(MsiError::NotSupported)?;
    table.set_message(0, message);
    Ok(())
}

/// Whether `function` has message-signalled interrupts.
pub fn is_supported(function: &Function<'_>) -> bool {
    function.capability(MSI).or(function.capability(MSI_X)).is_some()
}

/// Turns message-signalled interrupts off.
pub fn disable(function: &Function<'_>) {
    disable_msi(function);
    if let Some(at) = function.capability(MSI_X) {
        let control = function.read(at);
        function.write(at, control & !MSI_X_ENABLE);
    }
}

/// Turns MSI off.
pub fn disable_msi(function: &Function<'_>) {
    if let Some(at) = function.capability(MSI) {
        let control = function.read(at);
        function.write(at, control & !MSI_ENABLE);
    }
}

fn write_msi(function: &Function<'_>, at: u16, address: u32, data: u32) {
    let control = function.read(at) & !(MSI_ENABLE | MSI_MULTIPLE);
    function.write(at, control);
    function.write(at + 4, address);
    let data_at = if control & MSI_64_BIT != 0 {
        function.write(at + 8, 0);
        at + 12
    } else {
        at + 8
    };
    let kept = function.read(data_at) & 0xffff_0000;
    function.write(data_at, kept | data & 0xffff);
    function.write(at, control | MSI_ENABLE);
}

/// The MSI-X table of a function.
pub struct Table<'a> {
    function: Function<'a>,
    capability: u16,
    entries: u16,
    registers: Registers,
    offset: u64,
}

impl<'a> Table<'a> {
    /// The table of `function`, all of its entries masked; `None` where it has no MSI-X.
    pub fn find(function: &Function<'a>) -> Result<Option<Self>, MsiError> {
        let Some(capability) = function.capability(MSI_X) else {
            return Ok(None);
        };
        let control = function.read(capability);
        let entries = (control >> 16 & 0x7ff) as u16 + 1;
        let location = function.read(capability + 4);
        let offset = u64::from(location & !7);
        let Some(Bar::Memory { base, size }) = function.bar(location as u8 & 7) else {
            return Err(MsiError::NoSuchEntry(0));
        };
        if offset + u64::from(entries) * ENTRY > size {
            return Err(MsiError::NoSuchEntry(entries - 1));
        }
        let registers = Registers::map(base, size)?;
        function.answer();
        function.write(capability, control | MSI_X_ENABLE | MSI_X_MASK_ALL);
        let table = Self {
            function: *function,
            capability,
            entries,
            registers,
            offset,
        };
        (0..entries).for_each(|entry| table.write(entry, 3, ENTRY_MASKED));
        function.write(capability, (control | MSI_X_ENABLE) & !MSI_X_MASK_ALL);
        Ok(Some(table))
    }

    /// Number of entries.
    pub const fn entries(&self) -> u16 {
        self.entries
    }

    /// Gives entry `entry` an interrupt on this processor.
    pub fn enable(&self, entry: u16) -> Result<Interrupt, MsiError> {
        if entry >= self.entries {
            return Err(MsiError::NoSuchEntry(entry));
        }
        let function = self.function;
        let interrupt = Interrupt::message_signalled(function.address.segment, function.requester())?;
        self.set_message(entry, interrupt.message());
        Ok(interrupt)
    }

    fn set_message(&self, entry: u16, (address, data): (u32, u32)) {
        self.write(entry, 0, address);
        self.write(entry, 1, 0);
        self.write(entry, 2, data);
        self.write(entry, 3, 0);
    }

    /// Turns MSI-X off for the whole function.
    pub fn disable(&self) {
        let control = self.function.read(self.capability);
        self.function.write(self.capability, control & !MSI_X_ENABLE);
    }

    fn write(&self, entry: u16, word: u64, value: u32) {
        self.registers
            .write(self.offset + u64::from(entry) * ENTRY + 4 * word, value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::{Fake, address};
    use super::*;

    #[test]
    fn a_64_bit_capability_has_its_data_behind_the_upper_address() {
        let at = address(0, 2, 0);
        let space = Fake::with(&[(at, &[(0x50, 0x00fe_0005), (0x5c, 0xaaaa_0000)])]);
        let function = Function::new(&space, at);
        write_msi(&function, 0x50, 0xfee0_0000, 0x41);
        assert_eq!(function.read(0x50), 0x008f_0005);
        assert_eq!(
            (function.read(0x54), function.read(0x58), function.read(0x5c)),
            (0xfee0_0000, 0, 0xaaaa_0041)
        );
    }

    #[test]
    fn a_32_bit_capability_has_its_data_behind_the_address() {
        let at = address(0, 2, 0);
        let space = Fake::with(&[(at, &[(0x50, 0x0000_0005)])]);
        let function = Function::new(&space, at);
        write_msi(&function, 0x50, 0xfee0_0000, 0x41);
        assert_eq!((function.read(0x54), function.read(0x58)), (0xfee0_0000, 0x41));
    }
}
