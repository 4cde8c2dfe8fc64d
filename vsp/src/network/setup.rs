//! What was agreed with the guest, and the NVSP messages by which it was.

use super::pool::Pool;
use crate::buffer::Buffer;
use alloc::sync::Arc;
use vmbus::protocol::id::GpadlId;
use vmbus::protocol::network::nvsp::{self, MessageType, Status, Version};
use vmbus::protocol::network::offload::Setting;
use vmbus::protocol::network::oid::PacketFilter;
use vmbus::protocol::network::packet_info::Info;
use vmbus::protocol::network::{DEFAULT_MTU, ETHERNET_HEADER, MAX_MTU, Mac, rndis};
use zerocopy::FromBytes;

/// Bytes of a part of the send buffer.
pub const SEND_PART: u32 = 6144;
/// Parts of the receive buffer are a multiple of this.
const PART_UNIT: usize = 64;
/// The least that a part holds; control messages fit as well.
const MIN_PART: usize = 1728;
/// What a part holds where large packets come in several parts, each of which costs a header on both sides.
const LARGE_PART: usize = 8192;
/// Parts that there are at least before they are made larger: a small frame takes a whole one.
const MANY_PARTS: usize = 256;
/// The smallest payload that a card can be set to.
const MIN_MTU: u32 = 68;

/// Work that the guest has switched on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offloads {
    /// Checksums of TCP and UDP and of IPv4 headers: (left to us when sending, checked by us when receiving).
    pub checksum: (bool, bool),
    /// Sends IPv4 packets to be cut.
    pub large_4: bool,
    /// Sends IPv6 packets to be cut.
    pub large_6: bool,
    /// Takes coalesced IPv4 packets.
    pub coalesce_4: bool,
    /// Takes coalesced IPv6 packets.
    pub coalesce_6: bool,
}

impl Offloads {
    /// What a switch of `setting` makes of `now`, if it is a switch.
    pub(super) fn switch(setting: Setting, now: &mut bool) -> Option<()> {
        *now = setting.apply(*now)?;
        Some(())
    }
}

/// All that was agreed with a guest since it opened the first channel.
#[derive(Debug)]
pub struct Setup {
    /// The version.
    pub version: Option<Version>,
    /// Largest payload of a frame.
    pub mtu: u32,
    /// The driver takes coalesced packets in several parts.
    pub takes_fragments: bool,
    /// RNDIS was begun.
    pub initialized: bool,
    /// Which frames the guest takes.
    pub filter: PacketFilter,
    /// What is switched on.
    pub offloads: Offloads,
    /// The address in use.
    pub address: Mac,
}

/// What a message asks for beside its answer.
pub enum Change {
    /// Nothing.
    None,
    /// The receive buffer is there, or is no more.
    ReceiveBuffer(Option<Pool>),
    /// The same of the send buffer.
    SendBuffer(Option<Arc<Buffer>>),
}

/// An answer.
pub enum Reply {
    /// This message.
    Message([u8; nvsp::MESSAGE_SIZE]),
    /// An empty completion, if one was asked for.
    Empty,
}

impl Setup {
    /// Nothing agreed yet, by a card with `address`.
    pub fn new(address: Mac) -> Self {
        Self {
            version: None,
            mtu: DEFAULT_MTU,
            takes_fragments: false,
            initialized: false,
            filter: PacketFilter::empty(),
            offloads: Offloads::default(),
            address,
        }
    }

    /// Bytes of a part of a receive buffer of `size` bytes: it holds the largest frame, its header and what is beside it.
    fn part_size(&self, size: usize) -> usize {
        let frame = self.mtu as usize + ETHERNET_HEADER + 4;
        let whole = frame + rndis::PACKET_HEADER + 4 * size_of::<Info>();
        let least = whole.next_multiple_of(PART_UNIT).max(MIN_PART);
        let large = match self.takes_fragments {
            true => LARGE_PART.min(size / MANY_PARTS / PART_UNIT * PART_UNIT),
            false => 0,
        };
        large.max(least)
    }

