//! RNDIS: every message is [`Header`] and a body. Offsets inside a message count from the body's begin, the ninth byte.

use super::oid::Oid;
use super::packet_info::{Info, InfoType};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// What a message is. An open set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct MessageType(pub u32);

impl MessageType {
    /// A frame ([`Packet`]).
    pub const PACKET: Self = Self(1);
    /// Guest: begins ([`Initialize`]).
    pub const INITIALIZE: Self = Self(2);
    /// Guest: ends ([`Halt`]); no answer.
    pub const HALT: Self = Self(3);
    /// Guest: asks ([`Request`]).
    pub const QUERY: Self = Self(4);
    /// Guest: sets ([`Request`]).
    pub const SET: Self = Self(5);
    /// Guest: starts again ([`Reset`]).
    pub const RESET: Self = Self(6);
    /// Host: tells ([`IndicateStatus`]).
    pub const INDICATE_STATUS: Self = Self(7);
    /// Both: are you there ([`KeepAlive`]).
    pub const KEEP_ALIVE: Self = Self(8);
    /// Host: answer ([`InitializeComplete`]).
    pub const INITIALIZE_COMPLETE: Self = Self(0x8000_0002);
    /// Host: answer ([`QueryComplete`]).
    pub const QUERY_COMPLETE: Self = Self(0x8000_0004);
    /// Host: answer ([`SetComplete`]).
    pub const SET_COMPLETE: Self = Self(0x8000_0005);
    /// Host: answer ([`ResetComplete`]).
    pub const RESET_COMPLETE: Self = Self(0x8000_0006);
    /// Both: answer ([`KeepAliveComplete`]).
    pub const KEEP_ALIVE_COMPLETE: Self = Self(0x8000_0008);
}

/// How a request ended, or what is told: an NDIS status. An open set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Status(pub u32);

impl Status {
    /// Done.
    pub const SUCCESS: Self = Self(0);
    /// Not done.
    pub const FAILURE: Self = Self(0xc000_0001);
    /// Not known.
    pub const NOT_SUPPORTED: Self = Self(0xc000_00bb);
    /// The value is of the wrong length.
    pub const INVALID_LENGTH: Self = Self(0xc001_0014);
    /// The value makes no sense.
    pub const INVALID_DATA: Self = Self(0xc001_0015);
    /// Told: the link is up.
    pub const MEDIA_CONNECT: Self = Self(0x4001_000b);
    /// Told: the link is down.
    pub const MEDIA_DISCONNECT: Self = Self(0x4001_000c);
    /// Told: the link has another speed.
    pub const LINK_SPEED_CHANGE: Self = Self(0x4001_0013);
    /// Told: it is another network; addresses are to be asked for anew.
    pub const NETWORK_CHANGE: Self = Self(0x4001_0018);
}

/// What every message begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// What it is.
    pub message_type: MessageType,
    /// Bytes of the whole message.
    pub length: u32,
}
/// Bytes of [`Header`]: what offsets do not count.
pub const HEADER: usize = 8;
const _: () = assert!(size_of::<Header>() == HEADER);

