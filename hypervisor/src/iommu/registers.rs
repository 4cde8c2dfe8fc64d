//! Registers of a remapping unit (VT-d, chapter 11).
#![allow(unsafe_code)]

use crate::memory::address::Spa;

/// Offsets of registers.
pub mod offset {
    /// Capabilities.
    pub const CAPABILITY: u64 = 0x08;
    /// Extended capabilities.
    pub const EXTENDED_CAPABILITY: u64 = 0x10;
    /// Global command.
    pub const GLOBAL_COMMAND: u64 = 0x18;
    /// Global status.
    pub const GLOBAL_STATUS: u64 = 0x1c;
    /// Root table address.
    pub const ROOT_TABLE: u64 = 0x20;
    /// Context command.
    pub const CONTEXT_COMMAND: u64 = 0x28;
    /// Fault status.
    pub const FAULT_STATUS: u64 = 0x34;
    /// Fault event control.
    pub const FAULT_CONTROL: u64 = 0x38;
    /// Fault event data.
    pub const FAULT_DATA: u64 = 0x3c;
    /// Fault event address.
    pub const FAULT_ADDRESS: u64 = 0x40;
    /// Fault event upper address.
    pub const FAULT_UPPER_ADDRESS: u64 = 0x44;
    /// Protected memory enable.
    pub const PROTECTED_MEMORY: u64 = 0x64;
    /// Invalidation queue head.
    pub const QUEUE_HEAD: u64 = 0x80;
    /// Invalidation queue tail.
    pub const QUEUE_TAIL: u64 = 0x88;
    /// Invalidation queue address.
    pub const QUEUE_ADDRESS: u64 = 0x90;
    /// Interrupt remapping table address.
    pub const INTERRUPT_TABLE: u64 = 0xb8;
}

/// Bits of the global command and status registers.
pub mod global {
    /// DMA is translated.
    pub const TRANSLATION: u32 = 1 << 31;
    /// The root table is taken over.
    pub const ROOT_TABLE: u32 = 1 << 30;
    /// The write buffer is flushed.
    pub const WRITE_BUFFER: u32 = 1 << 27;
    /// Invalidations are queued.
    pub const QUEUE: u32 = 1 << 26;
    /// Interrupts are remapped.
    pub const INTERRUPTS: u32 = 1 << 25;
    /// The interrupt remapping table is taken over.
    pub const INTERRUPT_TABLE: u32 = 1 << 24;
    /// Interrupts in the old format pass.
    pub const COMPATIBILITY: u32 = 1 << 23;
    /// The bits that keep their value; the others of a command are done once.
    pub const KEPT: u32 = TRANSLATION | QUEUE | INTERRUPTS | COMPATIBILITY;
}

/// A way to a unit's registers.
pub trait Registers {
    /// Reads 32 bits.
    fn read32(&self, offset: u64) -> u32;
    /// Reads 64 bits.
    fn read64(&self, offset: u64) -> u64;
    /// Writes 32 bits.
    fn write32(&self, offset: u64, value: u32);
    /// Writes 64 bits.
    fn write64(&self, offset: u64, value: u64);
}

/// A unit's registers in memory.
#[derive(Clone, Copy, Debug)]
pub struct Mmio {
    base: Spa,
}

impl Mmio {
    /// The registers at `base`.
    ///
    /// # Safety
    /// A remapping unit is there, mapped as device memory up to the last of its registers, for good, and nobody else drives
    /// it.
    pub const unsafe fn new(base: Spa) -> Self {
        Self { base }
    }
}

impl Registers for Mmio {
    fn read32(&self, offset: u64) -> u32 {
        // SAFETY: `new`'s caller vouches for the registers.
        unsafe { ((self.base.0 + offset) as *const u32).read_volatile() }
    }

    fn read64(&self, offset: u64) -> u64 {
        // SAFETY: as above.
        unsafe { ((self.base.0 + offset) as *const u64).read_volatile() }
    }

    fn write32(&self, offset: u64, value: u32) {
        // SAFETY: as above; what the unit may reach is up to the tables that it is given.
        unsafe { ((self.base.0 + offset) as *mut u32).write_volatile(value) }
    }

    fn write64(&self, offset: u64, value: u64) {
        // SAFETY: as above.
        unsafe { ((self.base.0 + offset) as *mut u64).write_volatile(value) }
    }
}
