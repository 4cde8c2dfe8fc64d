//! The table of channel messages: from it come the enum, the parser, the smallest sizes, directions and versions.

use super::body::*;
use super::offer::OfferChannel;
use super::version::Version;
use arrayvec::ArrayVec;
use hypercall_api::message::MESSAGE_PAYLOAD;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of the header.
pub const HEADER: usize = size_of::<MessageHeader>();

/// The bytes of one message.
pub type MessageBytes = ArrayVec<u8, MESSAGE_PAYLOAD>;

/// What every channel message begins with.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MessageHeader {
    /// What follows.
    pub message_type: MessageType,
    /// Zero.
    pub padding: u32,
}
const _: () = assert!(size_of::<MessageHeader>() == 8);

/// Number of a channel message. An open set.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct MessageType(pub u32);

/// Which end sends a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sender {
    /// The root's end.
    Host,
    /// A guest's end.
    Guest,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its number.
    pub message_type: MessageType,
    /// Its name in the specification's spelling.
    pub name: &'static str,
    /// Who sends it.
    pub sender: Sender,
    /// The first version that has it.
    pub since: Version,
    /// Bytes that it has at least, the header with them.
    pub min_size: usize,
}

/// Why bytes are not a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MessageError {
    /// Not even a header.
    #[error("{0} bytes are too few for a channel message")]
    NoHeader(usize),
    /// Nothing has that number.
    #[error("there is no channel message {0}")]
    Unknown(MessageType),
    /// The other end sends it.
    #[error("channel message {0} is not for this end")]
    WrongDirection(MessageType),
    /// The version that was agreed on does not have it.
    #[error("channel message {0} is not part of version {1}")]
    NotInVersion(MessageType, Version),
    /// Some of it is missing.
    #[error("{size} bytes are too few for channel message {message_type}")]
    TooShort {
        /// What it would be.
        message_type: MessageType,
        /// What there is.
        size: usize,
    },
}

