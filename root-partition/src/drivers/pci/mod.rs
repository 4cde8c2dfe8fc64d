//! PCI: configuration space, enumeration, message-signalled interrupts.
//!
//! Written here and not taken from `pci_types`, because that crate panics on a BAR of a reserved type and follows a
//! capability list that is a circle for ever: a device must not be able to stop the root.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | access to configuration space, memory-mapped or by ports |
//! | [`device`] | one function's registers, for its driver |
//! | [`function`] | one function: BARs and capabilities |
//! | [`msi`] | MSI and MSI-X |
//! | [`requester`] | by which id the IOMMU knows a function |
//! | [`reset`] | resetting one |
//! | [`scan`] | finding the functions |

pub mod config;
pub mod device;
pub mod function;
pub mod msi;
pub mod requester;
pub mod reset;
pub mod scan;

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

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

/// Why a text is no address of a function.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{0}' is no device: give its address as 'dev list' shows it, as in 0000:00:03.0")]
pub struct NoAddress(String);

impl FromStr for Address {
    type Err = NoAddress;

    /// `0000:00:03.0`, or without the segment where that is 0.
    fn from_str(text: &str) -> Result<Self, NoAddress> {
        let number = |digits: &str, most: u16| {
            let parsed = u16::from_str_radix(digits, 16).ok();
            parsed.filter(|number| *number <= most && !digits.starts_with('+'))
        };
        let parse = || {
            let (place, function) = text.rsplit_once('.')?;
            let (place, device) = place.rsplit_once(':')?;
            let (segment, bus) = place.rsplit_once(':').unwrap_or(("0", place));
            Some(Self {
                segment: number(segment, u16::MAX)?,
                bus: number(bus, 0xff)? as u8,
                slot: (number(device, 31)? << 3 | number(function, 7)?) as u8,
            })
        };
        parse().ok_or_else(|| NoAddress(String::from(text)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        let address = Address {
            segment: 1,
            bus: 0xaf,
            slot: 0x1f << 3 | 7,
        };
        assert_eq!(address.to_string().parse(), Ok(address));
        assert_eq!(
            "af:1f.7".parse(),
            Ok(Address {
                segment: 0,
                ..address
            })
        );
        for text in [
            "",
            "3",
            "0.0",
            "00:20.0",
            "00:03.8",
            "100:03.0",
            "00:+3.0",
            "0:0:0:0.0",
            "00:03.0 ",
        ] {
            assert_eq!(text.parse::<Address>(), Err(NoAddress(text.to_string())));
        }
    }
}
