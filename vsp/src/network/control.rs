//! RNDIS requests: what is asked and set. Each gets an answer.

use super::setup::{Offloads, Setup};
use super::steer::Steering;
use alloc::vec::Vec;
use vmbus::protocol::network::nvsp::Version;
use vmbus::protocol::network::offload::{
    Checksum4, Checksum6, ChecksumOffload, ENCAPSULATION_ETHERNET, LARGE_SEND_6_ALL, LargeSendOffload,
    OBJECT_OFFLOAD, ObjectHeader, Offload, OffloadParameters,
};
use vmbus::protocol::network::oid::{MEDIA_CONNECTED, MEDIA_DISCONNECTED, Oid, PacketFilter};
use vmbus::protocol::network::rndis::{self, Message, MessageType, Status};
use vmbus::protocol::network::scale::{
    self, INDIRECTION_TABLE, OBJECT_CAPABILITIES, ReceiveScaleCapabilities,
};
use vmbus::protocol::network::{ETHERNET_HEADER, Mac};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Bytes of an unsegmented packet at most.
pub const MAX_LARGE_SEND: u32 = 62_780;
/// Packets of one message at most.
pub const MAX_PACKETS: u32 = 8;
/// Speed that is told, in units of 100 bits a second: 10 Gbit/s.
const LINK_SPEED: u32 = 100_000_000;

/// What a card knows when it is asked.
pub struct Control<'a> {
    /// What was agreed.
    pub setup: &'a mut Setup,
    /// Which channel a frame goes to.
    pub steering: &'a mut Steering,
    /// The address that the card was made with.
    pub permanent: Mac,
    /// Channels at most.
    pub queues: u16,
    /// Whether there is a link.
    pub link: bool,
    /// What a person calls the card.
    pub name: &'a str,
    /// Frames sent, received, and dropped for want of room.
    pub counters: [u64; 3],
}

