//! The card: sending, receiving, what can be asked and set.

use super::arrived::Received;
use super::error::NetworkError;
use super::offload::{self, Beside, Offloads};
use super::queue::{MAX_FRAME, MAX_HEAD, Queue};
use super::setup::{self, Agreed};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::{Context, Poll};
use spin::Mutex;
use vmbus::protocol::network::nvsp::{MessageType, RECEIVE_BUFFER_ID, RevokeBuffer, SEND_BUFFER_ID, Version};
use vmbus::protocol::network::oid::{Oid, PacketFilter};
use vmbus::protocol::network::packet_info::{InfoType, VlanTag};
use vmbus::protocol::network::rndis::{ConfigurationParameter, PARAMETER_STRING, PacketStart};
use vmbus::protocol::network::{ETHERNET_HEADER, Mac};
use zerocopy::IntoBytes;

/// What a card counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames that were sent.
    pub sent: AtomicU64,
    /// Frames that were received.
    pub received: AtomicU64,
    /// Messages of the host that made no sense.
    pub bad_messages: AtomicU64,
    /// Frames whose checksums were wrong, of those that a [`Station`](super::station::Station) took.
    pub bad_checksums: AtomicU64,
    /// Frames that a stack had, and for which there was no room.
    pub no_room: AtomicU64,
}

impl Counters {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A network card. Dropped, it is closed.
#[derive(Debug)]
pub struct Card {
    queues: Vec<Arc<Queue>>,
    version: Version,
    mtu: u32,
    address: Mutex<Mac>,
    offloads: Offloads,
}

impl Card {
    pub(super) fn new(queues: Vec<Arc<Queue>>, agreed: &Agreed) -> Self {
        Self {
            queues,
            version: agreed.version,
            mtu: agreed.mtu,
            address: Mutex::new(agreed.address),
            offloads: agreed.offloads,
        }
    }

    /// The version that the host speaks.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Largest payload of a frame.
    pub const fn mtu(&self) -> u32 {
        self.mtu
    }

    /// The address in use.
    pub fn address(&self) -> Mac {
        *self.address.lock()
    }

    /// Work that the host does.
    pub const fn offloads(&self) -> &Offloads {
        &self.offloads
    }

    /// Channels, the first one included. Frames of one flow come on one of them.
    pub fn channels(&self) -> usize {
        self.queues.len()
    }

    /// Whether there is a link.
    pub fn has_link(&self) -> bool {
        self.queues.first().is_some_and(|queue| queue.line.has_link())
    }

    /// Waits until the host has said something of the link more often than `seen` times, whatever it is; returns how often. Begin with
    /// zero. After that, addresses are to be asked for anew.
    pub async fn link_changed(&self, seen: u32) -> Result<u32, NetworkError> {
        self.queue(0)?.link_changed(seen).await
    }

    /// What went through; `None` of a card without channels.
    pub fn counters(&self) -> Option<&Counters> {
        self.queues.first().map(|queue| &queue.line.counters)
    }

    /// Bytes that [`receive`](Self::receive) needs.
    pub const fn largest_frame(&self) -> usize {
        match self.offloads.coalesced {
            true => MAX_FRAME,
            false => self.mtu as usize + ETHERNET_HEADER + 4,
        }
    }

    /// Bytes of the largest frame that can be sent with [`Beside::cut`]; zero if none is cut.
    pub fn largest_cut(&self) -> usize {
        let most = self.offloads.large_4.min(self.offloads.large_6) as usize;
        let room = self.queues.iter().map(|queue| queue.largest_message()).min();
        let most = most
            .min(room.unwrap_or(0).saturating_sub(MAX_HEAD))
            .min(MAX_FRAME - 4);
        if most > self.mtu as usize + ETHERNET_HEADER {
            most
        } else {
            0
        }
    }

    fn queue(&self, index: usize) -> Result<&Arc<Queue>, NetworkError> {
        self.queues.get(index).ok_or(NetworkError::NoQueue(index))
    }

    /// Sends a frame on a channel. Its checksums, and the lengths of one that is to be cut, are changed to what the host wants in their
    /// place. [`NetworkError::Full`]: there is no room now.
    #[inline]
    pub fn send(&self, queue: usize, frame: &mut [u8], beside: &Beside) -> Result<(), NetworkError> {
        let queue = self.queue(queue)?;
        let work = offload::prepare(frame, beside, &self.offloads, self.mtu as usize)?;
        let mut start = PacketStart::new();
        if let Some(checksum) = work.checksum {
            start.add(InfoType::CHECKSUM, checksum.0);
        }
        if let Some(large) = work.large {
            start.add(InfoType::LARGE_SEND, large.0);
        }
        if let Some(tag) = beside.tag {
            start.add(InfoType::VLAN, VlanTag::from_tci(tag).0);
        }
        queue.send(frame, &start)?;
        Counters::count(&queue.line.counters.sent);
        Ok(())
    }

