//! What is known of the host, and how its messages change it.

use crate::hal::Hal;
use crate::memory::Pages;
use crate::wait::Waiting;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use hypercall_api::id::VpIndex;
use hypercall_api::port::ConnectionId;
use hypercall_api::status::HvStatus;
use vmbus::client::{Client, ClientError, Effect, Event, OfferedChannel, Settings};
use vmbus::protocol::body::OPEN_USER_DATA;
use vmbus::protocol::gpadl::GpaRange;
use vmbus::protocol::id::{GpadlId, Relid, Status};
use vmbus::protocol::message::MessageBytes;
use vmbus::protocol::version::Version;

/// Who handles the interrupts of a channel. Called by [`Bus::poll`](super::Bus::poll), on any VP.
pub trait Interrupt: Send + Sync {
    /// The host has signalled the channel. Returns whether there is more to do that it left, so as not to keep others waiting.
    fn interrupt(&self) -> bool;

    /// The channel's device is gone: nothing that was asked of it will be answered.
    fn gone(&self);
}

/// How far the contact is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Contact {
    None,
    Connected(Version),
    NoVersion,
}

/// A channel that is offered, or rescinded and not released yet.
struct Known {
    offered: OfferedChannel,
    rescinded: bool,
    /// Somebody has or wants it open.
    taken: bool,
    opened: Option<Result<(), Status>>,
    interrupt: Option<Weak<dyn Interrupt>>,
}

/// Pages that the host may use.
struct List {
    relid: Relid,
    _owner: Arc<dyn Any + Send + Sync>,
    created: Option<Result<(), Status>>,
    /// Other memory that the host may use as long as it has the channel.
    held: Vec<Box<dyn Any + Send>>,
}

pub(super) struct State<H: Hal> {
    client: Client,
    pub(super) contact: Contact,
    pub(super) offers_delivered: bool,
    channels: BTreeMap<Relid, Known>,
    lists: BTreeMap<GpadlId, List>,
    /// Offers and rescinds so far.
    pub(super) changes: u64,
    /// Messages that were not taken yet.
    pub(super) outbox: VecDeque<(ConnectionId, MessageBytes)>,
    /// Channels whose devices went, whose owners are to be told.
    pub(super) gone: Vec<Arc<dyn Interrupt>>,
    /// Channels that have more to do.
    pub(super) again: Vec<Relid>,
    pub(super) waiting: Waiting,
    /// No message can be posted any more.
    pub(super) failed: Option<HvStatus>,
    /// What the host was told of in the contact message: the interrupt page, and the monitor pages from parent to child and back.
    pub(super) contact_pages: Arc<Pages<H>>,
}

type Effects = Vec<Effect>;

impl<H: Hal> State<H> {
    pub(super) fn new(settings: Settings, contact_pages: Pages<H>) -> Self {
        Self {
            client: Client::new(settings),
            contact: Contact::None,
            offers_delivered: false,
            channels: BTreeMap::new(),
            lists: BTreeMap::new(),
            changes: 0,
            outbox: VecDeque::new(),
            gone: Vec::new(),
            again: Vec::new(),
            waiting: Waiting::new(),
            failed: None,
            contact_pages: Arc::new(contact_pages),
        }
    }

    pub(super) fn connect(&mut self) -> Result<(), ClientError> {
        self.with_client(|client, out| client.connect(out))
    }

    pub(super) fn request_offers(&mut self) -> Result<(), ClientError> {
        self.with_client(|client, out| client.request_offers(out))
    }

    /// A message of the host.
    pub(super) fn receive(&mut self, message: &[u8]) {
        self.with_client(|client, out| client.receive(message, out));
    }

    /// The contact message found no connection.
    pub(super) fn contact_refused(&mut self) {
        self.with_client(|client, out| client.contact_refused(out));
    }

    pub(super) fn offers(&self) -> impl Iterator<Item = &OfferedChannel> {
        let offered = self.channels.values().filter(|known| !known.rescinded);
        offered.map(|known| &known.offered)
    }

    pub(super) fn free_offers(&self) -> impl Iterator<Item = &OfferedChannel> {
        let free = self
            .channels
            .values()
            .filter(|known| !known.rescinded && !known.taken);
        free.map(|known| &known.offered)
    }

    pub(super) fn is_offered(&self, relid: Relid) -> bool {
        self.channels.get(&relid).is_some_and(|known| !known.rescinded)
    }

    /// The largest event flag that can mean something.
    pub(super) fn last_flag(&self) -> Option<u32> {
        self.channels.last_key_value().map(|(relid, _)| relid.0)
    }

    pub(super) fn interrupt(&self, relid: Relid) -> Option<Arc<dyn Interrupt>> {
        self.channels.get(&relid)?.interrupt.as_ref()?.upgrade()
    }

    /// Takes a channel for somebody, if it is free. From now on [`give_up`](Self::give_up) frees it.
    pub(super) fn take(&mut self, relid: Relid) -> Result<OfferedChannel, super::BusError> {
        let known = self
            .channels
            .get_mut(&relid)
            .filter(|known| !known.rescinded)
            .ok_or(super::BusError::Gone(relid))?;
        if known.taken {
            return Err(super::BusError::InUse(relid));
        }
        known.taken = true;
        Ok(known.offered.clone())
    }

