//! NVSP: the messages of the channel itself. A message is its type and a body; all are sent padded to [`MESSAGE_SIZE`].

use crate::protocol::id::GpadlId;
use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a message as Linux sends it; a receiver takes shorter and longer ones.
pub const MESSAGE_SIZE: usize = 40;

/// A version of the protocol; the newer is greater.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct Version(pub u32);

impl Version {
    /// The oldest.
    pub const V1: Self = Self(2);
    /// NDIS configuration.
    pub const V2: Self = Self(0x30002);
    /// Virtual functions.
    pub const V4: Self = Self(0x40000);
    /// Several queues.
    pub const V5: Self = Self(0x50000);
    /// Newer.
    pub const V6: Self = Self(0x60000);
    /// Coalescing of received segments.
    pub const V6_1: Self = Self(0x60001);
    /// All, the newest first.
    pub const ALL: [Self; 6] = [Self::V6_1, Self::V6, Self::V5, Self::V4, Self::V2, Self::V1];

    /// Whether cards of this version have sub-channels.
    pub fn has_queues(self) -> bool {
        self >= Self::V5
    }
}

/// What a message is. An open set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct MessageType(pub u32);

impl MessageType {
    /// Guest: versions that it takes ([`Init`]).
    pub const INIT: Self = Self(1);
    /// Host: the answer ([`InitComplete`]).
    pub const INIT_COMPLETE: Self = Self(2);
    /// Guest: version of NDIS ([`NdisVersion`]); no answer.
    pub const SEND_NDIS_VERSION: Self = Self(100);
    /// Guest: where the host puts received packets ([`SharedBuffer`]).
    pub const SEND_RECEIVE_BUFFER: Self = Self(101);
    /// Host: how it is divided ([`ReceiveBufferComplete`]).
    pub const SEND_RECEIVE_BUFFER_COMPLETE: Self = Self(102);
    /// Guest: takes it back ([`RevokeBuffer`]).
    pub const REVOKE_RECEIVE_BUFFER: Self = Self(103);
    /// Guest: where it puts small packets to send ([`SharedBuffer`]).
    pub const SEND_SEND_BUFFER: Self = Self(104);
    /// Host: how it is divided ([`SendBufferComplete`]).
    pub const SEND_SEND_BUFFER_COMPLETE: Self = Self(105);
    /// Guest: takes it back ([`RevokeBuffer`]).
    pub const REVOKE_SEND_BUFFER: Self = Self(106);
    /// Both: an RNDIS message ([`RndisPacket`]).
    pub const SEND_RNDIS_PACKET: Self = Self(107);
    /// Both: it was taken ([`RndisPacketComplete`]).
    pub const SEND_RNDIS_PACKET_COMPLETE: Self = Self(108);
    /// Guest: MTU and abilities ([`NdisConfiguration`]); no answer.
    pub const SEND_NDIS_CONFIGURATION: Self = Self(125);
    /// Host: a virtual function for the card.
    pub const SEND_VF_ASSOCIATION: Self = Self(128);
    /// Guest: uses the virtual function, or not ([`SwitchDataPath`]); answered by an empty completion.
    pub const SWITCH_DATA_PATH: Self = Self(129);
    /// Guest: asks for sub-channels, and host: how many come ([`SubchannelRequest`], [`SubchannelComplete`]).
    pub const SUBCHANNEL: Self = Self(133);
    /// Host: on which channel to send what ([`IndirectionTable`]).
    pub const SEND_INDIRECTION_TABLE: Self = Self(134);
}

/// How a request ended. An open set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Status(pub u32);

impl Status {
    /// Nothing said.
    pub const NONE: Self = Self(0);
    /// Done.
    pub const SUCCESS: Self = Self(1);
    /// Not done.
    pub const FAIL: Self = Self(2);
    /// The packet is not a good RNDIS message.
    pub const INVALID_RNDIS_PACKET: Self = Self(5);
    /// Not now.
    pub const BUSY: Self = Self(6);
    /// Not this version.
    pub const PROTOCOL_UNSUPPORTED: Self = Self(7);
}