    /// Whether a frame can be sent now.
    #[inline]
    pub fn is_writable(&self, queue: usize) -> bool {
        self.queue(queue).is_ok_and(|queue| queue.is_writable())
    }

    /// Waits until a frame can be sent.
    pub async fn writable(&self, queue: usize) -> Result<(), NetworkError> {
        self.queue(queue)?.writable().await
    }

    /// As [`writable`](Self::writable), for those who are a future themselves.
    pub fn poll_writable(&self, queue: usize, context: &Context<'_>) -> Poll<Result<(), NetworkError>> {
        match self.queue(queue) {
            Ok(queue) => queue.poll_writable(context),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Takes the next frame of a channel: its bytes come first in `into`, which holds [`largest_frame`](Self::largest_frame). `None`: there is none now.
    #[inline]
    pub fn receive(&self, queue: usize, into: &mut [u8]) -> Result<Option<Received>, NetworkError> {
        self.queue(queue)?.receive(into)
    }

    /// Waits until something has come on any channel that [`receive`](Self::receive) may find a frame in.
    pub async fn readable(&self) -> Result<(), NetworkError> {
        poll_fn(|context| self.poll_readable(context)).await
    }

    /// As [`readable`](Self::readable), for those who are a future themselves.
    pub fn poll_readable(&self, context: &Context<'_>) -> Poll<Result<(), NetworkError>> {
        let mut ready = Poll::Pending;
        for queue in &self.queues {
            if let Poll::Ready(result) = queue.poll_readable(context) {
                ready = Poll::Ready(result);
            }
        }
        ready
    }

    /// Puts signals to the host off until what is returned is dropped, so that what is sent meanwhile is told at once.
    pub fn batch(&self) -> Batch<'_> {
        self.queues.iter().for_each(|queue| queue.hold());
        Batch(self)
    }

    /// Frames that were sent and that the host has not completed.
    pub fn under_way(&self) -> usize {
        self.queues.iter().map(|queue| queue.under_way()).sum()
    }

    /// Which frames come.
    pub async fn set_filter(&self, filter: PacketFilter) -> Result<(), NetworkError> {
        let value = filter.bits();
        setup::set(self.queue(0)?, Oid::CURRENT_PACKET_FILTER, value.as_bytes()).await
    }

    /// Has the card use another address; a switch may allow no other than the first.
    pub async fn set_address(&self, address: Mac) -> Result<(), NetworkError> {
        let utf16 = |text: &str| {
            text.encode_utf16()
                .flat_map(u16::to_le_bytes)
                .collect::<Vec<u8>>()
        };
        let digits: alloc::string::String = address
            .0
            .iter()
            .map(|byte| alloc::format!("{byte:02x}"))
            .collect();
        let (name, value) = (utf16("NetworkAddress"), utf16(&digits));
        let head = size_of::<ConfigurationParameter>();
        let parameter = ConfigurationParameter {
            name_offset: head as u32,
            name_length: name.len() as u32,
            parameter_type: PARAMETER_STRING,
            value_offset: (head + name.len()) as u32,
            value_length: value.len() as u32,
        };
        let parameter = [parameter.as_bytes(), &name, &value].concat();
        setup::set(self.queue(0)?, Oid::RNDIS_CONFIGURATION_PARAMETER, &parameter).await?;
        *self.address.lock() = address;
        Ok(())
    }

    /// Asks for a number of the host's, such as [`Oid::LINK_SPEED`].
    pub async fn query(&self, oid: Oid) -> Result<Vec<u8>, NetworkError> {
        setup::query(self.queue(0)?, oid, &[]).await
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        if let Some(queue) = self.queues.first() {
            for (message, id) in [
                (MessageType::REVOKE_RECEIVE_BUFFER, RECEIVE_BUFFER_ID),
                (MessageType::REVOKE_SEND_BUFFER, SEND_BUFFER_ID),
            ] {
                queue.tell_now(message, &RevokeBuffer { id, padding: 0 });
            }
        }
    }
}

/// While it lives, the host is not signalled.
#[derive(Debug)]
pub struct Batch<'a>(&'a Card);

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.0.queues.iter().for_each(|queue| queue.release());
    }
}