    /// Tells the host of pages, which are kept with their owner.
    pub(super) fn share(
        &mut self,
        relid: Relid,
        pages: Vec<u64>,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Result<GpadlId, ClientError> {
        let range = GpaRange::whole(pages);
        let gpadl = self.with_client(|client, out| client.create_gpadl(relid, &[range], out))?;
        let list = List {
            relid,
            _owner: owner,
            created: None,
            held: Vec::new(),
        };
        self.lists.insert(gpadl, list);
        Ok(gpadl)
    }

    pub(super) fn open(
        &mut self,
        relid: Relid,
        gpadl: GpadlId,
        downstream: u32,
        vp: VpIndex,
        user_data: &[u8; OPEN_USER_DATA],
    ) -> Result<(), ClientError> {
        if let Some(known) = self.channels.get_mut(&relid) {
            known.opened = None;
        }
        self.with_client(|client, out| client.open(relid, gpadl, downstream, vp, user_data, out))
    }

    /// How the creation of a list ended.
    pub(super) fn created(&self, relid: Relid, gpadl: GpadlId) -> Option<Result<(), super::BusError>> {
        let refused = |status| Err(super::BusError::Refused(status));
        match self.lists.get(&gpadl) {
            Some(list) => match list.created {
                Some(Ok(())) => Some(Ok(())),
                Some(Err(status)) => Some(refused(status)),
                None if !self.is_offered(relid) => Some(Err(super::BusError::Gone(relid))),
                None => None,
            },
            None => Some(Err(super::BusError::Gone(relid))),
        }
    }

    /// How the opening of a channel ended.
    pub(super) fn opened(&self, relid: Relid) -> Option<Result<(), super::BusError>> {
        let known = self.channels.get(&relid).filter(|known| !known.rescinded);
        match known.map(|known| known.opened) {
            None => Some(Err(super::BusError::Gone(relid))),
            Some(None) => None,
            Some(Some(result)) => Some(result.map_err(super::BusError::Refused)),
        }
    }

    /// Has `interrupt` called from now on. `false` if the device is gone already.
    pub(super) fn listen(&mut self, relid: Relid, interrupt: Weak<dyn Interrupt>) -> bool {
        match self.channels.get_mut(&relid).filter(|known| !known.rescinded) {
            Some(known) => {
                known.interrupt = Some(interrupt);
                // What came before is looked for.
                self.again.push(relid);
                true
            }
            None => false,
        }
    }

    /// Keeps `memory` until the host has let go of the pages of `gpadl`.
    pub(super) fn hold(&mut self, gpadl: GpadlId, memory: Box<dyn Any + Send>) {
        if let Some(list) = self.lists.get_mut(&gpadl) {
            list.held.push(memory);
        }
    }

    /// Closes a channel and takes all its pages back, whatever state they are in.
    pub(super) fn give_up(&mut self, relid: Relid) {
        if let Some(known) = self.channels.get_mut(&relid) {
            known.interrupt = None;
            known.taken = false;
        }
        // Errors say that there is nothing to close or to take back.
        let _ = self.with_client(|client, out| client.close(relid, out));
        let lists = self.lists.iter().filter(|(_, list)| list.relid == relid);
        let lists: Vec<_> = lists.map(|(gpadl, _)| *gpadl).collect();
        for gpadl in lists {
            let _ = self.with_client(|client, out| client.teardown_gpadl(gpadl, out));
            if matches!(self.lists.get(&gpadl), Some(list) if matches!(list.created, Some(Err(_)))) {
                self.lists.remove(&gpadl);
            }
        }
        self.release(relid);
    }

    /// Gives the relid of a channel back whose device is gone, once nothing of it is used.
    fn release(&mut self, relid: Relid) {
        let unused = self
            .channels
            .get(&relid)
            .is_some_and(|known| known.rescinded && !known.taken);
        if unused && self.with_client(|client, out| client.release(relid, out)).is_ok() {
            self.channels.remove(&relid);
        }
    }

    fn with_client<T>(&mut self, act: impl FnOnce(&mut Client, &mut Effects) -> T) -> T {
        let mut effects = Effects::new();
        let result = act(&mut self.client, &mut effects);
        for effect in effects {
            match effect {
                Effect::Post { connection, message } => self.outbox.push_back((connection, message)),
                Effect::Event(event) => self.event(event),
            }
        }
        result
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Connected(version, _) => self.contact = Contact::Connected(version),
            Event::NoVersion => self.contact = Contact::NoVersion,
            Event::Offered(offered) => {
                self.changes += 1;
                let known = Known {
                    offered: offered.clone(),
                    rescinded: false,
                    taken: false,
                    opened: None,
                    interrupt: None,
                };
                self.channels.insert(offered.relid, known);
            }
            Event::OffersDelivered => self.offers_delivered = true,
            Event::Rescinded(relid) => self.rescinded(relid),
            Event::Opened(relid, result) => {
                if let Some(known) = self.channels.get_mut(&relid) {
                    known.opened = Some(result);
                }
            }
            Event::GpadlCreated(_, gpadl, result) => {
                if let Some(list) = self.lists.get_mut(&gpadl) {
                    list.created = Some(result);
                }
            }
            Event::GpadlTornDown(gpadl) => {
                if let Some(list) = self.lists.remove(&gpadl) {
                    self.release(list.relid);
                }
            }
            Event::Modified(..) | Event::SocketRefused { .. } | Event::Unloaded => {}
        }
    }

    fn rescinded(&mut self, relid: Relid) {
        self.changes += 1;
        if let Some(known) = self.channels.get_mut(&relid) {
            known.rescinded = true;
            let owner = known.interrupt.take();
            self.gone.extend(owner.and_then(|owner| owner.upgrade()));
        }
        self.release(relid);
    }
}

impl<H: Hal> Drop for State<H> {
    fn drop(&mut self) {
        // The host may still use these, so nobody else may ever.
        core::mem::take(&mut self.lists)
            .into_values()
            .for_each(core::mem::forget);
        core::mem::forget(self.contact_pages.clone());
    }
}
