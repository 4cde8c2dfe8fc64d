//! The root's end of the bus: offers, channels and GPADLs of one guest.
//!
//! [`Server`] is a state machine without I/O. Its owner gives it what the guest posts ([`Server::receive`]) and what devices do
//! ([`Server::offer`], [`Server::rescind`], …), carries out the [`Action`]s it asks for in their order, and confirms those that it
//! says are to be confirmed, at once or later. Whatever a guest sends, each request that it waits on is answered, and what it
//! held is given up when it goes, by its own word, by a fresh contact or by [`Server::disconnect`]; a guest hears that memory
//! is its own again only after the owner has let go of it.
//!
//! Monitor pages are remembered, and looked at by nobody: no offer of this server asks for monitoring, so a guest signals by its
//! connection. Our own client does what a host asks for.
//!
//! | file | what it is |
//! |---|---|
//! | `action` | what an owner is asked to do |
//! | `connection` | contact, versions, unload, and the reset that both begin with |
//! | `channel` | offers, and channels that open, close, move and are rescinded |
//! | `gpadl` | lists of guest pages |
//! | `saved` | the state as numbered fields |

mod action;
mod channel;
mod connection;
mod gpadl;
mod saved;

pub use action::{Action, MessageTarget, OpenRequest};
pub use channel::{ChannelState, ChannelView, OfferError, OfferId};
pub use saved::{Busy, Saved, SavedChannel, SavedConnection, SavedGpadl};

use crate::protocol::body::{
    GpadlCreated, GpadlTorndown, ModifyResponse, OpenResult, SocketConnect, SocketResult,
};
use crate::protocol::id::{GpadlId, Relid, Status};
use crate::protocol::message::{ChannelMessage, MessageError, Sender};
use crate::protocol::version::Version;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use channel::Channel;
use connection::Connection;
use gpadl::Gpadl;
use hypercall_api::port::ConnectionId;

/// Bounds of what one guest can make its server hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Offers, those with them that the guest has not given up yet. A bus cannot have more than 2047.
    pub channels: usize,
    /// GPADLs.
    pub gpadls: usize,
    /// Pages of all of them.
    pub gpadl_pages: usize,
    /// Connections of sockets that wait.
    pub sockets: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            channels: Relid::MAX.0 as usize,
            gpadls: 4096,
            gpadl_pages: 256 << 10,
            sockets: 64,
        }
    }
}

/// Where the guest signals a channel.
pub const fn event_connection(relid: Relid) -> ConnectionId {
    ConnectionId(0x2000 + relid.0)
}

/// The root's end of one guest's bus.
#[derive(Debug)]
pub struct Server {
    limits: Limits,
    connection: Connection,
    channels: BTreeMap<OfferId, Channel>,
    relids: BTreeMap<Relid, OfferId>,
    gpadls: BTreeMap<GpadlId, Gpadl>,
    sockets: Vec<SocketConnect>,
    next_offer: u64,
    next_relid: Relid,
    actions: Vec<Action>,
}

