//! The bus of one child: the owner of its [`Server`].
//!
//! The guest's messages are handled where they arrive, under the bus's lock, so that a guest that sends without end waits for
//! itself. What cannot be done at once (a message that finds the guest's slots full, a mapping that somebody still has) is done by
//! the bus's task.

use super::channel::{Channel, Counters, Open, Services};
use super::device::Device;
use super::mapping::Mapping;
use super::memory::ChildMemory;
use super::port::Port;
use crate::hypervisor::ports::Sink;
use crate::vm::host::{Host, Job};
use crate::vm::pool::PoolError;
use crate::vm::signal::{Changes, Signal};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use embassy_futures::select::select;
use hypercall_api::id::{PartitionId, VpIndex};
use hypercall_api::status::HvStatus;
use spin::Mutex;
use vmbus::protocol::gpadl::GpaRange;
use vmbus::protocol::id::{CONTACT_CONNECTION, GpadlId, MESSAGE_CONNECTION, Status};
use vmbus::protocol::message::{MessageBytes, MessageType};
use vmbus::protocol::offer::Offer;
use vmbus::server::{
    Action, ChannelView, Limits, MessageTarget, OfferError, OfferId, OpenRequest, Server, event_connection,
};

/// Messages for a guest that does not take them, beyond which it is not listened to: more than one for each channel.
const MOST_OUTGOING: usize = 4096;
/// Longest pause before a guest that takes no messages is tried again, in milliseconds.
const LONGEST_PAUSE: u64 = 32;
/// Sub-channels of a device.
const MOST_SUB_CHANNELS: u16 = 64;

/// The bus of a child.
pub struct Bus<H: Host> {
    this: Weak<Self>,
    host: H,
    child: PartitionId,
    /// VPs of the child.
    vps: u32,
    /// VP of the root that takes its messages.
    home: u32,
    memory: Arc<ChildMemory>,
    state: Mutex<State<H>>,
    /// There is something for the bus's task.
    work: Arc<Signal>,
    changes: Changes,
}

struct State<H: Host> {
    server: Server,
    devices: BTreeMap<OfferId, Arc<dyn Device>>,
    open: BTreeMap<OfferId, Running<H>>,
    mappings: BTreeMap<GpadlId, Mapped>,
    outgoing: VecDeque<(MessageTarget, MessageBytes)>,
    /// Where the guest's messages come from.
    incoming: Option<Port<H>>,
    /// Where its own are posted.
    reply: Option<(MessageTarget, Port<H>)>,
    /// No more is to come.
    over: bool,
}

/// A channel that a device serves.
struct Running<H: Host> {
    open: Arc<Open>,
    /// Where the guest signals it.
    _events: Port<H>,
}

struct Mapped {
    /// Until the guest wants it back.
    mapping: Option<Arc<Mapping>>,
    /// It is no more.
    ended: Arc<AtomicBool>,
}

impl<H: Host> Bus<H> {
    /// The bus of partition `child` with `vps` VPs and RAM `memory`, without devices.
    pub fn new(
        host: H,
        child: PartitionId,
        vps: u32,
        memory: Arc<ChildMemory>,
    ) -> Result<Arc<Self>, PoolError> {
        let home = host.this_vp();
        let connections = [MESSAGE_CONNECTION, CONTACT_CONNECTION];
        let incoming = Port::for_messages(&host, child, &connections, home)?;
        let port = incoming.id();
        let bus = Arc::new_cyclic(|this| Self {
            this: this.clone(),
            host,
            child,
            vps,
            home,
            memory,
            state: Mutex::new(State {
                server: Server::new(Limits::default()),
                devices: BTreeMap::new(),
                open: BTreeMap::new(),
                mappings: BTreeMap::new(),
                outgoing: VecDeque::new(),
                incoming: Some(incoming),
                reply: None,
                over: false,
            }),
            work: Arc::default(),
            changes: Changes::default(),
        });
        bus.host.listen_port(port, Arc::new(Listener(bus.this.clone())));
        bus.host.spawn_on(home, Box::pin(bus.clone().work()));
        Ok(bus)
    }

    /// Puts a device on the bus.
    pub fn add(&self, device: Arc<dyn Device>) -> Result<OfferId, OfferError> {
        let mut state = self.state.lock();
        if state.over {
            return Err(OfferError::Full);
        }
        let mut actions = Vec::new();
        let id = state.server.offer(device.offer(), &mut actions)?;
        state.devices.insert(id, device);
        self.perform(&mut state, actions);
        Ok(id)
    }

