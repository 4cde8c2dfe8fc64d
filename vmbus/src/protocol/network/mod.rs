//! Messages of the network card: NVSP on the channel, RNDIS inside it, NDIS structures inside that.
//!
//! | module | what it is |
//! |---|---|
//! | [`nvsp`] | versions, shared buffers, sub-channels; carries RNDIS messages |
//! | [`rndis`] | requests and packets, with offsets that count from the ninth byte |
//! | [`oid`] | what can be asked and set |
//! | [`packet_info`] | what travels beside a packet: checksums, segmentation, VLAN, hash |
//! | [`offload`] | which work on packets the card can do |
//! | [`scale`] | receive-side scaling |

pub mod nvsp;
pub mod offload;
pub mod oid;
pub mod packet_info;
pub mod rndis;
pub mod scale;

use core::fmt;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A hardware address.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Everybody.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether it names a group, or everybody.
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether a card can have it.
    pub fn is_station(self) -> bool {
        !self.is_group() && self.0 != [0; 6]
    }

    /// Reads `aa:bb:cc:dd:ee:ff`, `aa-bb-…` or `aabbccddeeff`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut digits = text.chars().filter(|&c| c != ':' && c != '-');
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            let (high, low) = (digits.next()?.to_digit(16)?, digits.next()?.to_digit(16)?);
            *byte = (high << 4 | low) as u8;
        }
        digits.next().is_none().then_some(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes of an Ethernet header without a VLAN tag.
pub const ETHERNET_HEADER: usize = 14;
/// The largest payload of a frame that a card can be set to carry.
pub const MAX_MTU: u32 = 9000;
/// The usual one.
pub const DEFAULT_MTU: u32 = 1500;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        let mac = Mac([0x00, 0x15, 0x5d, 0xab, 0x01, 0xff]);
        assert_eq!(mac.to_string(), "00:15:5d:ab:01:ff");
        for text in ["00:15:5d:ab:01:ff", "00-15-5D-AB-01-FF", "00155dab01ff"] {
            assert_eq!(Mac::parse(text), Some(mac));
        }
        for text in ["", "00:15:5d:ab:01", "00:15:5d:ab:01:ff:00", "00:15:5d:ab:01:fg"] {
            assert_eq!(Mac::parse(text), None);
        }
    }
}
