//! PCI: configuration space, enumeration, message-signalled interrupts.
//!
//! Written here and not taken from `pci_types`, because that crate panics on a BAR of a reserved type and follows a
//! capability list that is a circle for ever: a device must not be able to stop the root.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | access to configuration space, memory-mapped or by ports |
//! | [`function`] | one function: BARs and capabilities |
//! | [`msi`] | MSI and MSI-X |
//! | [`scan`] | finding the functions |

pub mod config;
pub mod function;
pub mod msi;
pub mod scan;

use core::fmt;

/// Address of a function.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Address {
    /// Segment group.
    pub segment: u16,
    /// Bus.
    pub bus: u8,
    /// Device in bits 7:3, function in bits 2:0.
    pub slot: u8,
}

impl Address {
    /// Device, 0 to 31.
    pub const fn device(self) -> u8 {
        self.slot >> 3
    }

    /// Function, 0 to 7.
    pub const fn function(self) -> u8 {
        self.slot & 7
    }

    /// Bus, device and function in one word, as hypercalls and the IOMMU want them.
    pub const fn rid(self) -> u16 {
        (self.bus as u16) << 8 | self.slot as u16
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04x}:{:02x}:{:02x}.{}",
            self.segment,
            self.bus,
            self.device(),
            self.function()
        )
    }
}
