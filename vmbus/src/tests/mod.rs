//! Both ends against each other, and each against a peer that breaks rules.
//!
//! | file | what it is |
//! |---|---|
//! | `life` | channels, devices and connections from their beginning to their end |
//! | `refusal` | peers that break rules, and bounds |

mod life;
mod refusal;

use crate::client::{ClientError, Event, OfferedChannel, Settings};
use crate::protocol::body::*;
use crate::protocol::gpadl::GpaRange;
use crate::protocol::guid::class;
use crate::protocol::id::{GpadlId, Relid, Status};
use crate::protocol::message::{ChannelMessage, MessageBytes, Sender};
use crate::protocol::offer::{Offer, OfferFlags};
use crate::protocol::version::Version;
use crate::server::{Action, ChannelState, Limits, OfferError, OfferId, Server};
use crate::world::World;
use alloc::vec;
use alloc::vec::Vec;
use hypercall_api::id::VpIndex;
use uuid::Uuid;

fn device(number: u128) -> Offer {
    Offer::new(class::SCSI, Uuid::from_u128(number))
}

fn pages(count: u64) -> Vec<GpaRange> {
    vec![GpaRange::whole((100..100 + count).collect())]
}

impl World {
    fn of(version: Version) -> Self {
        let max_version = version;
        Self::new(
            Limits::default(),
            Settings {
                max_version,
                ..Settings::default()
            },
        )
    }

    fn offer(&mut self, offer: Offer) -> OfferId {
        self.server.offer(offer, &mut self.owner).unwrap()
    }

    /// Connected, and told of `devices`.
    fn connected(devices: u128) -> (Self, Vec<OfferId>, Vec<Relid>) {
        let mut world = Self::of(Version::V6_0);
        let ids: Vec<_> = (0..devices).map(|number| world.offer(device(number))).collect();
        world.connect();
        let relids = ids
            .iter()
            .map(|id| world.server.channel(*id).unwrap().relid.unwrap());
        let relids = relids.collect();
        (world, ids, relids)
    }

    fn connect(&mut self) {
        let (client, mut out) = self.guest();
        client.connect(&mut out).unwrap();
        self.settle();
        let (client, mut out) = self.guest();
        client.request_offers(&mut out).unwrap();
        self.settle();
        self.heard();
    }

    fn gpadl(&mut self, relid: Relid, count: u64) -> GpadlId {
        let (client, mut out) = self.guest();
        let gpadl = client.create_gpadl(relid, &pages(count), &mut out).unwrap();
        self.settle();
        assert_eq!(self.heard(), [Event::GpadlCreated(relid, gpadl, Ok(()))]);
        gpadl
    }

    fn ask_to_open(&mut self, relid: Relid, gpadl: GpadlId) {
        let (client, mut out) = self.guest();
        client
            .open(relid, gpadl, 4, VpIndex(1), &[7; OPEN_USER_DATA], &mut out)
            .unwrap();
    }

    /// An open channel and its rings.
    fn open(&mut self, relid: Relid) -> GpadlId {
        let gpadl = self.gpadl(relid, 8);
        self.ask_to_open(relid, gpadl);
        self.settle();
        assert_eq!(self.heard(), [Event::Opened(relid, Ok(()))]);
        gpadl
    }

    fn close(&mut self, relid: Relid) {
        let (client, mut out) = self.guest();
        client.close(relid, &mut out).unwrap();
    }

    fn tear_down(&mut self, gpadl: GpadlId) {
        let (client, mut out) = self.guest();
        client.teardown_gpadl(gpadl, &mut out).unwrap();
    }

    fn state(&self, id: OfferId) -> ChannelState {
        self.server.channel(id).unwrap().state
    }

    /// The host's answers to a message that the client would not send.
    fn answers(&mut self, message: &[u8]) -> Vec<ChannelMessage> {
        self.server.receive(message, &mut self.owner);
        self.sent()
    }

    fn sent(&mut self) -> Vec<ChannelMessage> {
        let parse = |bytes: MessageBytes| {
            ChannelMessage::parse(&bytes, Sender::Host, Version::V6_0)
                .unwrap()
                .0
        };
        self.owner.sent.drain(..).map(parse).collect()
    }
}

fn contact(version: Version) -> ChannelMessage {
    ChannelMessage::InitiateContact(InitiateContact {
        version,
        target_vp: VpIndex(0),
        interrupt_page_or_target: 2,
        parent_to_child_monitor: 0,
        child_to_parent_monitor: 0,
    })
}
