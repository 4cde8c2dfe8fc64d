//! The card: its cable, its link, its channels.

use super::deliver::Receiving;
use super::link::Link;
use super::pool::Pool;
use super::queue::Queue;
use super::setup::Setup;
use super::steer::Steering;
use super::wire::Wire;
use crate::buffer::Buffer;
use crate::switch::port::PortId;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use spin::{Mutex, MutexGuard};
use vmbus::protocol::network::Mac;
use vmbus::protocol::network::rndis::{self, Message};
use vmbus::protocol::network::scale::MAX_CHANNELS;
use vmbus::ring::{self, RingError};

/// Messages for the guest that wait for room, at most; a guest that asks without listening gets no more answers.
pub(super) const MAX_WAITING: usize = 64;

/// How a card is made.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its address.
    pub address: Mac,
    /// What a person calls it.
    pub name: String,
    /// Channels at most.
    pub queues: u16,
}

/// How it goes on with a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Nothing is left to do: wait for the guest's signal.
    Idle,
    /// There is more to do.
    More,
    /// The port is over its cap: nothing is to be done before this tick.
    Until(u64),
    /// The channel is not open.
    Closed,
    /// The guest has broken the ring: the channel is of no more use.
    Broken(RingError),
}

/// What a card counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames from the guest.
    pub sent: AtomicU64,
    /// Frames to the guest.
    pub received: AtomicU64,
    /// Frames to the guest for which it had no room.
    pub no_room: AtomicU64,
    /// What made no sense: packets, completions, frames.
    pub refused: AtomicU64,
}

pub(super) struct State {
    pub(super) setup: Setup,
    pub(super) steering: Steering,
    pub(super) send_buffer: Option<Arc<Buffer>>,
    /// The receive buffer's parts.
    pub(super) pool: Option<Arc<Mutex<Pool>>>,
    pub(super) plug: Option<(Arc<Wire>, PortId)>,
    link_up: bool,
    /// Control messages that have not gone yet.
    pub(super) messages: VecDeque<Message>,
    queues: Vec<Option<Arc<Queue>>>,
    /// What frames for the guest need of all this; `None` if it takes none.
    receiving: Option<Arc<Receiving>>,
}

/// A card.
pub struct Nic {
    pub(super) settings: Settings,
    pub(super) state: Mutex<State>,
    /// Changes of the state, counted: who has a copy of some of it can tell whether it is old.
    pub(super) changes: AtomicU32,
    /// What went through.
    pub counters: Counters,
}

impl Nic {
    /// A card without a cable.
    pub fn new(settings: Settings) -> Self {
        let setup = Setup::new(settings.address);
        let queues = settings.queues.clamp(1, MAX_CHANNELS);
        Self {
            settings: Settings { queues, ..settings },
            state: Mutex::new(State {
                setup,
                steering: Steering::new(),
                send_buffer: None,
                pool: None,
                plug: None,
                link_up: true,
                messages: VecDeque::new(),
                queues: Vec::new(),
                receiving: None,
            }),
            changes: AtomicU32::new(0),
            counters: Counters::default(),
        }
    }

    /// The address in use.
    pub fn address(&self) -> Mac {
        self.state.lock().setup.address
    }

    /// Whether the guest sees a link.
    pub fn has_link(&self) -> bool {
        self.state.lock().has_link()
    }

    /// Channels that the guest has opened.
    pub fn open_channels(&self) -> usize {
        self.state.lock().queues.iter().flatten().count()
    }

    /// Largest payload of a frame, as the guest has set it.
    pub fn mtu(&self) -> u32 {
        self.state.lock().setup.mtu
    }

    /// Channels at most.
    pub const fn max_queues(&self) -> u16 {
        self.settings.queues
    }

    /// Plugs the cable into a port, or pulls it. The guest is told.
    pub fn plug(&self, port: Option<(Arc<Wire>, PortId)>) {
        let mut state = self.state.lock();
        let before = state.has_link();
        state.plug = port;
        state.tell_link(before);
        self.changed(state);
        self.send_waiting();
    }

