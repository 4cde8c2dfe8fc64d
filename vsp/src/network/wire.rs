//! What joins cards: a switch, and who is at each of its ports.

use super::frame::Frame;
use crate::switch::port::{Counters, PortSettings};
use crate::switch::{AttachError, Egress, Switch, port::PortId};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use smallvec::SmallVec;
use spin::Mutex;

/// The ports of one frame: a few of them take no memory of their own.
type Ports = SmallVec<[Egress; 4]>;

/// Why a frame did not arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoRoom;

/// Who takes the frames that go to a port.
pub trait Endpoint: Send + Sync {
    /// Takes a frame, with `tag` beside it. Where `cut_tag`, it holds a tag of its own that is to be left out. Whoever does not want the
    /// frame takes it too.
    fn deliver(&self, frame: &Frame<'_>, tag: Option<u16>, cut_tag: bool) -> Result<(), NoRoom>;
}

/// Sees the frames of a port, on their way in and out.
pub trait Tap: Send + Sync {
    /// A frame of `port`.
    fn see(&self, port: PortId, frame: &Frame<'_>, now: u64);
}

/// A switch with those at its ports.
pub struct Wire {
    ends: Mutex<Ends>,
    tap: Mutex<Option<(PortId, Arc<dyn Tap>)>>,
    /// Whether there is a tap; so that frames need not look for it.
    tapped: AtomicBool,
}

/// What one lock guards, which each frame takes once.
struct Ends {
    switch: Switch,
    endpoints: Vec<Option<Arc<dyn Endpoint>>>,
}

impl Ends {
    #[inline]
    fn endpoint(&self, port: PortId) -> Option<Arc<dyn Endpoint>> {
        self.endpoints.get(usize::from(port.0)).cloned().flatten()
    }
}

impl Wire {
    /// A wire around `switch`, which has no ports yet.
    pub fn new(switch: Switch) -> Self {
        Self {
            ends: Mutex::new(Ends {
                switch,
                endpoints: Vec::new(),
            }),
            tap: Mutex::new(None),
            tapped: AtomicBool::new(false),
        }
    }

    /// Adds a port with `endpoint` at it.
    pub fn attach(&self, settings: PortSettings, endpoint: Arc<dyn Endpoint>) -> Result<PortId, AttachError> {
        let mut ends = self.ends.lock();
        let id = ends.switch.attach(settings)?;
        let endpoints = &mut ends.endpoints;
        let index = usize::from(id.0);
        if endpoints.len() <= index {
            endpoints.resize(index + 1, None);
        }
        if let Some(slot) = endpoints.get_mut(index) {
            *slot = Some(endpoint);
        }
        Ok(id)
    }

    /// Removes a port.
    pub fn detach(&self, id: PortId) -> Option<Counters> {
        let (endpoint, counters) = {
            let mut ends = self.ends.lock();
            let endpoint = ends.endpoints.get_mut(usize::from(id.0)).and_then(Option::take);
            (endpoint, ends.switch.detach(id))
        };
        // Whatever goes with it goes without the lock.
        drop(endpoint);
        counters
    }

    /// Looks at the switch, or changes its settings.
    pub fn with<R>(&self, run: impl FnOnce(&mut Switch) -> R) -> R {
        run(&mut self.ends.lock().switch)
    }

    /// Has `tap` see the frames of a port from now on; `false` if somebody else sees frames of this wire.
    pub fn begin_tap(&self, port: PortId, tap: Arc<dyn Tap>) -> bool {
        let mut current = self.tap.lock();
        let free = current.is_none();
        if free {
            *current = Some((port, tap));
            self.tapped.store(true, Ordering::Release);
        }
        free
    }

    /// Has `tap` see no more frames.
    pub fn end_tap(&self, tap: &Arc<dyn Tap>) {
        let mut current = self.tap.lock();
        if current.as_ref().is_some_and(|(_, own)| Arc::ptr_eq(own, tap)) {
            *current = None;
            self.tapped.store(false, Ordering::Release);
        }
    }

    /// Whether `port` may send now; if not, the tick from which on it may.
    pub fn admit(&self, port: PortId, bytes: usize, now: u64) -> Result<(), u64> {
        self.ends.lock().switch.admit(port, bytes, now)
    }

    /// Carries a frame that came in at `from` to all that it goes to.
    #[inline]
    pub fn transmit(&self, from: PortId, frame: &Frame<'_>, now: u64) {
        self.transmit_capped(from, frame, now);
    }

    /// The same, and takes the frame off what `from` may send; returns the tick from which on it may send more, if that is not now.
    pub fn transmit_capped(&self, from: PortId, frame: &Frame<'_>, now: u64) -> Option<u64> {
        let mut ends = self.ends.lock();
        if !self.tapped.load(Ordering::Acquire)
            && let Some(egress) = ends.switch.known(&frame.ingress(from, now))
        {
            let endpoint = ends.endpoint(egress.port);
            drop(ends);
            self.deliver(endpoint.as_deref(), frame, egress);
            return None;
        }
        drop(ends);
        self.spread(from, frame, now)
    }

    /// The same, to wherever the frame goes, and shows it to who looks.
    #[inline(never)]
    fn spread(&self, from: PortId, frame: &Frame<'_>, now: u64) -> Option<u64> {
        let mut ports = Ports::new();
        let until = self.with(|switch| {
            let until = switch.charge(from, frame.length, now);
            switch.forward(&frame.ingress(from, now), &mut ports);
            until
        });
        if self.tapped.load(Ordering::Acquire) {
            self.show(from, frame, &ports, now);
        }
        for egress in ports {
            let endpoint = self.ends.lock().endpoint(egress.port);
            self.deliver(endpoint.as_deref(), frame, egress);
        }
        until
    }

    #[inline(always)]
    fn deliver(&self, endpoint: Option<&dyn Endpoint>, frame: &Frame<'_>, egress: Egress) {
        let delivered = endpoint.map(|endpoint| endpoint.deliver(frame, egress.tag, egress.cut_tag));
        if delivered == Some(Err(NoRoom)) {
            self.ends.lock().switch.no_room(egress.port, frame.length);
        }
    }

    #[cold]
    fn show(&self, from: PortId, frame: &Frame<'_>, ports: &[Egress], now: u64) {
        let tap = self.tap.lock().clone();
        if let Some((port, tap)) = tap
            && (port == from || ports.iter().any(|egress| egress.port == port))
        {
            tap.see(port, frame, now);
        }
    }
}
