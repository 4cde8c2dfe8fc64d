//! What travels beside a packet: a row of [`InfoHeader`]s, each with its value.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a value means. An open set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct InfoType(pub u32);

impl InfoType {
    /// [`SendChecksum`] or [`ReceiveChecksum`].
    pub const CHECKSUM: Self = Self(0);
    /// [`LargeSend`].
    pub const LARGE_SEND: Self = Self(2);
    /// [`VlanTag`].
    pub const VLAN: Self = Self(6);
    /// The hash of the flow, a `u32`.
    pub const HASH_VALUE: Self = Self(8);
    /// [`Fragment`]: the top bit says that it is the host's own and not NDIS'.
    pub const FRAGMENT: Self = Self(1 | 1 << 31);
}

/// Before each value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InfoHeader {
    /// Bytes of this header and the value.
    pub size: u32,
    /// What the value means.
    pub info_type: InfoType,
    /// Where the value begins, from this header's begin.
    pub offset: u32,
}
const _: () = assert!(size_of::<InfoHeader>() == 12);

/// A header with a value of four bytes, as all are that a network card uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Info {
    /// The header.
    pub header: InfoHeader,
    /// The value.
    pub value: u32,
}
const _: () = assert!(size_of::<Info>() == 16);

impl Info {
    /// A value with its header.
    pub const fn new(info_type: InfoType, value: u32) -> Self {
        Self {
            header: InfoHeader {
                size: size_of::<Self>() as u32,
                info_type,
                offset: size_of::<InfoHeader>() as u32,
            },
            value,
        }
    }
}

/// Values of one packet at most; a longer row is not read on.
pub const MAX_INFOS: usize = 16;

/// The four-byte values in `bytes`. Ends at the first that makes no sense, and after [`MAX_INFOS`].
pub fn iter(bytes: &[u8]) -> impl Iterator<Item = (InfoType, u32)> + '_ {
    let mut rest = bytes;
    core::iter::from_fn(move || {
        let (header, _) = InfoHeader::read_from_prefix(rest).ok()?;
        let (size, offset) = (header.size as usize, header.offset as usize);
        if size < size_of::<InfoHeader>() || offset < size_of::<InfoHeader>() {
            return None;
        }
        let own = rest.get(..size)?;
        let (value, _) = u32::read_from_prefix(own.get(offset..)?).ok()?;
        rest = rest.get(size..)?;
        Some((header.info_type, value))
    })
    .take(MAX_INFOS)
}

/// Checksums that are to be filled in while sending.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SendChecksum(pub u32);

impl SendChecksum {
    /// The packet is IPv4.
    pub const IPV4: u32 = 1 << 0;
    /// The packet is IPv6.
    pub const IPV6: u32 = 1 << 1;
    /// Fill in TCP's.
    pub const TCP: u32 = 1 << 2;
    /// Fill in UDP's.
    pub const UDP: u32 = 1 << 3;
    /// Fill in that of the IPv4 header.
    pub const IP_HEADER: u32 = 1 << 4;

    /// `flags`, with the transport header at `offset` in the frame.
    pub const fn new(flags: u32, offset: u16) -> Self {
        Self(flags | (offset as u32 & 0x3ff) << 16)
    }

    /// Whether `flag` is set.
    pub const fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }

    /// Where the transport header begins in the frame.
    pub const fn transport_offset(self) -> usize {
        (self.0 >> 16 & 0x3ff) as usize
    }
}

/// What is known of the checksums of a received packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReceiveChecksum(pub u32);

impl ReceiveChecksum {
    /// TCP's is wrong.
    pub const TCP_FAILED: u32 = 1 << 0;
    /// UDP's is wrong.
    pub const UDP_FAILED: u32 = 1 << 1;
    /// The IPv4 header's is wrong.
    pub const IP_FAILED: u32 = 1 << 2;
    /// TCP's is right.
    pub const TCP_SUCCEEDED: u32 = 1 << 3;
    /// UDP's is right.
    pub const UDP_SUCCEEDED: u32 = 1 << 4;
    /// The IPv4 header's is right.
    pub const IP_SUCCEEDED: u32 = 1 << 5;
    /// TCP's field does not hold it, but the data was never in danger or was checked.
    pub const TCP_VALUE_INVALID: u32 = 1 << 7;
    /// The same of the IPv4 header.
    pub const IP_VALUE_INVALID: u32 = 1 << 8;