impl Control<'_> {
    /// Takes a message; `None` where it has no answer.
    pub fn receive(&mut self, message: &[u8], set_address: impl FnOnce(Mac) -> bool) -> Option<Message> {
        let (message_type, body) = rndis::split(message)?;
        match message_type {
            MessageType::INITIALIZE => self.initialize(body),
            MessageType::HALT => {
                self.setup.initialized = false;
                self.setup.filter = PacketFilter::empty();
                None
            }
            MessageType::QUERY => {
                let (asked, _) = rndis::Request::read_from_prefix(body).ok()?;
                let value = self.query(asked.oid);
                let answer = rndis::QueryComplete {
                    request: asked.request,
                    status: if value.is_some() {
                        Status::SUCCESS
                    } else {
                        Status::NOT_SUPPORTED
                    },
                    length: value.as_ref().map_or(0, Vec::len) as u32,
                    offset: size_of::<rndis::QueryComplete>() as u32,
                };
                Message::new(MessageType::QUERY_COMPLETE, &answer, &value.unwrap_or_default())
            }
            MessageType::SET => {
                let (asked, _) = rndis::Request::read_from_prefix(body).ok()?;
                let status = match rndis::value(body, asked.offset, asked.length) {
                    Some(value) => self
                        .set(asked.oid, value, set_address)
                        .err()
                        .unwrap_or(Status::SUCCESS),
                    None => Status::INVALID_LENGTH,
                };
                let answer = rndis::SetComplete {
                    request: asked.request,
                    status,
                };
                Message::new(MessageType::SET_COMPLETE, &answer, &[])
            }
            MessageType::RESET => {
                let answer = rndis::ResetComplete {
                    status: Status::SUCCESS,
                    addressing_reset: 0,
                };
                Message::new(MessageType::RESET_COMPLETE, &answer, &[])
            }
            MessageType::KEEP_ALIVE => {
                let (asked, _) = rndis::KeepAlive::read_from_prefix(body).ok()?;
                let answer = rndis::KeepAliveComplete {
                    request: asked.request,
                    status: Status::SUCCESS,
                };
                Message::new(MessageType::KEEP_ALIVE_COMPLETE, &answer, &[])
            }
            _ => None,
        }
    }

    fn initialize(&mut self, body: &[u8]) -> Option<Message> {
        let (asked, _) = rndis::Initialize::read_from_prefix(body).ok()?;
        self.setup.initialized = true;
        let answer = rndis::InitializeComplete {
            request: asked.request,
            status: Status::SUCCESS,
            major: 1,
            minor: 0,
            device_flags: 1,
            medium: 0,
            max_packets: MAX_PACKETS,
            max_transfer: super::setup::SEND_PART,
            alignment: 3,
            address_family_offset: 0,
            address_family_size: 0,
        };
        Message::new(MessageType::INITIALIZE_COMPLETE, &answer, &[])
    }

    fn query(&self, oid: Oid) -> Option<Vec<u8>> {
        let number = |value: u32| Some(value.as_bytes().to_vec());
        let [sent, received, no_room] = self.counters;
        match oid {
            Oid::SUPPORTED_LIST => Some(SUPPORTED.as_bytes().to_vec()),
            Oid::HARDWARE_STATUS | Oid::MEDIA_SUPPORTED | Oid::MEDIA_IN_USE => number(0),
            Oid::TRANSMIT_ERROR | Oid::RECEIVE_ERROR => number(0),
            Oid::MAXIMUM_FRAME_SIZE => number(self.setup.mtu),
            Oid::MAXIMUM_TOTAL_SIZE
            | Oid::TRANSMIT_BLOCK_SIZE
            | Oid::RECEIVE_BLOCK_SIZE
            | Oid::CURRENT_LOOKAHEAD => number(self.setup.mtu + ETHERNET_HEADER as u32),
            Oid::LINK_SPEED => number(LINK_SPEED),
            Oid::VENDOR_ID => number(0x005d_1500),
            Oid::VENDOR_DESCRIPTION => Some(b"Partita virtual network card\0".to_vec()),
            Oid::CURRENT_PACKET_FILTER => number(self.setup.filter.bits()),
            Oid::MEDIA_CONNECT_STATUS => number(if self.link {
                MEDIA_CONNECTED
            } else {
                MEDIA_DISCONNECTED
            }),
            Oid::MAXIMUM_SEND_PACKETS => number(MAX_PACKETS),
            Oid::MAXIMUM_LIST_SIZE => number(32),
            // Only the low half, as four bytes are what drivers take.
            Oid::TRANSMIT_OK => number(sent as u32),
            Oid::RECEIVE_OK => number(received as u32),
            Oid::RECEIVE_NO_BUFFER => number(no_room as u32),
            Oid::FRIENDLY_NAME => Some(
                self.name
                    .encode_utf16()
                    .take(128)
                    .flat_map(u16::to_le_bytes)
                    .collect(),
            ),
            Oid::PERMANENT_ADDRESS => Some(self.permanent.0.to_vec()),
            Oid::CURRENT_ADDRESS => Some(self.setup.address.0.to_vec()),
            Oid::OFFLOAD_CAPABILITIES | Oid::OFFLOAD_CURRENT => Some(self.offload()),
            Oid::RECEIVE_SCALE_CAPABILITIES if self.queues > 1 && self.version().has_queues() => {
                let capabilities = ReceiveScaleCapabilities {
                    header: ObjectHeader {
                        object_type: OBJECT_CAPABILITIES,
                        revision: 2,
                        size: size_of::<ReceiveScaleCapabilities>() as u16,
                    },
                    flags: scale::CAPABILITIES,
                    interrupts: self.queues.into(),
                    queues: self.queues.into(),
                    table_entries: INDIRECTION_TABLE as u16,
                };
                Some(capabilities.as_bytes().to_vec())
            }
            _ => None,
        }
    }

    fn version(&self) -> Version {
        self.setup.version.unwrap_or(Version::V1)
    }

    /// What the card can do, in the form that this version of the driver takes.
    fn offload(&self) -> Vec<u8> {
        let (size, revision) = match self.version() {
            version if version >= Version::V5 => (size_of::<Offload>(), 3),
            version if version >= Version::V4 => (Offload::SIZE_6_1, 2),
            _ => (Offload::SIZE_6_0, 1),
        };
        let checksum_4 = Checksum4::all().bits();
        let checksum_6 = Checksum6::all().bits();
        let coalesce = u8::from(self.setup.takes_fragments);
        let offload = Offload {
            header: ObjectHeader {
                object_type: OBJECT_OFFLOAD,
                revision,
                size: size as u16,
            },
            checksum: ChecksumOffload {
                send_4_encapsulation: ENCAPSULATION_ETHERNET,
                send_4: checksum_4,
                receive_4_encapsulation: ENCAPSULATION_ETHERNET,
                receive_4: checksum_4,
                send_6_encapsulation: ENCAPSULATION_ETHERNET,
                send_6: checksum_6,
                receive_6_encapsulation: ENCAPSULATION_ETHERNET,
                receive_6: checksum_6,
            },
            large_send: LargeSendOffload {
                encapsulation_4: ENCAPSULATION_ETHERNET,
                max_size_4: MAX_LARGE_SEND,
                min_segments_4: 2,
                encapsulation_6: ENCAPSULATION_ETHERNET,
                max_size_6: MAX_LARGE_SEND,
                min_segments_6: 2,
                options_6: LARGE_SEND_6_ALL,
            },
            coalesce_4: coalesce,
            coalesce_6: coalesce,
            ..Offload::new_zeroed()
        };
        offload.as_bytes().get(..size).unwrap_or_default().to_vec()
    }

    fn set(&mut self, oid: Oid, value: &[u8], set_address: impl FnOnce(Mac) -> bool) -> Result<(), Status> {
        match oid {
            Oid::CURRENT_PACKET_FILTER => {
                let (filter, _) = u32::read_from_prefix(value).map_err(|_| Status::INVALID_LENGTH)?;
                self.setup.filter = PacketFilter::from_bits_truncate(filter);
                Ok(())
            }
            // All groups are taken that the filter lets through; the guest's system looks again.
            Oid::MULTICAST_LIST | Oid::CURRENT_LOOKAHEAD => Ok(()),
            Oid::OFFLOAD_PARAMETERS => {
                let offloads = offload_parameters(self.setup.offloads, value).ok_or(Status::INVALID_DATA)?;
                self.setup.offloads = Offloads {
                    coalesce_4: offloads.coalesce_4 && self.setup.takes_fragments,
                    coalesce_6: offloads.coalesce_6 && self.setup.takes_fragments,
                    ..offloads
                };
                Ok(())
            }
            Oid::RECEIVE_SCALE_PARAMETERS => {
                self.steering.set(value, self.queues).ok_or(Status::INVALID_DATA)
            }
            Oid::RNDIS_CONFIGURATION_PARAMETER => {
                let address = address_parameter(value).ok_or(Status::INVALID_DATA)?;
                if !address.is_station() || !set_address(address) {
                    return Err(Status::FAILURE);
                }
                self.setup.address = address;
                Ok(())
            }
            _ => Err(Status::NOT_SUPPORTED),
        }
    }
}

