//! The header of a frame, as the switch reads it.

use vmbus::protocol::network::{ETHERNET_HEADER, Mac};

/// Bytes of a frame that the switch looks at, at most: Ethernet, VLAN tag, IPv6 with a few extensions, UDP.
pub const HEADER_BYTES: usize = 128;

/// Kind of payload: a VLAN tag.
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;

/// What a frame begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// To whom.
    pub destination: Mac,
    /// From whom.
    pub source: Mac,
    /// VLAN tag, from beside the frame or from inside it.
    pub tag: Option<u16>,
    /// The tag is inside.
    pub tag_in_frame: bool,
    /// Kind of payload.
    pub ethertype: u16,
    /// Where the payload begins.
    pub payload: usize,
}

impl FrameHeader {
    /// Reads it; `None` if the frame is too short, or has a tag both beside it and inside.
    #[inline]
    pub fn read(bytes: &[u8], tag: Option<u16>) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<ETHERNET_HEADER>()?;
        let &[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = header;
        let mut ethertype = u16::from_be_bytes([t0, t1]);
        let (mut inner, mut payload) = (None, ETHERNET_HEADER);
        if ethertype == ETHERTYPE_VLAN {
            let &[c0, c1, e0, e1] = rest.first_chunk()?;
            inner = Some(u16::from_be_bytes([c0, c1]));
            ethertype = u16::from_be_bytes([e0, e1]);
            payload += 4;
            // Two tags would let a frame hop to another VLAN where one is taken off.
            if tag.is_some() || ethertype == ETHERTYPE_VLAN {
                return None;
            }
        }
        Some(Self {
            destination: Mac([d0, d1, d2, d3, d4, d5]),
            source: Mac([s0, s1, s2, s3, s4, s5]),
            tag: tag.or(inner),
            tag_in_frame: inner.is_some(),
            ethertype,
            payload,
        })
    }
}

/// Bytes of a frame where a tag lies, if it holds one.
pub const TAG: core::ops::Range<usize> = 12..16;

/// The two parts of a frame's first bytes, without the tag inside it.
pub fn cut_tag(bytes: &[u8]) -> (&[u8], &[u8]) {
    match (bytes.get(..TAG.start), bytes.get(TAG.end..)) {
        (Some(addresses), Some(rest)) => (addresses, rest),
        _ => (bytes, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_in_the_frame_or_beside_it_but_not_twice() {
        let mut bytes = [0u8; 60];
        bytes[..6].copy_from_slice(&[0xff; 6]);
        bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        bytes[12..18].copy_from_slice(&[0x81, 0, 0x20, 5, 0x08, 0]);
        let header = FrameHeader::read(&bytes, None).unwrap();
        assert_eq!(
            (header.tag, header.ethertype, header.payload),
            (Some(0x2005), ETHERTYPE_IPV4, 18)
        );
        assert_eq!(FrameHeader::read(&bytes, Some(1)), None);
        bytes[16..18].copy_from_slice(&[0x81, 0]);
        assert_eq!(FrameHeader::read(&bytes, None), None);
        bytes[12..14].copy_from_slice(&[0x86, 0xdd]);
        let header = FrameHeader::read(&bytes, Some(7)).unwrap();
        assert_eq!(
            (header.tag, header.tag_in_frame, header.payload),
            (Some(7), false, 14)
        );
        assert_eq!(FrameHeader::read(&bytes[..13], None), None);
    }
}