    /// Whether `flag` is set.
    pub const fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }
}

/// A packet that is to be cut into segments while sending (large send offload, version 2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LargeSend(pub u32);

impl LargeSend {
    /// Segments of `mss` bytes, with the TCP header at `offset` in the frame.
    pub const fn new(mss: u32, offset: u16, ipv6: bool) -> Self {
        Self(mss & 0xf_ffff | (offset as u32 & 0x3ff) << 20 | 1 << 30 | (ipv6 as u32) << 31)
    }

    /// Data bytes of a segment.
    pub const fn mss(self) -> u32 {
        self.0 & 0xf_ffff
    }

    /// Where the TCP header begins in the frame.
    pub const fn transport_offset(self) -> usize {
        (self.0 >> 20 & 0x3ff) as usize
    }

    /// Whether it is version 2; the first is not offered.
    pub const fn is_version_2(self) -> bool {
        self.0 & 1 << 30 != 0
    }

    /// Whether the packet is IPv6.
    pub const fn is_ipv6(self) -> bool {
        self.0 & 1 << 31 != 0
    }
}

/// A VLAN tag beside the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VlanTag(pub u32);

impl VlanTag {
    /// From the two bytes that a tag in the frame has.
    pub const fn from_tci(tci: u16) -> Self {
        Self((tci >> 13) as u32 | ((tci >> 12 & 1) as u32) << 3 | (tci as u32 & 0xfff) << 4)
    }

    /// As the two bytes that a tag in the frame has.
    pub const fn tci(self) -> u16 {
        ((self.0 & 7) << 13 | (self.0 >> 3 & 1) << 12 | self.0 >> 4 & 0xfff) as u16
    }
}

/// Which piece of a coalesced packet this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment(pub u32);

impl Fragment {
    /// Pieces come in parts of the receive buffer.
    pub const SUB_ALLOCATED: u32 = 1 << 8;
    /// The first.
    pub const FIRST: u32 = 1 << 9;
    /// The last.
    pub const LAST: u32 = 1 << 10;

    /// A piece with `flags` of packet `id`.
    pub const fn new(flags: u32, id: u16) -> Self {
        // Version 1, flags, id.
        Self(1 | flags | (id as u32) << 16)
    }

    /// Whether `flag` is set.
    pub const fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn values_are_found_in_a_row() {
        let row = [Info::new(InfoType::CHECKSUM, 5), Info::new(InfoType::VLAN, 6)];
        let seen: Vec<_> = iter(row.as_bytes()).collect();
        assert_eq!(seen, [(InfoType::CHECKSUM, 5), (InfoType::VLAN, 6)]);
    }

    #[test]
    fn a_row_that_loops_or_lies_ends() {
        let mut row = [Info::new(InfoType::CHECKSUM, 5); 3];
        for (size, offset, count) in [
            (0, 12, 0),
            (11, 12, 0),
            (16, 11, 0),
            (16, 13, 0),
            (400, 12, 0),
            (16, 12, 3),
        ] {
            row[0].header.size = size;
            row[0].header.offset = offset;
            assert_eq!(iter(row.as_bytes()).count(), count, "{size} {offset}");
        }
        let long = [Info::new(InfoType::CHECKSUM, 0); 40];
        assert_eq!(iter(long.as_bytes()).count(), MAX_INFOS);
    }

    #[test]
    fn fields_lie_where_ndis_puts_them() {
        let checksum = SendChecksum::new(SendChecksum::IPV4 | SendChecksum::TCP, 34);
        assert_eq!((checksum.0, checksum.transport_offset()), (0x0022_0005, 34));
        let large = LargeSend::new(1460, 34, true);
        assert_eq!((large.mss(), large.transport_offset()), (1460, 34));
        assert!(large.is_version_2() && large.is_ipv6());
        // Priority 5, VLAN 100.
        let tag = VlanTag::from_tci(0xa064);
        assert_eq!((tag.0, tag.tci()), (0x645, 0xa064));
        assert_eq!(VlanTag::from_tci(0xffff).tci(), 0xffff);
    }
}