macro_rules! bodies {
    ($($(#[$doc:meta])* $name:ident, $size:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
        const _: () = assert!(size_of::<$name>() == $size && size_of::<$name>() + 4 <= MESSAGE_SIZE);
    )*};
}

bodies! {
    /// Body of [`MessageType::INIT`].
    Init, 8 {
        /// The oldest version that the guest takes.
        min: Version,
        /// The newest.
        max: Version,
    }
    /// Body of [`MessageType::INIT_COMPLETE`].
    InitComplete, 12 {
        /// What holds from now on.
        version: Version,
        /// Pieces of a packet at most.
        max_chain: u32,
        /// Anything but success: try another version.
        status: Status,
    }
    /// Body of [`MessageType::SEND_NDIS_VERSION`].
    NdisVersion, 8 {
        /// 6.
        major: u32,
        /// 1 or 30.
        minor: u32,
    }
    /// Body of [`MessageType::SEND_NDIS_CONFIGURATION`].
    NdisConfiguration, 16 {
        /// MTU and the Ethernet header.
        frame_size: u32,
        /// Zero.
        reserved: u32,
        /// [`Capabilities`], low half.
        capabilities: u32,
        /// High half.
        capabilities_high: u32,
    }
    /// Body of [`MessageType::SEND_RECEIVE_BUFFER`] and [`MessageType::SEND_SEND_BUFFER`].
    SharedBuffer, 8 {
        /// Its pages.
        gpadl: GpadlId,
        /// [`RECEIVE_BUFFER_ID`] or [`SEND_BUFFER_ID`].
        id: u16,
        /// Nothing.
        padding: u16,
    }
    /// Body of [`MessageType::SEND_RECEIVE_BUFFER_COMPLETE`] with one section, which is all that Linux takes.
    ReceiveBufferComplete, 24 {
        /// How it ended.
        status: Status,
        /// 1.
        sections: u32,
        /// Where the section begins: 0.
        offset: u32,
        /// Bytes of a part.
        part_size: u32,
        /// Parts.
        parts: u32,
        /// Where the section ends.
        end_offset: u32,
    }
    /// Body of [`MessageType::SEND_SEND_BUFFER_COMPLETE`].
    SendBufferComplete, 8 {
        /// How it ended.
        status: Status,
        /// Bytes of a part.
        part_size: u32,
    }
    /// Body of [`MessageType::REVOKE_RECEIVE_BUFFER`] and [`MessageType::REVOKE_SEND_BUFFER`].
    RevokeBuffer, 4 {
        /// Which.
        id: u16,
        /// Nothing.
        padding: u16,
    }
    /// Body of [`MessageType::SEND_RNDIS_PACKET`].
    RndisPacket, 12 {
        /// Data or control.
        channel: RndisChannel,
        /// Part of the send buffer that holds the message, or [`NO_PART`]: then it is in the packet's ranges.
        part: u32,
        /// Bytes in that part.
        part_length: u32,
    }
    /// Body of [`MessageType::SEND_RNDIS_PACKET_COMPLETE`].
    RndisPacketComplete, 4 {
        /// How it ended.
        status: Status,
    }
    /// Body of [`MessageType::SWITCH_DATA_PATH`].
    SwitchDataPath, 4 {
        /// 0 synthetic, 1 the virtual function.
        active: u32,
    }
    /// Body of [`MessageType::SUBCHANNEL`] from the guest.
    SubchannelRequest, 8 {
        /// [`SUBCHANNEL_ALLOCATE`].
        operation: u32,
        /// How many more channels it wants.
        count: u32,
    }
    /// Body of [`MessageType::SUBCHANNEL`] from the host.
    SubchannelComplete, 8 {
        /// How it ended.
        status: Status,
        /// How many come.
        count: u32,
    }
    /// Body of [`MessageType::SEND_INDIRECTION_TABLE`]; the table of `u32` follows.
    IndirectionTable, 8 {
        /// Entries.
        count: u32,
        /// Where the table begins, counted from the message's type.
        offset: u32,
    }
}

/// Which of the two kinds of RNDIS messages a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct RndisChannel(pub u32);

impl RndisChannel {
    /// Packets.
    pub const DATA: Self = Self(0);
    /// Requests.
    pub const CONTROL: Self = Self(1);
}

bitflags! {
    /// What a guest's driver can do ([`NdisConfiguration::capabilities`]).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Capabilities: u32 {
        /// Queues of the machine's own card.
        const VMQ = 1 << 0;
        /// TCP chimney.
        const CHIMNEY = 1 << 1;
        /// Virtual functions.
        const SRIOV = 1 << 2;
        /// VLAN tags beside packets.
        const IEEE_8021Q = 1 << 3;
        /// Correlation ids.
        const CORRELATION_ID = 1 << 4;
        /// Teaming.
        const TEAMING = 1 << 5;
        /// Virtual subnets.
        const VIRTUAL_SUBNET = 1 << 6;
        /// Coalesced segments in several pieces.
        const RSC = 1 << 7;
    }
}

