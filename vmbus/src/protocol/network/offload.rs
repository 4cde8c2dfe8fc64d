//! Which work on packets the card can do, and which of it is switched on.

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Before each NDIS structure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ObjectHeader {
    /// What the structure is.
    pub object_type: u8,
    /// Which form of it.
    pub revision: u8,
    /// Its bytes.
    pub size: u16,
}

/// Type of [`OffloadParameters`].
pub const OBJECT_DEFAULT: u8 = 0x80;
/// Type of [`Offload`].
pub const OBJECT_OFFLOAD: u8 = 0xa7;
/// Segmentation works on plain Ethernet frames.
pub const ENCAPSULATION_ETHERNET: u32 = 2;

bitflags! {
    /// Checksums of IPv4 packets that are worked out or checked.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Checksum4: u32 {
        /// With options in the IP header.
        const IP_OPTIONS = 0x001;
        /// TCP's, with options.
        const TCP_OPTIONS = 0x004;
        /// TCP's.
        const TCP = 0x010;
        /// UDP's.
        const UDP = 0x040;
        /// The header's.
        const IP = 0x100;
    }

    /// Checksums of IPv6 packets that are worked out or checked.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Checksum6: u32 {
        /// With extension headers.
        const EXTENSIONS = 0x001;
        /// TCP's, with options.
        const TCP_OPTIONS = 0x004;
        /// TCP's.
        const TCP = 0x010;
        /// UDP's.
        const UDP = 0x040;
    }
}

/// IPv6 segmentation with extension headers and with TCP options.
pub const LARGE_SEND_6_ALL: u32 = 0x001 | 0x004;

macro_rules! structures {
    ($($(#[$doc:meta])* $name:ident, $size:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
        const _: () = assert!(size_of::<$name>() == $size);
    )*};
}

structures! {
    /// Checksums: for each direction and kind of packet, the encapsulations and what is worked out.
    ChecksumOffload, 32 {
        /// Sent IPv4: encapsulations.
        send_4_encapsulation: u32,
        /// Sent IPv4: [`Checksum4`].
        send_4: u32,
        /// Received IPv4.
        receive_4_encapsulation: u32,
        /// Received IPv4: [`Checksum4`].
        receive_4: u32,
        /// Sent IPv6.
        send_6_encapsulation: u32,
        /// Sent IPv6: [`Checksum6`].
        send_6: u32,
        /// Received IPv6.
        receive_6_encapsulation: u32,
        /// Received IPv6: [`Checksum6`].
        receive_6: u32,
    }
    /// Segmentation, second version.
    LargeSendOffload, 28 {
        /// IPv4: encapsulations, 0 for none.
        encapsulation_4: u32,
        /// IPv4: bytes at most.
        max_size_4: u32,
        /// IPv4: segments at least.
        min_segments_4: u32,
        /// IPv6: encapsulations, 0 for none.
        encapsulation_6: u32,
        /// IPv6: bytes at most.
        max_size_6: u32,
        /// IPv6: segments at least.
        min_segments_6: u32,
        /// IPv6: [`LARGE_SEND_6_ALL`].
        options_6: u32,
    }
    /// All work that a card can do. Shorter before NDIS 6.30 ([`Offload::SIZE_6_1`]) and 6.1 ([`Offload::SIZE_6_0`]).
    Offload, 156 {
        /// [`OBJECT_OFFLOAD`].
        header: ObjectHeader,
        /// Checksums.
        checksum: ChecksumOffload,
        /// Segmentation, first version: none.
        large_send_1: [u32; 4],
        /// IPsec, first version: none.
        ipsec_1: [u32; 7],
        /// Segmentation.
        large_send: LargeSendOffload,
        /// Zero.
        flags: u32,
        /// IPsec, second version: none.
        ipsec_2: [u32; 8],
        /// Coalescing of received IPv4 segments.
        coalesce_4: u8,
        /// Of IPv6.
        coalesce_6: u8,
        /// Nothing.
        padding: u16,
        /// Tunnels: none.
        tunnels: [u32; 2],
    }
    /// What is switched on. Shorter ([`OffloadParameters::SIZE_4`]) for NVSP up to 4.
    OffloadParameters, 28 {
        /// [`OBJECT_DEFAULT`].
        header: ObjectHeader,
        /// [`Setting`] of the IPv4 header's checksum.
        ip_checksum: Setting,
        /// Of TCP's over IPv4.
        tcp_4_checksum: Setting,
        /// Of UDP's over IPv4.
        udp_4_checksum: Setting,
        /// Of TCP's over IPv6.
        tcp_6_checksum: Setting,
        /// Of UDP's over IPv6.
        udp_6_checksum: Setting,
        /// Unused.
        large_send_1: Setting,
        /// Unused.
        ipsec_1: Setting,
        /// Of segmentation, IPv4.
        large_send_4: Setting,
        /// Of segmentation, IPv6.
        large_send_6: Setting,
        /// Unused.
        connection_4: Setting,
        /// Unused.
        connection_6: Setting,
        /// Nothing.
        padding: u8,
        /// Zero.
        flags: u32,
        /// Unused.
        ipsec_2: [Setting; 2],
        /// Of coalescing, IPv4.
        coalesce_4: Setting,
        /// Of coalescing, IPv6.
        coalesce_6: Setting,
        /// Unused.
        tunnels: [u8; 2],
        /// Nothing.
        padding_2: [u8; 2],
    }
}

impl Offload {
    /// Bytes up to NDIS 6.0.
    pub const SIZE_6_0: usize = 112;
    /// Bytes up to NDIS 6.1.
    pub const SIZE_6_1: usize = 144;
}
const _: () = assert!(core::mem::offset_of!(Offload, ipsec_2) == Offload::SIZE_6_0);
const _: () = assert!(core::mem::offset_of!(Offload, coalesce_4) == Offload::SIZE_6_1);
const _: () = assert!(core::mem::offset_of!(OffloadParameters, flags) == 16);

impl OffloadParameters {
    /// Bytes for NVSP up to 4.
    pub const SIZE_4: usize = 22;
}

/// Whether something is switched on; the meaning of 2 to 4 differs between checksums and the rest. An open set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Setting(pub u8);

impl Setting {
    /// As it was.
    pub const NO_CHANGE: Self = Self(0);
    /// Off.
    pub const DISABLED: Self = Self(1);
    /// On; of checksums: of what is sent.
    pub const ENABLED: Self = Self(2);
    /// Of checksums: of what is received.
    pub const RECEIVE_ENABLED: Self = Self(3);
    /// Of checksums: both ways.
    pub const BOTH_ENABLED: Self = Self(4);

    /// What it makes of `now`, for what is on or off; `None` for a number without a meaning.
    pub const fn apply(self, now: bool) -> Option<bool> {
        match self {
            Self::NO_CHANGE => Some(now),
            Self::DISABLED => Some(false),
            Self::ENABLED => Some(true),
            _ => None,
        }
    }

    /// What it makes of (sent, received), for checksums.
    pub const fn apply_checksum(self, now: (bool, bool)) -> Option<(bool, bool)> {
        match self {
            Self::NO_CHANGE => Some(now),
            Self::DISABLED => Some((false, false)),
            Self::ENABLED => Some((true, false)),
            Self::RECEIVE_ENABLED => Some((false, true)),
            Self::BOTH_ENABLED => Some((true, true)),
            _ => None,
        }
    }
}
