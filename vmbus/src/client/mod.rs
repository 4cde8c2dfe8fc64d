//! A guest's end of the bus: contact, offers, channels and GPADLs.
//!
//! [`Client`] is a state machine without I/O. Its owner gives it the host's messages ([`Client::receive`]) and its own wishes
//! ([`Client::connect`], [`Client::open`], …), and carries out the [`Effect`]s: messages to post, and events to hear. The host may
//! lie: what does not fit what was asked is ignored, and memory counts as the guest's own again only once that was both asked
//! for and granted.
//!
//! The order of a life: `connect` → [`Event::Connected`] → `request_offers` → [`Event::Offered`]… → `create_gpadl` →
//! [`Event::GpadlCreated`] → `open` → [`Event::Opened`] … `close` → `teardown_gpadl` → [`Event::GpadlTornDown`], and after
//! [`Event::Rescinded`] the same end, then `release`.
//!
//! | file | what it is |
//! |---|---|
//! | `connection` | contact with one version after the other, offers, unload |
//! | `channel` | channels and GPADLs |
//! | `event` | what an owner is asked to do and told |

mod channel;
mod connection;
mod event;

pub use event::{Effect, Event, OfferedChannel};

use crate::protocol::id::{GpadlId, Relid, SINT};
use crate::protocol::message::{ChannelMessage, MessageBytes, Sender};
use crate::protocol::version::Version;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use channel::{Channel, Gpadl};
use connection::Phase;
use hypercall_api::address::Gpa;
use hypercall_api::id::VpIndex;

/// What a guest says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The newest version to try.
    pub max_version: Version,
    /// VP that takes messages.
    pub target_vp: VpIndex,
    /// SINT that takes them; hosts that speak no version from 5.0 on use [`SINT`].
    pub sint: u8,
    /// The shared interrupt page, for hosts that speak no version from 5.0 on.
    pub interrupt_page: Gpa,
    /// The monitor pages, from parent to child and back; zero: none.
    pub monitor_pages: [Gpa; 2],
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_version: Version::ALL[0],
            target_vp: VpIndex(0),
            sint: SINT,
            interrupt_page: Gpa(0),
            monitor_pages: [Gpa(0); 2],
        }
    }
}

/// Why a wish cannot be fulfilled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no connection, or there is one already.
    #[error("the bus is not in a state for that")]
    WrongPhase,
    /// No such channel.
    #[error("there is no channel {0}")]
    NoChannel(Relid),
    /// The channel is not in a state for that, or its GPADLs are not torn down.
    #[error("channel {0} is not in a state for that")]
    ChannelState(Relid),
    /// No such GPADL, or it is not in a state for that.
    #[error("GPADL {0} is not in a state for that")]
    GpadlState(GpadlId),
    /// The ranges cannot be said.
    #[error(transparent)]
    Ranges(#[from] crate::protocol::gpadl::GpadlError),
    /// The version that was agreed on cannot do it.
    #[error("version {0} of the bus cannot do that")]
    Version(Version),
}

/// A guest's end of the bus.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    phase: Phase,
    channels: BTreeMap<Relid, Channel>,
    gpadls: BTreeMap<GpadlId, Gpadl>,
    next_gpadl: u32,
    effects: Vec<Effect>,
}

impl Client {
    /// An end that has not made contact.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            phase: Phase::Disconnected,
            channels: BTreeMap::new(),
            gpadls: BTreeMap::new(),
            // As Linux begins.
            next_gpadl: 0xe1e10,
            effects: Vec::new(),
        }
    }

    /// Takes one message of the host.
    pub fn receive(&mut self, message: &[u8], out: &mut impl Extend<Effect>) {
        let version = self.version().unwrap_or(Version::V2_4);
        match ChannelMessage::parse(message, Sender::Host, version) {
            Ok((message, rest)) => self.handle(&message, rest),
            Err(error) => log::debug!("the host's message is ignored: {error}"),
        }
        self.flush(out);
    }

    /// The version that was agreed on, while connected.
    pub const fn version(&self) -> Option<Version> {
        match self.phase {
            Phase::Connected(connected) => Some(connected.version),
            _ => None,
        }
    }

    fn handle(&mut self, message: &ChannelMessage, rest: &[u8]) {
        match message {
            ChannelMessage::VersionResponse(response) => return self.version_response(response, rest),
            ChannelMessage::UnloadResponse(_) => return self.unload_response(),
            _ => {}
        }
        if self.version().is_none() {
            log::debug!("the host sends {} without a connection", message.message_type());
            return;
        }
        match message {
            ChannelMessage::OfferChannel(offer) => self.offered(offer),
            ChannelMessage::AllOffersDelivered(_) => self.event(Event::OffersDelivered),
            ChannelMessage::RescindChannelOffer(named) => self.rescinded(named.relid),
            ChannelMessage::OpenChannelResult(result) => self.open_result(result),
            ChannelMessage::GpadlCreated(created) => self.gpadl_created(created),
            ChannelMessage::GpadlTorndown(torndown) => self.gpadl_torndown(torndown.gpadl),
            ChannelMessage::ModifyChannelResponse(response) => self.modify_response(response),
            ChannelMessage::SocketResult(result) => self.event(Event::SocketRefused {
                endpoint: result.endpoint.into(),
                service: result.service.into(),
                status: result.status,
            }),
            other => log::debug!("the host sends {}, which guests send", other.message_type()),
        }
    }

    fn connected(&self) -> Result<Version, ClientError> {
        self.version().ok_or(ClientError::WrongPhase)
    }

    fn event(&mut self, event: Event) {
        self.effects.push(Effect::Event(event));
    }

    fn post(&mut self, message: ChannelMessage) {
        self.post_bytes(message.encode());
    }

    /// Posts to where the host said.
    fn post_bytes(&mut self, message: MessageBytes) {
        let connection = self.phase.message_connection();
        self.effects.push(Effect::Post { connection, message });
    }

    fn flush(&mut self, out: &mut impl Extend<Effect>) {
        out.extend(self.effects.drain(..));
    }
}