    /// Whether nothing is under way between the guest and its card: nothing waits in a ring, and no part of the receive buffer is lent.
    /// A guest that has broken a ring does not count.
    ///
    /// A card is to be taken off the bus in such a moment: Linux stops listening to a channel that is rescinded, and its driver then
    /// waits for ever for the completions that it has missed.
    pub fn is_quiet(&self) -> bool {
        let (told, pool, queues) = {
            let state = self.state.lock();
            (
                state.messages.is_empty(),
                state.pool.clone(),
                state.queues.clone(),
            )
        };
        let given_back = pool.is_none_or(|pool| {
            let pool = pool.lock();
            pool.free() == pool.parts()
        });
        let mut queues = queues.iter().flatten();
        queues.all(|queue| queue.is_quiet().unwrap_or(true)) && told && given_back
    }

    /// Takes the link down, or up again. The guest is told.
    pub fn set_link(&self, up: bool) {
        let mut state = self.state.lock();
        let before = state.has_link();
        state.link_up = up;
        state.tell_link(before);
        self.changed(state);
        self.send_waiting();
    }

    /// A channel was opened: 0 is the first, others are sub-channels.
    pub fn open(&self, index: u16, rings: ring::Channel, link: Arc<dyn Link>) {
        if index == 0 {
            self.reset();
        }
        let index = usize::from(index);
        if index >= usize::from(self.settings.queues) {
            return;
        }
        let queue = Arc::new(Queue::new(rings, link));
        let mut state = self.state.lock();
        if state.queues.len() <= index {
            state.queues.resize_with(index + 1, || None);
        }
        let before = state.queues.get_mut(index).and_then(|slot| slot.replace(queue));
        self.changed(state);
        drop(before);
    }

    /// A channel was closed: nothing of it is used any more when this returns, but by a frame that is just being delivered.
    pub fn close(&self, index: u16) {
        let mut state = self.state.lock();
        let queue = state.queues.get_mut(usize::from(index)).and_then(Option::take);
        self.changed(state);
        if index == 0 {
            self.reset();
        }
        drop(queue);
    }

    /// Forgets what was agreed, and lets go of the guest's memory.
    fn reset(&self) {
        let mut state = self.state.lock();
        state.setup = Setup::new(self.settings.address);
        state.steering = Steering::new();
        let memory = (state.send_buffer.take(), state.pool.take());
        state.messages.clear();
        self.changed(state);
        drop(memory);
    }

    /// Lets the state go, and has those see that it was changed who have copies.
    pub(super) fn changed(&self, mut state: MutexGuard<'_, State>) {
        let now = state.receiving();
        let before = core::mem::replace(&mut state.receiving, now);
        self.changes.fetch_add(1, Ordering::Release);
        drop(state);
        // Whatever goes with it goes without the lock.
        drop(before);
    }

    pub(super) fn queue(&self, index: u16) -> Option<Arc<Queue>> {
        self.state
            .lock()
            .queues
            .get(usize::from(index))
            .cloned()
            .flatten()
    }

    /// How the guest takes frames now; `None` if it takes none.
    #[inline]
    pub(super) fn receiving(&self) -> Option<Arc<Receiving>> {
        self.state.lock().receiving.clone()
    }
}

impl State {
    pub(super) fn has_link(&self) -> bool {
        self.link_up && self.plug.is_some()
    }

    fn receiving(&self) -> Option<Arc<Receiving>> {
        let pool = self.pool.clone()?;
        if !self.setup.initialized || !self.has_link() {
            return None;
        }
        Some(Arc::new(Receiving::new(
            &self.setup,
            self.steering.clone(),
            pool,
            self.queues.clone(),
        )))
    }

    fn tell_link(&mut self, before: bool) {
        let now = self.has_link();
        if now == before || !self.setup.initialized || self.messages.len() >= MAX_WAITING {
            return;
        }
        let told = rndis::IndicateStatus {
            status: if now {
                rndis::Status::MEDIA_CONNECT
            } else {
                rndis::Status::MEDIA_DISCONNECT
            },
            length: 0,
            offset: 0,
        };
        self.messages
            .extend(Message::new(rndis::MessageType::INDICATE_STATUS, &told, &[]));
    }
}
