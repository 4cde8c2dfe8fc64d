//! A guest and a host on one bus, for tests and fuzz targets: a [`Client`] and a [`Server`] with queues between them, and an owner of
//! the server that checks the order of what it is asked.

use crate::client::{Client, Effect, Event, Settings};
use crate::protocol::id::{GpadlId, Status};
use crate::protocol::message::MessageBytes;
use crate::server::{Action, Limits, OfferId, OpenRequest, Server};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

/// The server's owner: what devices use, and what is not confirmed yet.
#[derive(Default, Debug)]
pub struct Owner {
    /// Channels whose devices run, and how.
    pub open: BTreeMap<OfferId, OpenRequest>,
    /// Lists that are mapped.
    pub mapped: BTreeSet<GpadlId>,
    /// What was asked and is to be confirmed.
    pub waiting: VecDeque<Action>,
    /// Messages that the guest has not taken.
    pub sent: VecDeque<MessageBytes>,
    /// Offers that are no more.
    pub released: Vec<OfferId>,
}

impl Extend<Action> for Owner {
    fn extend<I: IntoIterator<Item = Action>>(&mut self, actions: I) {
        for action in actions {
            match action {
                Action::Send { message, .. } => self.sent.push_back(message),
                Action::Released(id) => {
                    assert!(!self.open.contains_key(&id), "an open channel is released");
                    self.released.push(id);
                }
                other => self.waiting.push_back(other),
            }
        }
    }
}

impl Owner {
    /// Does and confirms the oldest thing that waits, or refuses it where that is possible. Returns whether there was one.
    pub fn confirm(&mut self, server: &mut Server, agree: bool) -> bool {
        let Some(action) = self.waiting.pop_front() else {
            return false;
        };
        let result = match agree {
            true => Ok(()),
            false => Err(Status::UNSUCCESSFUL),
        };
        match action {
            Action::Open(id, request) => {
                // A close may have come since, whose list may be on its way out.
                let wanted = server
                    .channel(id)
                    .is_some_and(|channel| channel.open == Some(&request));
                if wanted && agree {
                    assert!(self.mapped.contains(&request.gpadl), "rings that are not mapped");
                    assert!(self.open.insert(id, request).is_none(), "opened twice");
                }
                server.opened(id, result, self);
            }
            Action::Close(id) => {
                self.open.remove(&id);
                server.closed(id, self);
            }
            Action::Modify(id, _) => server.modified(id, result, self),
            Action::MapGpadl { gpadl, .. } => {
                assert!(!self.mapped.contains(&gpadl), "mapped twice");
                if agree {
                    self.mapped.insert(gpadl);
                }
                server.gpadl_mapped(gpadl, result, self);
            }
            Action::UnmapGpadl(gpadl) => {
                let used = self.open.values().any(|request| request.gpadl == gpadl);
                if used {
                    // The rings' device has to let go first.
                    self.waiting.push_back(Action::UnmapGpadl(gpadl));
                    return self
                        .waiting
                        .iter()
                        .any(|action| !matches!(action, Action::UnmapGpadl(_)));
                }
                self.mapped.remove(&gpadl);
                server.gpadl_unmapped(gpadl, self);
            }
            Action::ConnectSocket(request) => server.socket_connected(&request, result, self),
            Action::Send { .. } | Action::Released(_) => unreachable!(),
        }
        true
    }

    /// Confirms everything.
    pub fn confirm_all(&mut self, server: &mut Server) {
        while self.confirm(server, true) {}
    }
}

/// A guest and a host.
#[derive(Debug)]
pub struct World {
    /// The host's end.
    pub server: Server,
    /// What is behind it.
    pub owner: Owner,
    /// The guest's end.
    pub client: Client,
    /// What the guest has posted and the host has not taken.
    pub posted: VecDeque<MessageBytes>,
    /// What the guest has heard.
    pub events: Vec<Event>,
}

/// The guest's side of a world, for the client to put effects in.
pub struct Guest<'a>(&'a mut VecDeque<MessageBytes>, &'a mut Vec<Event>);

impl Extend<Effect> for Guest<'_> {
    fn extend<I: IntoIterator<Item = Effect>>(&mut self, effects: I) {
        for effect in effects {
            match effect {
                Effect::Post { message, .. } => self.0.push_back(message),
                Effect::Event(event) => self.1.push(event),
            }
        }
    }
}

impl World {
    /// Both ends, not connected.
    pub fn new(limits: Limits, settings: Settings) -> Self {
        Self {
            server: Server::new(limits),
            owner: Owner::default(),
            client: Client::new(settings),
            posted: VecDeque::new(),
            events: Vec::new(),
        }
    }

    /// The client, and where its effects go.
    pub fn guest(&mut self) -> (&mut Client, Guest<'_>) {
        (&mut self.client, Guest(&mut self.posted, &mut self.events))
    }

    /// Carries messages to and fro until none is left.
    pub fn exchange(&mut self) {
        loop {
            if let Some(message) = self.posted.pop_front() {
                self.server.receive(&message, &mut self.owner);
            } else if let Some(message) = self.owner.sent.pop_front() {
                let (client, mut guest) = self.guest();
                client.receive(&message, &mut guest);
            } else {
                return;
            }
        }
    }

    /// Carries messages, and has the owner confirm everything, until nothing is left.
    pub fn settle(&mut self) {
        loop {
            self.exchange();
            if !self.owner.confirm(&mut self.server, true) && self.owner.sent.is_empty() {
                return;
            }
        }
    }

    /// What the guest has heard since the last time.
    pub fn heard(&mut self) -> Vec<Event> {
        core::mem::take(&mut self.events)
    }
}