    /// Takes a message of the guest that is neither about packets nor about channels.
    pub fn receive(
        &mut self,
        message_type: MessageType,
        body: &[u8],
        gpadl: impl FnOnce(GpadlId) -> Option<Arc<Buffer>>,
    ) -> (Reply, Change) {
        match message_type {
            MessageType::INIT => (self.init(body), Change::None),
            MessageType::SEND_NDIS_CONFIGURATION => {
                if let Ok((asked, _)) = nvsp::NdisConfiguration::read_from_prefix(body) {
                    let mtu = asked.frame_size.saturating_sub(ETHERNET_HEADER as u32);
                    self.mtu = mtu.clamp(MIN_MTU, MAX_MTU);
                    let capabilities = nvsp::Capabilities::from_bits_truncate(asked.capabilities);
                    self.takes_fragments = capabilities.contains(nvsp::Capabilities::RSC)
                        && self.version.is_some_and(|version| version >= Version::V6_1);
                }
                (Reply::Empty, Change::None)
            }
            MessageType::SEND_RECEIVE_BUFFER => {
                let pool = self.shared(body, gpadl).and_then(|buffer| {
                    let part_size = self.part_size(buffer.size());
                    Pool::new(buffer, part_size)
                });
                let answer = receive_buffer_answer(pool.as_ref());
                let change = pool.map_or(Change::None, |pool| Change::ReceiveBuffer(Some(pool)));
                (Reply::Message(answer), change)
            }
            MessageType::SEND_SEND_BUFFER => {
                let buffer = self.shared(body, gpadl);
                let usable = buffer.filter(|buffer| buffer.size() >= SEND_PART as usize);
                let answer = nvsp::SendBufferComplete {
                    status: if usable.is_some() {
                        Status::SUCCESS
                    } else {
                        Status::FAIL
                    },
                    part_size: SEND_PART,
                };
                let answer = nvsp::message(MessageType::SEND_SEND_BUFFER_COMPLETE, &answer);
                (
                    Reply::Message(answer),
                    usable.map_or(Change::None, |buffer| Change::SendBuffer(Some(buffer))),
                )
            }
            MessageType::REVOKE_RECEIVE_BUFFER => (Reply::Empty, Change::ReceiveBuffer(None)),
            MessageType::REVOKE_SEND_BUFFER => (Reply::Empty, Change::SendBuffer(None)),
            // Versions of NDIS, the data path (there is only the synthetic one), and what we do not know.
            _ => (Reply::Empty, Change::None),
        }
    }

    fn init(&mut self, body: &[u8]) -> Reply {
        let asked = nvsp::Init::read_from_prefix(body).map(|(asked, _)| asked);
        let known = |asked: &nvsp::Init| {
            let mut versions = Version::ALL.into_iter();
            versions.find(|&version| asked.min <= version && version <= asked.max)
        };
        let version = asked.ok().as_ref().and_then(known);
        *self = Self {
            version,
            ..Self::new(self.address)
        };
        let answer = nvsp::InitComplete {
            version: version.unwrap_or(Version(0)),
            max_chain: 34,
            status: if version.is_some() {
                Status::SUCCESS
            } else {
                Status::PROTOCOL_UNSUPPORTED
            },
        };
        Reply::Message(nvsp::message(MessageType::INIT_COMPLETE, &answer))
    }

    fn shared(&self, body: &[u8], gpadl: impl FnOnce(GpadlId) -> Option<Arc<Buffer>>) -> Option<Arc<Buffer>> {
        self.version?;
        let (asked, _) = nvsp::SharedBuffer::read_from_prefix(body).ok()?;
        gpadl(asked.gpadl)
    }
}

fn receive_buffer_answer(pool: Option<&Pool>) -> [u8; nvsp::MESSAGE_SIZE] {
    let (part_size, parts) = pool.map_or((0, 0), |pool| (pool.part_size() as u32, pool.parts() as u32));
    let answer = nvsp::ReceiveBufferComplete {
        status: if pool.is_some() {
            Status::SUCCESS
        } else {
            Status::FAIL
        },
        sections: u32::from(pool.is_some()),
        offset: 0,
        part_size,
        parts,
        end_offset: part_size * parts,
    };
    nvsp::message(MessageType::SEND_RECEIVE_BUFFER_COMPLETE, &answer)
}