    /// The device that is offered so, unless it is being taken off.
    pub fn find(&self, offer: &Offer) -> Option<OfferId> {
        let state = self.state.lock();
        let mut channels = state.server.channels();
        let found = channels.find(|view| {
            (view.offer.class, view.offer.instance) == (offer.class, offer.instance)
                && view.offer.sub_channel_index == 0
                && !view.rescinded
        });
        found.map(|view| view.id)
    }

    /// Takes a device off the bus. Completes when it does nothing for the guest any more.
    pub async fn remove(&self, id: OfferId) {
        {
            let mut state = self.state.lock();
            let mut actions = Vec::new();
            state.server.rescind(id, &mut actions);
            self.perform(&mut state, actions);
        }
        let gone = || (!self.state.lock().open.contains_key(&id)).then_some(());
        self.changes.until(gone).await;
    }

    /// Ends it: no device has anything to do with the guest any more, its ports are gone, and its memory is unused.
    pub async fn close(&self) {
        {
            let mut state = self.state.lock();
            state.over = true;
            state.incoming = None;
            let mut actions = Vec::new();
            state.server.disconnect(&mut actions);
            self.perform(&mut state, actions);
        }
        let idle = || {
            let state = self.state.lock();
            (state.server.is_idle() && state.open.is_empty()).then_some(())
        };
        self.changes.until(idle).await;
        {
            let mut state = self.state.lock();
            state.devices.clear();
            state.outgoing.clear();
            state.reply = None;
        }
        self.work.raise();
        self.memory.unused().await;
    }

    /// The guest's memory.
    pub fn memory(&self) -> &Arc<ChildMemory> {
        &self.memory
    }