macro_rules! bodies {
    ($($(#[$doc:meta])* $name:ident, $size:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
        const _: () = assert!(size_of::<$name>() == $size);
    )*};
}

bodies! {
    /// A frame, its data and what travels beside it; all in one row of bytes.
    Packet, 36 {
        /// Where the frame begins.
        data_offset: u32,
        /// Its bytes.
        data_length: u32,
        /// Unused.
        out_of_band_offset: u32,
        /// Unused.
        out_of_band_length: u32,
        /// Unused.
        out_of_band_elements: u32,
        /// Where the first [`packet_info`](super::packet_info) begins.
        info_offset: u32,
        /// Bytes of all of them.
        info_length: u32,
        /// Unused.
        virtual_circuit: u32,
        /// Unused.
        reserved: u32,
    }
    /// Body of [`MessageType::INITIALIZE`].
    Initialize, 16 {
        /// Given back by the answer.
        request: u32,
        /// 1.
        major: u32,
        /// 0.
        minor: u32,
        /// Bytes of a message at most, to the guest.
        max_transfer: u32,
    }
    /// Body of [`MessageType::INITIALIZE_COMPLETE`].
    InitializeComplete, 44 {
        /// Of the request.
        request: u32,
        /// How it ended.
        status: Status,
        /// 1.
        major: u32,
        /// 0.
        minor: u32,
        /// 1: without connections.
        device_flags: u32,
        /// 0: Ethernet.
        medium: u32,
        /// Packets in one message at most.
        max_packets: u32,
        /// Bytes of a message at most, to the host.
        max_transfer: u32,
        /// Packets of one message begin at multiples of two to the power of this.
        alignment: u32,
        /// Unused.
        address_family_offset: u32,
        /// Unused.
        address_family_size: u32,
    }
    /// Body of [`MessageType::HALT`].
    Halt, 4 {
        /// Unused.
        request: u32,
    }
    /// Body of [`MessageType::QUERY`] and [`MessageType::SET`].
    Request, 20 {
        /// Given back by the answer.
        request: u32,
        /// What is asked or set.
        oid: Oid,
        /// Bytes of the value.
        length: u32,
        /// Where it begins.
        offset: u32,
        /// Unused.
        virtual_circuit: u32,
    }
    /// Body of [`MessageType::QUERY_COMPLETE`].
    QueryComplete, 16 {
        /// Of the request.
        request: u32,
        /// How it ended.
        status: Status,
        /// Bytes of the value.
        length: u32,
        /// Where it begins.
        offset: u32,
    }
    /// Body of [`MessageType::SET_COMPLETE`].
    SetComplete, 8 {
        /// Of the request.
        request: u32,
        /// How it ended.
        status: Status,
    }
    /// Body of [`MessageType::RESET`].
    Reset, 4 {
        /// Unused.
        reserved: u32,
    }
    /// Body of [`MessageType::RESET_COMPLETE`].
    ResetComplete, 8 {
        /// How it ended.
        status: Status,
        /// Whether filters must be set again.
        addressing_reset: u32,
    }
    /// Body of [`MessageType::INDICATE_STATUS`].
    IndicateStatus, 12 {
        /// What is told.
        status: Status,
        /// Bytes of more about it.
        length: u32,
        /// Where they begin.
        offset: u32,
    }
    /// Body of [`MessageType::KEEP_ALIVE`].
    KeepAlive, 4 {
        /// Given back by the answer.
        request: u32,
    }
    /// Body of [`MessageType::KEEP_ALIVE_COMPLETE`].
    KeepAliveComplete, 8 {
        /// Of the request.
        request: u32,
        /// How it ended.
        status: Status,
    }
    /// Value of [`Oid::RNDIS_CONFIGURATION_PARAMETER`]; name and value follow it, and offsets count from its begin.
    ConfigurationParameter, 20 {
        /// Where the name begins (UTF-16).
        name_offset: u32,
        /// Its bytes.
        name_length: u32,
        /// [`PARAMETER_STRING`] or a number.
        parameter_type: u32,
        /// Where the value begins.
        value_offset: u32,
        /// Its bytes.
        value_length: u32,
    }
}

/// Bytes before a frame's data, with nothing beside it.
pub const PACKET_HEADER: usize = HEADER + size_of::<Packet>();
/// Type of a text in [`ConfigurationParameter`].
pub const PARAMETER_STRING: u32 = 2;
/// Bytes of a control message at most; longer ones are refused.
pub const MAX_CONTROL: usize = 1024;

/// What stands before a frame of `frame_length` bytes with `infos` beside it: header and packet; then come `infos`, then the frame.
#[inline]
pub fn packet_header(frame_length: usize, infos: &[Info]) -> (Header, Packet) {
    let PacketHeader { header, packet } = PacketHeader::new(frame_length, size_of_val(infos));
    (header, packet)
}

/// Values beside a packet at most, of those that are sent: checksums or what is to be cut, tag, hash, fragment.
pub const MAX_BESIDE: usize = 4;

/// Header and packet, in a row.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct PacketHeader {
    /// Of any message.
    pub header: Header,
    /// Of a frame.
    pub packet: Packet,
}
const _: () = assert!(size_of::<PacketHeader>() == PACKET_HEADER);

impl PacketHeader {
    #[inline(always)]
    fn new(frame_length: usize, info_length: usize) -> Self {
        let header = Header {
            message_type: MessageType::PACKET,
            length: (PACKET_HEADER + info_length + frame_length) as u32,
        };
        let packet = Packet {
            data_offset: (size_of::<Packet>() + info_length) as u32,
            data_length: frame_length as u32,
            info_offset: match info_length {
                0 => 0,
                _ => size_of::<Packet>() as u32,
            },
            info_length: info_length as u32,
            ..Packet::new_zeroed()
        };
        Self { header, packet }
    }
}