macro_rules! messages {
    ($($(#[$doc:meta])* $number:literal $name:ident $variant:ident($body:ty) $sender:ident $since:ident;)*) => {
        impl MessageType {
            $($(#[$doc])* pub const $name: Self = Self($number);)*
        }

        /// All messages, by number.
        pub const TABLE: &[Row] = &[$(Row {
            message_type: MessageType::$name,
            name: stringify!($name),
            sender: Sender::$sender,
            since: Version::$since,
            min_size: HEADER + size_of::<$body>(),
        },)*];

        /// A channel message.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum ChannelMessage {
            $($(#[$doc])* $variant($body),)*
        }

        impl ChannelMessage {
            /// Its number.
            pub const fn message_type(&self) -> MessageType {
                match self {
                    $(Self::$variant(_) => MessageType::$name,)*
                }
            }

            fn body(&self) -> &[u8] {
                match self {
                    $(Self::$variant(body) => body.as_bytes(),)*
                }
            }

            /// The message of that number at the front of `body`, and what is behind it.
            fn from_body(message_type: MessageType, body: &[u8]) -> Option<(Self, &[u8])> {
                match message_type {
                    $(MessageType::$name => <$body>::read_from_prefix(body)
                        .ok()
                        .map(|(body, rest)| (Self::$variant(body), rest)),)*
                    _ => None,
                }
            }
        }
    };
}

messages! {
    // number name                 variant(body)                       from  since
    /// A device.
    1  OFFER_CHANNEL               OfferChannel(OfferChannel)          Host  V2_4;
    /// The device is gone.
    2  RESCIND_CHANNEL_OFFER       RescindChannelOffer(ChannelNamed)   Host  V2_4;
    /// Which devices are there?
    3  REQUEST_OFFERS              RequestOffers(Empty)                Guest V2_4;
    /// Those were all, for now.
    4  ALL_OFFERS_DELIVERED        AllOffersDelivered(Empty)           Host  V2_4;
    /// Use these rings.
    5  OPEN_CHANNEL                OpenChannel(OpenChannel)            Guest V2_4;
    /// The host uses them, or not.
    6  OPEN_CHANNEL_RESULT         OpenChannelResult(OpenResult)       Host  V2_4;
    /// Use them no more.
    7  CLOSE_CHANNEL               CloseChannel(ChannelNamed)          Guest V2_4;
    /// Pages.
    8  GPADL_HEADER                GpadlHeader(GpadlHeader)            Guest V2_4;
    /// More of the pages.
    9  GPADL_BODY                  GpadlBody(GpadlBody)                Guest V2_4;
    /// The host knows the pages, or not.
    10 GPADL_CREATED               GpadlCreated(GpadlCreated)          Host  V2_4;
    /// Forget the pages.
    11 GPADL_TEARDOWN              GpadlTeardown(GpadlTeardown)        Guest V2_4;
    /// They are forgotten.
    12 GPADL_TORNDOWN              GpadlTorndown(GpadlTorndown)        Host  V2_4;
    /// The rescinded channel's relid is free.
    13 RELID_RELEASED              RelidReleased(ChannelNamed)         Guest V2_4;
    /// Do you speak this version?
    14 INITIATE_CONTACT            InitiateContact(InitiateContact)    Guest V2_4;
    /// Yes or no.
    15 VERSION_RESPONSE            VersionResponse(VersionResponse)    Host  V2_4;
    /// Forget everything.
    16 UNLOAD                      Unload(Empty)                       Guest V2_4;
    /// Everything is forgotten.
    17 UNLOAD_RESPONSE             UnloadResponse(Empty)               Host  V2_4;
    /// Connect a socket.
    21 TL_CONNECT_REQUEST          SocketConnect(SocketConnect)        Guest V4_0;
    /// Move the channel's interrupt.
    22 MODIFY_CHANNEL              ModifyChannel(ModifyChannel)        Guest V4_1;
    /// The socket could not be connected.
    23 TL_CONNECT_RESULT           SocketResult(SocketResult)          Host  V4_0;
    /// The interrupt is moved, or not.
    24 MODIFY_CHANNEL_RESPONSE     ModifyChannelResponse(ModifyResponse) Host V5_3;
}

impl core::fmt::Display for MessageType {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.row() {
            Some(row) => f.write_str(row.name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl MessageType {
    /// Its row, if it is known.
    pub fn row(self) -> Option<&'static Row> {
        TABLE.iter().find(|row| row.message_type == self)
    }
}

impl ChannelMessage {
    /// The bytes to send.
    pub fn encode(&self) -> MessageBytes {
        self.encode_with(&[])
    }

    /// The bytes to send, with `rest` behind them, as much of it as a message can carry.
    pub fn encode_with(&self, rest: &[u8]) -> MessageBytes {
        let header = MessageHeader {
            message_type: self.message_type(),
            padding: 0,
        };
        let bytes = header.as_bytes().iter().chain(self.body()).chain(rest);
        bytes.copied().take(MESSAGE_PAYLOAD).collect()
    }

    /// The message that `sender` has sent in `version` (before one is agreed on: the oldest), and what is behind it.
    pub fn parse(bytes: &[u8], sender: Sender, version: Version) -> Result<(Self, &[u8]), MessageError> {
        let (header, body) =
            MessageHeader::read_from_prefix(bytes).map_err(|_| MessageError::NoHeader(bytes.len()))?;
        let message_type = header.message_type;
        let row = message_type.row().ok_or(MessageError::Unknown(message_type))?;
        if row.sender != sender {
            return Err(MessageError::WrongDirection(message_type));
        }
        if version < row.since {
            return Err(MessageError::NotInVersion(message_type, version));
        }
        Self::from_body(message_type, body).ok_or(MessageError::TooShort {
            message_type,
            size: bytes.len(),
        })
    }

    /// What a message that was too short may have been meant to be: the rest of it zero. For an answer to whoever waits.
    pub fn parse_padded(bytes: &[u8]) -> Option<Self> {
        let (header, body) = MessageHeader::read_from_prefix(bytes).ok()?;
        let mut padded = [0; MESSAGE_PAYLOAD];
        padded.iter_mut().zip(body).for_each(|(to, from)| *to = *from);
        Self::from_body(header.message_type, &padded).map(|(message, _)| message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::FromZeros;

    #[test]
    fn sizes_are_those_of_linux() {
        let sizes: alloc::vec::Vec<_> = TABLE
            .iter()
            .map(|row| (row.message_type.0, row.min_size))
            .collect();
        let expected = [
            (1, 196),
            (2, 12),
            (3, 8),
            (4, 8),
            (5, 148),
            (6, 20),
            (7, 12),
            (8, 20),
            (9, 16),
            (10, 20),
            (11, 16),
            (12, 12),
            (13, 12),
            (14, 40),
            (15, 16),
            (16, 8),
            (17, 8),
            (21, 40),
            (22, 16),
            (23, 44),
            (24, 16),
        ];
        assert_eq!(sizes, expected);
    }

    #[test]
    fn a_message_of_the_wrong_end_version_or_size_is_refused() {
        let modify = ChannelMessage::ModifyChannel(ModifyChannel::new_zeroed()).encode();
        let guest = |bytes, version| ChannelMessage::parse(bytes, Sender::Guest, version);
        assert!(guest(&modify, Version::V4_1).is_ok());
        assert_eq!(
            guest(&modify, Version::V4_0),
            Err(MessageError::NotInVersion(
                MessageType::MODIFY_CHANNEL,
                Version::V4_0
            ))
        );
        assert_eq!(
            ChannelMessage::parse(&modify, Sender::Host, Version::V6_0),
            Err(MessageError::WrongDirection(MessageType::MODIFY_CHANNEL))
        );
        assert!(matches!(
            guest(&modify[..15], Version::V6_0),
            Err(MessageError::TooShort { .. })
        ));
        assert_eq!(guest(&modify[..7], Version::V6_0), Err(MessageError::NoHeader(7)));
        assert_eq!(
            guest(&[99, 0, 0, 0, 0, 0, 0, 0], Version::V6_0),
            Err(MessageError::Unknown(MessageType(99)))
        );
    }

    #[test]
    fn what_is_missing_of_a_short_message_reads_as_zero() {
        let message = ChannelMessage::OpenChannelResult(OpenResult::new_zeroed()).encode();
        let Some(ChannelMessage::OpenChannelResult(body)) = ChannelMessage::parse_padded(&message[..8])
        else {
            panic!("not parsed");
        };
        assert_eq!(body, OpenResult::new_zeroed());
    }

    proptest! {
        #[test]
        fn what_is_parsed_is_what_was_encoded(row in 0..TABLE.len(), bytes: [u8; 224]) {
            let row = TABLE[row];
            let (message, _) = ChannelMessage::from_body(row.message_type, &bytes).unwrap();
            let encoded = message.encode();
            prop_assert_eq!(encoded.len(), row.min_size);
            let (parsed, rest) = ChannelMessage::parse(&encoded, row.sender, Version::V6_0).unwrap();
            prop_assert_eq!(parsed, message);
            prop_assert!(rest.is_empty());
        }
    }
}