/// All that can be asked.
const SUPPORTED: [Oid; 22] = [
    Oid::SUPPORTED_LIST,
    Oid::HARDWARE_STATUS,
    Oid::MEDIA_SUPPORTED,
    Oid::MEDIA_IN_USE,
    Oid::MAXIMUM_FRAME_SIZE,
    Oid::LINK_SPEED,
    Oid::VENDOR_ID,
    Oid::VENDOR_DESCRIPTION,
    Oid::CURRENT_PACKET_FILTER,
    Oid::MAXIMUM_TOTAL_SIZE,
    Oid::MEDIA_CONNECT_STATUS,
    Oid::MAXIMUM_SEND_PACKETS,
    Oid::RECEIVE_SCALE_CAPABILITIES,
    Oid::RECEIVE_SCALE_PARAMETERS,
    Oid::TRANSMIT_OK,
    Oid::RECEIVE_OK,
    Oid::RECEIVE_NO_BUFFER,
    Oid::FRIENDLY_NAME,
    Oid::PERMANENT_ADDRESS,
    Oid::CURRENT_ADDRESS,
    Oid::OFFLOAD_CAPABILITIES,
    Oid::OFFLOAD_PARAMETERS,
];

/// What the parameters make of `now`; `None` if one has no meaning. A shorter form leaves the rest as it is.
fn offload_parameters(now: Offloads, value: &[u8]) -> Option<Offloads> {
    if value.len() < OffloadParameters::SIZE_4 {
        return None;
    }
    let mut parameters = OffloadParameters::new_zeroed();
    for (to, from) in parameters.as_mut_bytes().iter_mut().zip(value) {
        *to = *from;
    }
    let mut next = now;
    for setting in [
        parameters.ip_checksum,
        parameters.tcp_4_checksum,
        parameters.udp_4_checksum,
        parameters.tcp_6_checksum,
        parameters.udp_6_checksum,
    ] {
        // A guest that checks one kind by itself does no harm by being told of it.
        let (send, receive) = setting.apply_checksum(now.checksum)?;
        next.checksum = (next.checksum.0 | send, next.checksum.1 | receive);
    }
    if parameters.tcp_4_checksum == vmbus::protocol::network::offload::Setting::DISABLED {
        next.checksum = (false, false);
    }
    Offloads::switch(parameters.large_send_4, &mut next.large_4)?;
    Offloads::switch(parameters.large_send_6, &mut next.large_6)?;
    Offloads::switch(parameters.coalesce_4, &mut next.coalesce_4)?;
    Offloads::switch(parameters.coalesce_6, &mut next.coalesce_6)?;
    Some(next)
}

/// The address that a guest sets, as a parameter named `NetworkAddress` with twelve digits.
fn address_parameter(value: &[u8]) -> Option<Mac> {
    let (parameter, _) = rndis::ConfigurationParameter::read_from_prefix(value).ok()?;
    let text = |offset, length| -> Option<alloc::string::String> {
        let bytes = rndis::value(value, offset, length).filter(|bytes| bytes.len() <= 64)?;
        let units = bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|unit| u16::from_le_bytes(*unit));
        char::decode_utf16(units).collect::<Result<_, _>>().ok()
    };
    if parameter.parameter_type != rndis::PARAMETER_STRING {
        return None;
    }
    let name = text(parameter.name_offset, parameter.name_length)?;
    let digits = text(parameter.value_offset, parameter.value_length)?;
    (name == "NetworkAddress").then(|| Mac::parse(&digits))?
}