/// What stands before a frame, or a part of one: the header, and what is beside it.
#[derive(Clone, Default)]
pub struct PacketStart {
    infos: arrayvec::ArrayVec<Info, MAX_BESIDE>,
}

impl PacketStart {
    /// Nothing is beside the frame yet.
    #[inline]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value; one more than [`MAX_BESIDE`] is left out.
    #[inline]
    pub fn add(&mut self, info_type: InfoType, value: u32) {
        let _ = self.infos.try_push(Info::new(info_type, value));
    }

    /// Values that were added.
    #[inline]
    pub const fn count(&self) -> usize {
        self.infos.len()
    }

    /// Leaves the first `count` values.
    #[inline]
    pub fn truncate(&mut self, count: usize) {
        self.infos.truncate(count);
    }

    /// How many bytes stand before the frame.
    #[inline(always)]
    pub const fn length(&self) -> usize {
        PACKET_HEADER + self.count() * size_of::<Info>()
    }

    /// What stands first before `length` bytes of a frame; then comes what is [beside](Self::beside) it.
    #[inline(always)]
    pub fn header(&self, length: usize) -> PacketHeader {
        PacketHeader::new(length, self.count() * size_of::<Info>())
    }

    /// What is beside the frame, if anything is.
    #[inline(always)]
    pub fn beside(&self) -> Option<&[u8]> {
        (!self.infos.is_empty()).then(|| self.infos.as_bytes())
    }
}

/// The value at `offset` (counted from the body's begin) of `length` bytes in a message without its header.
pub fn value(body: &[u8], offset: u32, length: u32) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    body.get(start..start.checked_add(usize::try_from(length).ok()?)?)
}

/// A message: its type, its body, and a value behind it. Lengths are right by construction.
#[derive(Clone, Debug)]
pub struct Message {
    bytes: arrayvec::ArrayVec<u8, MAX_CONTROL>,
}

impl Message {
    /// The message; `None` if it is longer than [`MAX_CONTROL`].
    pub fn new(message_type: MessageType, body: &(impl IntoBytes + Immutable), value: &[u8]) -> Option<Self> {
        let header = Header {
            message_type,
            length: (HEADER + size_of_val(body) + value.len()) as u32,
        };
        let mut bytes = arrayvec::ArrayVec::new();
        bytes.try_extend_from_slice(header.as_bytes()).ok()?;
        bytes.try_extend_from_slice(body.as_bytes()).ok()?;
        bytes.try_extend_from_slice(value).ok()?;
        Some(Self { bytes })
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The header of a message and its body, which ends where the header says. `None` if the header lies.
pub fn split(bytes: &[u8]) -> Option<(MessageType, &[u8])> {
    let (header, _) = Header::read_from_prefix(bytes).ok()?;
    let body = bytes.get(HEADER..usize::try_from(header.length).ok()?)?;
    Some((header.message_type, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_from_the_ninth_byte_on() {
        let query = Request {
            request: 7,
            oid: Oid::PERMANENT_ADDRESS,
            length: 2,
            offset: 20,
            virtual_circuit: 0,
        };
        let message = Message::new(MessageType::QUERY, &query, &[1, 2]).unwrap();
        let (message_type, body) = split(message.as_bytes()).unwrap();
        assert_eq!((message_type, body.len()), (MessageType::QUERY, 22));
        assert_eq!(value(body, 20, 2), Some(&[1, 2][..]));
        for (offset, length) in [(20, 3), (23, 0), (u32::MAX, 1), (1, u32::MAX)] {
            assert_eq!(value(body, offset, length), None);
        }
        assert!(Message::new(MessageType::QUERY, &query, &[0; MAX_CONTROL]).is_none());
    }

    #[test]
    fn a_header_that_lies_is_no_message() {
        for length in [0u32, 7, 13, u32::MAX] {
            let mut bytes = [0; 12];
            bytes[4..8].copy_from_slice(&length.to_le_bytes());
            assert_eq!(split(&bytes), None, "{length}");
        }
        assert_eq!(split(&[0; 7]), None);
    }
}
