//! RNDIS packets as a guest sends them: checked, and made into frames.

use super::frame::{Body, Frame};
use crate::buffer::Buffer;
use crate::switch::frame::HEADER_BYTES;
use vmbus::protocol::network::ETHERNET_HEADER;
use vmbus::protocol::network::packet_info::{
    self, Info, InfoType, LargeSend, ReceiveChecksum, SendChecksum, VlanTag,
};
pub use vmbus::protocol::network::rndis::packet_header;
use vmbus::protocol::network::rndis::{self, MessageType};
use zerocopy::{FromBytes, FromZeros};

/// Bytes of what is beside a packet that are looked at.
const MAX_INFO: usize = packet_info::MAX_INFOS * size_of::<Info>();

/// Why a message is no packet that can be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadPacket {
    /// Its header, or what the header says, does not fit the message.
    #[error("the message ends before what its header says")]
    Length,
    /// It is something else.
    #[error("the message is no packet")]
    OtherType,
    /// The frame is shorter than its header, or longer than can be.
    #[error("a frame of {0} bytes cannot be sent")]
    FrameSize(usize),
}

/// A packet's frame, whose first bytes are copied, with what is beside it.
pub struct Outgoing<'a> {
    /// The frame.
    pub frame: Frame<'a>,
    /// Bytes of the whole message.
    pub message_length: usize,
}

impl<'a> Outgoing<'a> {
    /// Reads the message at `offset` of `buffer`, which has `available` bytes; `head` takes the frame's first bytes. `max` is the largest frame that is not to be cut, and
    /// `max_large` the largest at all.
    #[inline]
    pub fn read(
        buffer: &'a Buffer,
        offset: usize,
        available: usize,
        max: usize,
        max_large: usize,
        head: &'a mut [u8; HEADER_BYTES],
    ) -> Result<Self, BadPacket> {
        let mut fixed = [0; rndis::PACKET_HEADER];
        if available < fixed.len() {
            return Err(BadPacket::Length);
        }
        buffer
            .copy_to(offset, &mut fixed)
            .map_err(|_| BadPacket::Length)?;
        let (header, body) = rndis::Header::read_from_prefix(&fixed).map_err(|_| BadPacket::Length)?;
        if header.message_type != MessageType::PACKET {
            return Err(BadPacket::OtherType);
        }
        let (packet, _) = rndis::Packet::read_from_prefix(body).map_err(|_| BadPacket::Length)?;
        let message_length = header.length as usize;
        let inside = |offset: u32, length: u32| {
            let start = (offset as usize).checked_add(rndis::HEADER)?;
            let end = start.checked_add(length as usize)?;
            (end <= message_length && start >= rndis::PACKET_HEADER).then_some(start)
        };
        if message_length > available {
            return Err(BadPacket::Length);
        }
        let start = inside(packet.data_offset, packet.data_length).ok_or(BadPacket::Length)?;
        let start = offset + start;
        let mut beside = Beside::default();
        if packet.info_length != 0 {
            let start = inside(packet.info_offset, packet.info_length).ok_or(BadPacket::Length)?;
            beside.read(buffer, offset + start, packet.info_length as usize)?;
        }
        let length = packet.data_length as usize;
        let largest = if beside.large.is_some() { max_large } else { max };
        if length < ETHERNET_HEADER || length > largest {
            return Err(BadPacket::FrameSize(length));
        }
        let head = head
            .get_mut(..length.min(HEADER_BYTES))
            .ok_or(BadPacket::Length)?;
        buffer.copy_to(start, head).map_err(|_| BadPacket::Length)?;
        let frame = Frame {
            head,
            body: Body::Shared(buffer, start),
            length,
            tag: beside.tag,
            checksum: beside.checksum,
            large: beside.large,
            known: ReceiveChecksum::default(),
        };
        Ok(Self {
            frame,
            message_length,
        })
    }
}

/// What is beside a frame.
#[derive(Default)]
struct Beside {
    tag: Option<u16>,
    checksum: SendChecksum,
    large: Option<LargeSend>,
}

impl Beside {
    #[inline(never)]
    fn read(&mut self, buffer: &Buffer, at: usize, length: usize) -> Result<(), BadPacket> {
        let mut infos = <[u8; MAX_INFO]>::new_zeroed();
        let infos = infos.get_mut(..length.min(MAX_INFO)).ok_or(BadPacket::Length)?;
        buffer.copy_to(at, infos).map_err(|_| BadPacket::Length)?;
        for (info_type, value) in packet_info::iter(infos) {
            match info_type {
                InfoType::CHECKSUM => self.checksum = SendChecksum(value),
                InfoType::LARGE_SEND => {
                    let large = LargeSend(value);
                    self.large = (large.is_version_2() && large.mss() > 0).then_some(large);
                }
                InfoType::VLAN => self.tag = Some(VlanTag(value).tci()),
                _ => {}
            }
        }
        Ok(())
    }
}