/// Name of the receive buffer, and of the page set of received packets.
pub const RECEIVE_BUFFER_ID: u16 = 0xcafe;
/// Name of the send buffer.
pub const SEND_BUFFER_ID: u16 = 0;
/// The message is not in the send buffer.
pub const NO_PART: u32 = 0xffff_ffff;
/// Operation of [`SubchannelRequest`].
pub const SUBCHANNEL_ALLOCATE: u32 = 1;
/// Entries of [`IndirectionTable`].
pub const SEND_TABLE_SIZE: usize = 16;

/// The table that tells a guest on which channel to send what, as a whole message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SendTable {
    /// [`MessageType::SEND_INDIRECTION_TABLE`].
    pub message_type: MessageType,
    /// Count and offset.
    pub header: IndirectionTable,
    /// Channels, by hash.
    pub table: [u32; SEND_TABLE_SIZE],
}
const _: () = assert!(size_of::<SendTable>() == 76);

/// A message of `message_type` with `body`, padded.
#[inline]
pub fn message(message_type: MessageType, body: &(impl IntoBytes + Immutable)) -> [u8; MESSAGE_SIZE] {
    let mut bytes = [0; MESSAGE_SIZE];
    bytes[..4].copy_from_slice(message_type.as_bytes());
    // The bodies' sizes are asserted above; a longer one is left out, not a panic.
    let body = body.as_bytes();
    if let Some(place) = bytes.get_mut(4..4 + body.len()) {
        place.copy_from_slice(body);
    }
    bytes
}

/// How a message begins that carries an RNDIS message; nothing of use follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RndisMessage {
    /// [`MessageType::SEND_RNDIS_PACKET`], or it is another message.
    pub message_type: MessageType,
    /// Where the RNDIS message is.
    pub packet: RndisPacket,
}

/// What completes such a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RndisComplete {
    /// [`MessageType::SEND_RNDIS_PACKET_COMPLETE`].
    pub message_type: MessageType,
    /// What became of it.
    pub complete: RndisPacketComplete,
}

/// The type of a message, and what follows it.
pub fn split(bytes: &[u8]) -> Option<(MessageType, &[u8])> {
    MessageType::read_from_prefix(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_its_type_and_its_body() {
        let bytes = message(
            MessageType::SEND_RNDIS_PACKET,
            &RndisPacket {
                channel: RndisChannel::CONTROL,
                part: NO_PART,
                part_length: 0,
            },
        );
        assert_eq!(
            bytes[..16],
            [107, 0, 0, 0, 1, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0]
        );
        let (message_type, body) = split(&bytes).unwrap();
        assert_eq!(message_type, MessageType::SEND_RNDIS_PACKET);
        assert_eq!(RndisPacket::read_from_prefix(body).unwrap().0.part, NO_PART);
        assert_eq!(split(&[1, 2, 3]), None);
    }

    #[test]
    fn the_send_table_says_where_it_begins() {
        assert_eq!(core::mem::offset_of!(SendTable, table), 12);
    }
}
