//! The state as numbered fields: what a bus is between two messages, when nothing waits to be confirmed.
//!
//! Numbers are for ever: a field that goes leaves its number unused, a new one takes the next and has a meaning when absent.
//! Device state is not here; its devices save that beside [`SavedChannel`]'s id.

use super::channel::{Channel, Life, OfferId, State};
use super::connection::{Connection, Contact};
use super::gpadl::{Gpadl, GpadlState};
use super::{Limits, MessageTarget, OpenRequest, Server};
use crate::protocol::gpadl::GpaRange;
use crate::protocol::id::{GpadlId, Relid};
use crate::protocol::offer::Offer;
use crate::protocol::version::{FeatureFlags, Version};
use alloc::sync::Arc;
use alloc::vec::Vec;

macro_rules! saved {
    ($($(#[$doc:meta])* $name:ident { $($number:literal $(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $name {
            /// Numbers and names of the fields.
            pub const FIELDS: &[(u16, &str)] = &[$(($number, stringify!($field)),)*];
        }
    )*};
}

saved! {
    /// A server.
    Saved {
        1 /// The guest, if it is connected.
        connection: Option<SavedConnection>,
        2 /// Every channel, in the order of their ids.
        channels: Vec<SavedChannel>,
        3 /// Every GPADL.
        gpadls: Vec<SavedGpadl>,
        4 /// The id that the next offer gets.
        next_offer: u64,
        5 /// The relid that is tried first for the next channel.
        next_relid: u32,
    }

    /// What was agreed on with the guest.
    SavedConnection {
        1 /// Version.
        version: u32,
        2 /// VP that takes messages.
        target_vp: u32,
        3 /// SINT that takes them.
        target_sint: u8,
        4 /// Feature flags.
        features: u32,
        5 /// GPAs of the monitor pages.
        monitor_pages: [u64; 2],
        6 /// The guest has asked for offers.
        offers_requested: bool,
    }

    /// A channel.
    SavedChannel {
        1 /// Its id.
        id: u64,
        2 /// The device.
        offer: Offer,
        3 /// The guest's name for it.
        relid: Option<u32>,
        4 /// How it is used, if it is open.
        open: Option<OpenRequest>,
        5 /// Rescinded, and not given up by the guest yet.
        rescinded: bool,
    }

    /// A GPADL.
    SavedGpadl {
        1 /// The guest's name for it.
        gpadl: u32,
        2 /// Its channel.
        offer: u64,
        3 /// That channel's name for the guest.
        relid: u32,
        4 /// The pages.
        ranges: Arc<[GpaRange]>,
    }
}

/// Something waits to be confirmed or to become whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the bus is in the middle of something")]
pub struct Busy;

impl Server {
    /// The state, between two messages and when nothing waits.
    pub fn save(&self) -> Result<Saved, Busy> {
        let connection = match &self.connection {
            Connection::Disconnected => None,
            Connection::Connected(contact) => Some(SavedConnection {
                version: contact.version.0,
                target_vp: contact.target.vp.0,
                target_sint: contact.target.sint,
                features: contact.features.bits(),
                monitor_pages: contact.monitor_pages,
                offers_requested: contact.offers_requested,
            }),
            Connection::Resetting(_) => return Err(Busy),
        };
        if !self.sockets.is_empty() {
            return Err(Busy);
        }
        let channels = self
            .channels
            .iter()
            .map(|(id, channel)| save_channel(*id, channel));
        let gpadls = self.gpadls.iter().map(|(gpadl, list)| save_gpadl(*gpadl, list));
        Ok(Saved {
            connection,
            channels: channels.collect::<Result<_, _>>()?,
            gpadls: gpadls.collect::<Result<_, _>>()?,
            next_offer: self.next_offer,
            next_relid: self.next_relid.0,
        })
    }

    /// A server in a state that [`Server::save`] gave. Before the guest runs, its owner maps the GPADLs and starts the devices
    /// of open channels, without confirming either.
    pub fn restore(limits: Limits, saved: &Saved) -> Self {
        let mut server = Self::new(limits);
        server.next_offer = saved.next_offer;
        server.next_relid = Relid(saved.next_relid.clamp(Relid::MIN.0, Relid::MAX.0));
        if let Some(connection) = &saved.connection {
            server.connection = Connection::Connected(Contact {
                version: Version(connection.version),
                target: MessageTarget {
                    vp: hypercall_api::id::VpIndex(connection.target_vp),
                    sint: connection.target_sint,
                },
                features: FeatureFlags::from_bits_truncate(connection.features),
                monitor_pages: connection.monitor_pages,
                offers_requested: connection.offers_requested,
            });
        }
        for saved in &saved.channels {
            let id = OfferId(saved.id);
            let relid = saved.relid.map(Relid);
            let channel = Channel {
                offer: saved.offer.clone(),
                relid,
                state: saved.open.map_or(State::Closed, State::Open),
                life: match saved.rescinded {
                    true => Life::Rescinded,
                    false => Life::Offered,
                },
                moves: 0,
            };
            server.relids.extend(relid.map(|relid| (relid, id)));
            server.channels.insert(id, channel);
        }
        for saved in &saved.gpadls {
            let list = Gpadl {
                offer: OfferId(saved.offer),
                relid: Relid(saved.relid),
                pages: saved.ranges.iter().map(|range| range.pages.len()).sum(),
                state: GpadlState::Mapped(saved.ranges.clone()),
            };
            server.gpadls.insert(GpadlId(saved.gpadl), list);
        }
        server
    }
}

fn save_channel(id: OfferId, channel: &Channel) -> Result<SavedChannel, Busy> {
    let open = match &channel.state {
        State::Closed => None,
        State::Open(request) if channel.moves == 0 => Some(*request),
        _ => return Err(Busy),
    };
    Ok(SavedChannel {
        id: id.0,
        offer: channel.offer.clone(),
        relid: channel.relid.map(|relid| relid.0),
        open,
        rescinded: channel.life != Life::Offered,
    })
}

fn save_gpadl(gpadl: GpadlId, list: &Gpadl) -> Result<SavedGpadl, Busy> {
    match &list.state {
        GpadlState::Mapped(ranges) => Ok(SavedGpadl {
            gpadl: gpadl.0,
            offer: list.offer.0,
            relid: list.relid.0,
            ranges: ranges.clone(),
        }),
        _ => Err(Busy),
    }
}
