//! Device registers in memory.
#![allow(unsafe_code)]

use super::address_space;
use super::paging::PagingError;

/// A window of device registers. Each access is one instruction, aligned, and inside the window.
#[derive(Clone, Copy, Debug)]
pub struct Registers {
    base: u64,
    size: u64,
}

impl Registers {
    /// The registers at `base`, made reachable. Refused where RAM is in the range, so that no device and no table can make
    /// the root write over its own memory.
    pub fn map(base: u64, size: u64) -> Result<Self, PagingError> {
        let end = base.saturating_add(size);
        if !base.is_multiple_of(8) || address_space::has_ram(&(base..end)) {
            return Err(PagingError::BadRange { start: base, end });
        }
        address_space::map_device(base..end)?;
        Ok(Self { base, size })
    }

    /// Bytes of the window.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Reads the 32-bit register at `offset`.
    ///
    /// # Panics
    /// Where `offset` is not aligned or outside the window.
    pub fn read(&self, offset: u64) -> u32 {
        // SAFETY: `address` checked that it is inside the window, where `map` found no RAM and made everything reachable.
        unsafe { (self.address(offset) as *const u32).read_volatile() }
    }

    /// Writes the 32-bit register at `offset`.
    ///
    /// # Panics
    /// Where `offset` is not aligned or outside the window.
    pub fn write(&self, offset: u64, value: u32) {
        // SAFETY: as for `read`; what the device does is its driver's business.
        unsafe { (self.address(offset) as *mut u32).write_volatile(value) };
    }

    fn address(&self, offset: u64) -> u64 {
        assert!(
            offset.is_multiple_of(4) && offset < self.size && self.size - offset >= 4,
            "register {offset:#x} of {:#x}",
            self.size
        );
        self.base + offset
    }
}
