//! The card as a stack wants it: [`Station`] is smoltcp's `phy::Device` with the feature `smoltcp`, and embassy-net's `Driver` with the
//! feature `embassy-net-driver`.
//!
//! The stack need not look at checksums of IPv4, TCP and UDP in either direction: the host does, and where it does not, the station
//! does. Those of ICMP are the stack's.
//!
//! Where the host cuts large TCP packets, and gives such that come whole, the stack is told of an MTU as large as those, so that 60 KiB go
//! at once. What its packets say that begin a connection is put right: to others, it takes segments of the real MTU; and of others that
//! take such, it hears that they take large ones, as the host cuts them. Datagrams larger than the real MTU are dropped.
//! [`Station::without_large_packets`] tells the stack the real MTU.

#![cfg_attr(
    not(any(feature = "smoltcp", feature = "embassy-net-driver")),
    allow(dead_code, reason = "its users are the stacks' traits")
)]

#[cfg(feature = "embassy-net-driver")]
mod embassy;
#[cfg(feature = "smoltcp")]
mod smoltcp;

#[cfg(feature = "smoltcp")]
pub use smoltcp::poll;

use super::card::{Card, Counters};
use super::offload::{self, Beside};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use vmbus::protocol::network::ETHERNET_HEADER;

/// VLAN number in a tag.
const VLAN: u16 = 0xfff;
/// Frames that are looked at for one that is wanted.
const AT_ONCE: usize = 64;

/// The card as a stack wants it. It takes all frames of the card, so there is one.
#[derive(Debug)]
pub struct Station {
    card: Arc<Card>,
    incoming: Box<[u8]>,
    outgoing: Box<[u8]>,
    /// The channel that is looked at first.
    next: usize,
    vlan: Option<u16>,
    largest: usize,
}

impl Station {
    /// A station with untagged frames.
    pub fn new(card: Arc<Card>) -> Self {
        let largest = match card.offloads().coalesced {
            true => card.largest_cut(),
            false => 0,
        };
        Self::with_largest(card, largest)
    }

    /// A station whose stack is told the card's own MTU.
    pub fn without_large_packets(card: Arc<Card>) -> Self {
        Self::with_largest(card, 0)
    }

    fn with_largest(card: Arc<Card>, largest: usize) -> Self {
        let largest = largest.max(card.mtu() as usize + ETHERNET_HEADER);
        Self {
            incoming: vec![0; card.largest_frame()].into(),
            outgoing: vec![0; largest].into(),
            next: 0,
            vlan: None,
            largest,
            card,
        }
    }

    /// The same in a VLAN, 1 to 4094, with tagged frames; the card's port must be a trunk of it.
    pub fn in_vlan(self, vlan: u16) -> Self {
        Self {
            vlan: Some(vlan & VLAN),
            ..self
        }
    }

    /// The card.
    pub const fn card(&self) -> &Arc<Card> {
        &self.card
    }

    /// Bytes of the largest frame that the stack may make, its header included.
    pub const fn largest_frame(&self) -> usize {
        self.largest
    }

    /// Takes the next frame that is for this station; returns its bytes, which come first in `incoming`.
    #[inline]
    fn take(&mut self) -> Option<usize> {
        let channels = self.card.channels();
        for _ in 0..AT_ONCE {
            let mut found = None;
            for _ in 0..channels {
                // A card that is gone has nothing more; whoever opened it is told of that elsewhere.
                if let Ok(Some(received)) = self.card.receive(self.next, &mut self.incoming) {
                    found = Some(received);
                    break;
                }
                self.next = (self.next + 1) % channels.max(1);
            }
            let received = found?;
            // Tags of VLAN 0 have a priority only.
            let vlan = received.tag.map(|tag| tag & VLAN).filter(|vlan| *vlan != 0);
            let frame = self.incoming.get_mut(..received.length)?;
            if vlan != self.vlan {
                continue;
            }
            if offload::holds(frame, received.checksum) {
                let (own, large) = (self.card.mtu(), self.largest);
                if large > own as usize + ETHERNET_HEADER {
                    let large = segment_size(large - ETHERNET_HEADER, false);
                    offload::change_segment_size(frame, |size, ipv6| {
                        match size >= segment_size(own as usize, ipv6) {
                            true => large,
                            false => size,
                        }
                    });
                }
                return Some(received.length);
            }
            if let Some(counters) = self.card.counters() {
                Counters::count(&counters.bad_checksums);
            }
        }
        None
    }

    /// The frame that was taken, and where to put one.
    fn tokens(&mut self, length: usize) -> (Incoming<'_>, Outgoing<'_>) {
        let incoming = Incoming(self.incoming.get_mut(..length).unwrap_or_default());
        let outgoing = Outgoing {
            card: &self.card,
            frame: &mut self.outgoing,
            vlan: self.vlan,
            largest: self.largest,
        };
        (incoming, outgoing)
    }

    fn outgoing(&mut self) -> Outgoing<'_> {
        self.tokens(0).1
    }
}

/// A frame that has come.
#[derive(Debug)]
pub struct Incoming<'a>(&'a mut [u8]);

/// Room for a frame.
#[derive(Debug)]
pub struct Outgoing<'a> {
    card: &'a Card,
    frame: &'a mut [u8],
    vlan: Option<u16>,
    largest: usize,
}

impl Outgoing<'_> {
    /// Has `fill` fill a frame of `length` bytes, and sends it. One for which there is no room is dropped and counted, as a wire would.
    #[inline]
    fn send<R>(self, length: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let Some(frame) = self.frame.get_mut(..length) else {
            dropped(self.card);
            return fill(&mut vec![0; length]);
        };
        let result = fill(frame);
        let own = self.card.mtu() as usize;
        if self.largest > own + ETHERNET_HEADER {
            offload::change_segment_size(frame, |size, ipv6| size.min(segment_size(own, ipv6)));
        }
        let beside = Beside {
            tag: self.vlan,
            fill_checksums: true,
            cut: true,
        };
        if self.card.send(0, frame, &beside).is_err() {
            dropped(self.card);
        }
        result
    }
}

fn dropped(card: &Card) {
    if let Some(counters) = card.counters() {
        Counters::count(&counters.no_room);
    }
}

/// Data bytes of a TCP segment in an IP packet of `mtu` bytes.
const fn segment_size(mtu: usize, ipv6: bool) -> u16 {
    let headers = if ipv6 { 60 } else { 40 };
    mtu.saturating_sub(headers) as u16
}