impl Server {
    /// A bus without devices, that no guest has found yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits: Limits {
                channels: limits.channels.min(Relid::MAX.0 as usize),
                ..limits
            },
            connection: Connection::Disconnected,
            channels: BTreeMap::new(),
            relids: BTreeMap::new(),
            gpadls: BTreeMap::new(),
            sockets: Vec::new(),
            next_offer: 1,
            next_relid: Relid::MIN,
            actions: Vec::new(),
        }
    }

    /// Takes one message of the guest. Never fails: what cannot be done is answered, or ignored where nobody waits for an answer.
    pub fn receive(&mut self, message: &[u8], out: &mut impl Extend<Action>) {
        let version = self.version().unwrap_or(Version::V2_4);
        match ChannelMessage::parse(message, Sender::Guest, version) {
            Ok((message, rest)) => self.handle(message, rest),
            Err(error) => {
                log::debug!("a guest's message is refused: {error}");
                if let (MessageError::TooShort { .. }, Some(message)) =
                    (error, ChannelMessage::parse_padded(message))
                {
                    self.refuse(&message, Status::INVALID_PARAMETER);
                }
            }
        }
        self.flush(out);
    }

    /// The version that was agreed on, while a guest is connected.
    pub fn version(&self) -> Option<Version> {
        self.connection.contact().map(|contact| contact.version)
    }

    /// Whether the guest holds nothing: it is not connected, and all that it had is given up.
    pub fn is_idle(&self) -> bool {
        matches!(self.connection, Connection::Disconnected) && self.gpadls.is_empty()
    }

    fn handle(&mut self, message: ChannelMessage, rest: &[u8]) {
        match &message {
            ChannelMessage::InitiateContact(contact) => return self.initiate_contact(contact),
            ChannelMessage::Unload(_) => return self.unload(),
            _ => {}
        }
        if self.connection.contact().is_none() {
            log::debug!("a guest that is not connected sends {}", message.message_type());
            return;
        }
        match message {
            ChannelMessage::RequestOffers(_) => self.request_offers(),
            ChannelMessage::OpenChannel(open) => self.open_channel(&open),
            ChannelMessage::CloseChannel(named) => self.close_channel(named.relid),
            ChannelMessage::GpadlHeader(header) => self.gpadl_header(&header, rest),
            ChannelMessage::GpadlBody(body) => self.gpadl_body(body.gpadl, rest),
            ChannelMessage::GpadlTeardown(teardown) => self.gpadl_teardown(&teardown),
            ChannelMessage::RelidReleased(named) => self.relid_released(named.relid),
            ChannelMessage::ModifyChannel(modify) => self.modify_channel(&modify),
            ChannelMessage::SocketConnect(request) => self.socket_connect(request),
            other => log::debug!("a guest sends {}, which hosts send", other.message_type()),
        }
    }

    /// Answers a request with a failure, if it is one that is answered.
    fn refuse(&mut self, message: &ChannelMessage, status: Status) {
        match *message {
            ChannelMessage::InitiateContact(ref contact) => self.refuse_contact(contact),
            ChannelMessage::OpenChannel(open) => self.send(ChannelMessage::OpenChannelResult(OpenResult {
                relid: open.relid,
                open_id: open.open_id,
                status,
            })),
            ChannelMessage::GpadlHeader(header) => self.send(ChannelMessage::GpadlCreated(GpadlCreated {
                relid: header.relid,
                gpadl: header.gpadl,
                status,
            })),
            ChannelMessage::GpadlTeardown(teardown) => {
                let gpadl = teardown.gpadl;
                self.send(ChannelMessage::GpadlTorndown(GpadlTorndown { gpadl }));
            }
            ChannelMessage::ModifyChannel(modify) => self.answer_modify(modify.relid, status),
            ChannelMessage::SocketConnect(request) => self.answer_socket(&request, status),
            _ => {}
        }
    }

    fn answer_modify(&mut self, relid: Relid, status: Status) {
        if self.version().is_some_and(Version::answers_modify) {
            self.send(ChannelMessage::ModifyChannelResponse(ModifyResponse {
                relid,
                status,
            }));
        }
    }

    fn answer_socket(&mut self, request: &SocketConnect, status: Status) {
        self.send(ChannelMessage::SocketResult(SocketResult {
            endpoint: request.endpoint,
            service: request.service,
            status,
        }));
    }

    fn socket_connect(&mut self, request: SocketConnect) {
        if self.sockets.len() >= self.limits.sockets {
            return self.answer_socket(&request, Status::INSUFFICIENT_RESOURCES);
        }
        self.sockets.push(request);
        self.push(Action::ConnectSocket(request));
    }

    /// Confirms [`Action::ConnectSocket`]: on success, the owner has offered or will offer the socket's channel.
    pub fn socket_connected(
        &mut self,
        request: &SocketConnect,
        result: Result<(), Status>,
        out: &mut impl Extend<Action>,
    ) {
        if let Some(index) = self.sockets.iter().position(|waiting| waiting == request) {
            self.sockets.swap_remove(index);
            if result.is_err() {
                self.answer_socket(request, result.into());
            }
        }
        self.flush(out);
    }

    fn push(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Sends to the guest that is connected.
    fn send(&mut self, message: ChannelMessage) {
        if let Some(contact) = self.connection.contact() {
            let target = contact.target;
            self.send_to(target, message, &[]);
        }
    }

    fn send_to(&mut self, target: MessageTarget, message: ChannelMessage, rest: &[u8]) {
        let message = message.encode_with(rest);
        self.push(Action::Send { target, message });
    }

    fn flush(&mut self, out: &mut impl Extend<Action>) {
        out.extend(self.actions.drain(..));
    }
}