    /// Calls `look` with every channel, what serves it, and what it is while it is open.
    pub fn look(&self, mut look: impl FnMut(ChannelView<'_>, Option<&dyn Device>, Option<&Open>)) {
        let state = self.state.lock();
        for view in state.server.channels() {
            let device = state.devices.get(&view.id).map(AsRef::as_ref);
            let running = state.open.get(&view.id).map(|running| running.open.as_ref());
            look(view, device, running);
        }
    }

    /// The bus's task: posts what is to be posted, and sees which mappings are no more.
    async fn work(self: Arc<Self>) {
        let mut pause = 1;
        loop {
            self.work.wait().await;
            let blocked = {
                let mut state = self.state.lock();
                if state.over && state.server.is_idle() && state.open.is_empty() {
                    return;
                }
                self.tidy(&mut state);
                self.post_all(&mut state)
            };
            if blocked {
                self.host.pause(pause).await;
                self.work.raise();
                pause = (pause * 2).min(LONGEST_PAUSE);
            } else {
                pause = 1;
            }
        }
    }

    /// Tells the server of mappings that are no more.
    fn tidy(&self, state: &mut State<H>) {
        let ended: Vec<_> = state
            .mappings
            .iter()
            .filter(|(_, mapped)| mapped.mapping.is_none() && mapped.ended.load(Ordering::Acquire))
            .map(|(gpadl, _)| *gpadl)
            .collect();
        let mut actions = Vec::new();
        for gpadl in ended {
            state.mappings.remove(&gpadl);
            state.server.gpadl_unmapped(gpadl, &mut actions);
        }
        self.perform(state, actions);
    }

    /// Does what the server asks for, and what it asks for then.
    fn perform(&self, state: &mut State<H>, mut actions: Vec<Action>) {
        while !actions.is_empty() {
            let mut next = Vec::new();
            for action in actions {
                self.perform_one(state, action, &mut next);
            }
            actions = next;
        }
        if self.post_all(state) {
            self.work.raise();
        }
        self.changes.tell();
    }

    fn perform_one(&self, state: &mut State<H>, action: Action, next: &mut Vec<Action>) {
        match action {
            Action::Send { target, message } => state.outgoing.push_back((target, message)),
            Action::Open(id, request) => {
                // A close may have come since.
                if state
                    .server
                    .channel(id)
                    .is_some_and(|view| view.open == Some(&request))
                {
                    let result = self.open(state, id, request);
                    state.server.opened(id, result, next);
                }
            }
            Action::Close(id) => match state.open.get(&id) {
                Some(running) => running.open.close.raise(),
                None => state.server.closed(id, next),
            },
            Action::Modify(id, vp) => {
                let result = match state.open.get(&id) {
                    Some(running) if vp.0 < self.vps => {
                        running.open.target_vp.store(vp.0, Ordering::Release);
                        Ok(())
                    }
                    _ => Err(Status::INVALID_PARAMETER),
                };
                state.server.modified(id, result, next);
            }
            Action::Released(id) => drop(state.devices.remove(&id)),
            Action::MapGpadl { gpadl, ranges, .. } => {
                let result = self.map(state, gpadl, &ranges);
                state.server.gpadl_mapped(gpadl, result, next);
            }
            Action::UnmapGpadl(gpadl) => {
                let ended = state.mappings.get_mut(&gpadl).is_none_or(|mapped| {
                    mapped.mapping = None;
                    mapped.ended.load(Ordering::Acquire)
                });
                if ended {
                    state.mappings.remove(&gpadl);
                    state.server.gpadl_unmapped(gpadl, next);
                }
            }
            // Nothing of the root listens for sockets yet.
            Action::ConnectSocket(request) => {
                state
                    .server
                    .socket_connected(&request, Err(Status::CONNECTION_REFUSED), next);
            }
        }
    }

    fn map(&self, state: &mut State<H>, gpadl: GpadlId, ranges: &[GpaRange]) -> Result<(), Status> {
        let ended: Arc<AtomicBool> = Arc::default();
        let signal = self.work.clone();
        let mapping = Mapping::new(&self.host, &self.memory, ranges, ended.clone(), signal)
            .ok_or(Status::INVALID_PARAMETER)?;
        let mapping = Some(Arc::new(mapping));
        state.mappings.insert(gpadl, Mapped { mapping, ended });
        Ok(())
    }

    /// Starts the device's task.
    fn open(&self, state: &mut State<H>, id: OfferId, request: OpenRequest) -> Result<(), Status> {
        let services: Arc<dyn Services> = self.this.upgrade().ok_or(Status::UNSUCCESSFUL)?;
        let view = state.server.channel(id).ok_or(Status::UNSUCCESSFUL)?;
        let sub_channel_index = view.offer.sub_channel_index;
        let mapped = state
            .mappings
            .get(&request.gpadl)
            .and_then(|mapped| mapped.mapping.clone());
        let mapping = mapped.ok_or(Status::INVALID_PARAMETER)?;
        let device = state
            .devices
            .get(&id)
            .cloned()
            .ok_or(Status::INVALID_DEVICE_STATE)?;
        if request.target_vp.0 >= self.vps {
            return Err(Status::INVALID_PARAMETER);
        }
        // Channels of different VPs of the guest are served by different VPs of the root.
        let root_vp = (self.home + request.target_vp.0) % self.host.vps().max(1);
        let interrupt: Arc<Signal> = Arc::default();
        let connection = event_connection(request.relid);
        let events = Port::for_events(&self.host, self.child, connection, root_vp, interrupt.clone());
        let events = events.map_err(|error| {
            log::warn!("partition {}: channel {id} has no port: {error}", self.child);
            Status::INSUFFICIENT_RESOURCES
        })?;
        let open = Arc::new(Open {
            id,
            request,
            sub_channel_index,
            target_vp: AtomicU32::new(request.target_vp.0),
            root_vp,
            counters: Counters::default(),
            mapping,
            interrupt,
            close: Signal::default(),
            stopped: AtomicBool::new(false),
        });
        let running = Running {
            open: open.clone(),
            _events: events,
        };
        state.open.insert(id, running);
        let channel = Channel {
            open: open.clone(),
            services,
        };
        let bus = self.this.clone();
        let job: Job = Box::pin(serve(bus, open, device, channel));
        self.host.spawn_on(root_vp, job);
        Ok(())
    }

    /// The device's task has ended, as the server wanted.
    fn closed(&self, id: OfferId) {
        let mut state = self.state.lock();
        // The rings' mapping goes with it, if the guest has asked for that.
        state.open.remove(&id);
        let mut actions = Vec::new();
        state.server.closed(id, &mut actions);
        self.perform(&mut state, actions);
        self.tidy(&mut state);
        drop(state);
        self.work.raise();
    }

    /// Posts messages as far as the guest takes them, and says whether some are left.
    fn post_all(&self, state: &mut State<H>) -> bool {
        while let Some((target, message)) = state.outgoing.front() {
            match self.post(&mut state.reply, *target, message) {
                Err(HvStatus::INSUFFICIENT_BUFFERS | HvStatus::INSUFFICIENT_MEMORY) => return true,
                Err(status) => log::warn!("partition {}: a message of the bus is lost: {status}", self.child),
                Ok(()) => {}
            }
            state.outgoing.pop_front();
        }
        false
    }

    fn post(
        &self,
        reply: &mut Option<(MessageTarget, Port<H>)>,
        target: MessageTarget,
        message: &[u8],
    ) -> Result<(), HvStatus> {
        let port = match reply {
            Some((now, port)) if *now == target => port,
            _ => {
                // What waits at the old port is for a guest that is no more.
                *reply = None;
                let port = Port::to_child(&self.host, self.child, target).map_err(|error| match error {
                    PoolError::OutOfMemory => HvStatus::NO_RESOURCES,
                    PoolError::Refused(status) => status,
                })?;
                &mut reply.insert((target, port)).1
            }
        };
        port.post(message)
    }
}

/// Serves a channel until it is to close; then nothing of the device's task is left.
async fn serve<H: Host>(bus: Weak<Bus<H>>, open: Arc<Open>, device: Arc<dyn Device>, channel: Channel) {
    let work = async {
        device.serve(channel).await;
        open.stopped.store(true, Ordering::Release);
        core::future::pending::<()>().await;
    };
    select(work, open.close.wait()).await;
    let id = open.id;
    drop(open);
    if let Some(bus) = bus.upgrade() {
        bus.closed(id);
    }
}

/// Where the guest's messages arrive.
struct Listener<H: Host>(Weak<Bus<H>>);

impl<H: Host> Sink for Listener<H> {
    fn message(&self, payload: &[u8]) {
        let Some(bus) = self.0.upgrade() else { return };
        let mut state = bus.state.lock();
        if state.over {
            return;
        }
        if state.outgoing.len() >= MOST_OUTGOING {
            log::debug!(
                "partition {} takes no messages, and is not listened to",
                bus.child
            );
            return;
        }
        if payload.first_chunk() == Some(&MessageType::INITIATE_CONTACT.0.to_le_bytes()) {
            // What still waits is for the kernel before.
            state.outgoing.clear();
            state.reply = None;
        }
        let mut actions = Vec::new();
        state.server.receive(payload, &mut actions);
        bus.perform(&mut state, actions);
    }
}

impl<H: Host> Services for Bus<H> {
    fn signal(&self, open: &Open) {
        let vp = VpIndex(open.target_vp.load(Ordering::Acquire));
        // The flags of a guest that has turned its SynIC off reach nobody, which is its own wish.
        let flag = open.request.relid.0 as u16;
        if let Err(status) = self.host.signal_event(self.child, vp, flag) {
            log::debug!(
                "partition {}: channel {}: no signal: {status}",
                self.child,
                open.id
            );
        }
    }

    fn offer_sub_channels(&self, primary: OfferId, count: u16) -> u16 {
        let mut state = self.state.lock();
        let (Some(view), Some(device)) = (state.server.channel(primary), state.devices.get(&primary)) else {
            return 0;
        };
        let (offer, device) = (view.offer.clone(), device.clone());
        let mut actions = Vec::new();
        let mut offered = 0;
        for index in 1..=count.min(MOST_SUB_CHANNELS) {
            match state.server.offer(offer.sub_channel(index), &mut actions) {
                Ok(id) => drop(state.devices.insert(id, device.clone())),
                Err(OfferError::Duplicate) => {}
                Err(_) => break,
            }
            offered = index;
        }
        self.perform(&mut state, actions);
        offered
    }

    fn mapping(&self, id: OfferId, gpadl: GpadlId) -> Option<Arc<Mapping>> {
        let state = self.state.lock();
        (state.server.gpadl_owner(gpadl) == Some(id))
            .then(|| state.mappings.get(&gpadl)?.mapping.clone())
            .flatten()
    }

    fn memory(&self) -> &Arc<ChildMemory> {
        &self.memory
    }
}
