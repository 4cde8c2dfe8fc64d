//! What can be asked of a card and set (NDIS object identifiers).

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Names something that can be asked or set. An open set.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Oid(pub u32);

macro_rules! oids {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        impl Oid {
            $($(#[$doc])* pub const $name: Self = Self($number);)*
        }

        impl core::fmt::Debug for Oid {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match *self {
                    $(Self::$name => f.write_str(stringify!($name)),)*
                    Self(other) => write!(f, "{other:#010x}"),
                }
            }
        }
    };
}

oids! {
    /// All that can be asked.
    SUPPORTED_LIST = 0x0001_0101;
    /// 0: ready.
    HARDWARE_STATUS = 0x0001_0102;
    /// 0: Ethernet.
    MEDIA_SUPPORTED = 0x0001_0103;
    /// 0: Ethernet.
    MEDIA_IN_USE = 0x0001_0104;
    /// MTU.
    MAXIMUM_FRAME_SIZE = 0x0001_0106;
    /// In units of 100 bits a second.
    LINK_SPEED = 0x0001_0107;
    /// Bytes.
    TRANSMIT_BLOCK_SIZE = 0x0001_010a;
    /// Bytes.
    RECEIVE_BLOCK_SIZE = 0x0001_010b;
    /// Three bytes of the maker's addresses, and one of its own.
    VENDOR_ID = 0x0001_010c;
    /// Text that ends with a zero.
    VENDOR_DESCRIPTION = 0x0001_010d;
    /// [`PacketFilter`].
    CURRENT_PACKET_FILTER = 0x0001_010e;
    /// Bytes.
    CURRENT_LOOKAHEAD = 0x0001_010f;
    /// MTU and header.
    MAXIMUM_TOTAL_SIZE = 0x0001_0111;
    /// [`MEDIA_CONNECTED`] or not.
    MEDIA_CONNECT_STATUS = 0x0001_0114;
    /// Packets in one message at most.
    MAXIMUM_SEND_PACKETS = 0x0001_0115;
    /// [`ReceiveScaleCapabilities`](super::scale::ReceiveScaleCapabilities).
    RECEIVE_SCALE_CAPABILITIES = 0x0001_0203;
    /// [`ReceiveScaleParameters`](super::scale::ReceiveScaleParameters).
    RECEIVE_SCALE_PARAMETERS = 0x0001_0204;
    /// A parameter of the driver's configuration: the address.
    RNDIS_CONFIGURATION_PARAMETER = 0x0001_021b;
    /// Frames sent.
    TRANSMIT_OK = 0x0002_0101;
    /// Frames received.
    RECEIVE_OK = 0x0002_0102;
    /// Frames that could not be sent.
    TRANSMIT_ERROR = 0x0002_0103;
    /// Frames that came broken.
    RECEIVE_ERROR = 0x0002_0104;
    /// Frames that found no room.
    RECEIVE_NO_BUFFER = 0x0002_0105;
    /// What a person calls the card (UTF-16).
    FRIENDLY_NAME = 0x0002_0216;
    /// The address it was made with.
    PERMANENT_ADDRESS = 0x0101_0101;
    /// The address it uses.
    CURRENT_ADDRESS = 0x0101_0102;
    /// The groups that it takes.
    MULTICAST_LIST = 0x0101_0103;
    /// How many those can be.
    MAXIMUM_LIST_SIZE = 0x0101_0104;
    /// [`Offload`](super::offload::Offload) as it is set.
    OFFLOAD_CURRENT = 0xfc01_020b;
    /// [`OffloadParameters`](super::offload::OffloadParameters).
    OFFLOAD_PARAMETERS = 0xfc01_020c;
    /// [`Offload`](super::offload::Offload) as it could be.
    OFFLOAD_CAPABILITIES = 0xfc01_020d;
}

/// Value of [`Oid::MEDIA_CONNECT_STATUS`] of a card with a link.
pub const MEDIA_CONNECTED: u32 = 0;
/// And without.
pub const MEDIA_DISCONNECTED: u32 = 1;

bitflags! {
    /// Which frames a guest takes.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct PacketFilter: u32 {
        /// To the card.
        const DIRECTED = 1 << 0;
        /// To groups that are on its list.
        const MULTICAST = 1 << 1;
        /// To any group.
        const ALL_MULTICAST = 1 << 2;
        /// To everybody.
        const BROADCAST = 1 << 3;
        /// To anybody.
        const PROMISCUOUS = 1 << 5;
    }
}
