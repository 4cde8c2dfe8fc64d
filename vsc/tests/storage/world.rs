//! A guest with one storage channel and its host, on one thread: the guest's queue and the host's provider, over rings in ordinary
//! memory. The guest's physical addresses are its addresses.
#![allow(unsafe_code)]
#![allow(dead_code, reason = "the benchmark uses a part of it")]

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use vmbus::ring::loopback::{Hand, channel};
use vmbus::ring::{Channel, RingError};
use vsc::bus::{Doorbell, Interrupt, RingPages};
use vsc::memory::{Buffer, of_heap};
use vsc::storage::{Controller, Queue, StorageError, connect};
use vsc::wait;
use vsp::buffer::{Buffer as HostBuffer, Segment, Segments};
use vsp::storage::channel::{Link, Role, serve};
use vsp::storage::controller::Controller as Provider;
use vsp::storage::disk::Disk;

/// Whether each side has been signalled, and what was kept for it.
#[derive(Default)]
pub(crate) struct Wires {
    host: AtomicBool,
    guest: AtomicBool,
    /// Buffers that a queue has left behind.
    pub(crate) kept: AtomicUsize,
}

/// The guest's bell.
pub(crate) struct Bell(pub(crate) Arc<Wires>);

impl Doorbell for Bell {
    fn ring(&self) {
        self.0.host.store(true, Ordering::Relaxed);
    }

    fn keep(&self, buffers: Vec<Arc<Buffer>>) {
        self.0.kept.fetch_add(buffers.len(), Ordering::Relaxed);
    }
}

/// The host's end of the bus.
struct HostLink {
    wires: Arc<Wires>,
    /// What keeps the guest's memory: nothing.
    nobody: Arc<()>,
}

fn segment(gpa: u64, length: usize) -> Option<Segment> {
    let pointer = NonNull::new(gpa as *mut u8)?;
    // SAFETY: the guest of these tests names memory of its own, which it keeps until it is answered.
    Some(unsafe { Segment::new(pointer, gpa, length) })
}

impl Link for HostLink {
    fn wait(&self) -> impl Future<Output = ()> + Send {
        std::future::poll_fn(|_| match self.wires.host.swap(false, Ordering::Relaxed) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
    }

    fn signal(&self) {
        self.wires.guest.store(true, Ordering::Relaxed);
    }

    fn buffer(&self, pieces: impl IntoIterator<Item = (u64, usize)>) -> Option<HostBuffer> {
        let mut segments = Segments::new();
        for (gpa, length) in pieces {
            segments.push(segment(gpa, length)?);
        }
        Some(HostBuffer::new(segments, self.nobody.clone()))
    }

    fn piece(&self, gpa: u64, length: usize) -> Option<HostBuffer> {
        Some(HostBuffer::of_one(segment(gpa, length)?, self.nobody.clone()))
    }

    fn offer_sub_channels(&self, _: u16) -> u16 {
        0
    }
}

type Host = Pin<Box<dyn Future<Output = RingError>>>;

/// A guest and its host.
pub(crate) struct World {
    pub(crate) wires: Arc<Wires>,
    pub(crate) queue: Arc<Queue>,
    host: Rc<RefCell<Option<Host>>>,
    /// A hand in the rings' memory.
    pub(crate) hand: Hand,
}

pub(crate) const RINGS: RingPages = RingPages::both(32);

impl World {
    /// A guest whose host serves `provider`.
    pub(crate) fn new<D: Disk + 'static>(provider: &Arc<Provider<D>>) -> Self {
        Self::with_rings(provider, RINGS)
    }

    /// The same, with rings of other sizes.
    pub(crate) fn with_rings<D: Disk + 'static>(provider: &Arc<Provider<D>>, rings: RingPages) -> Self {
        let (mut world, host) = Self::without_host(rings);
        let provider = provider.clone();
        let link = HostLink {
            wires: world.wires.clone(),
            nobody: Arc::new(()),
        };
        let host = async move { serve(&provider, Role::Primary, host, &link).await };
        world.host = Rc::new(RefCell::new(Some(Box::pin(host))));
        world
    }

    /// A guest, and the host's end of its channel.
    pub(crate) fn without_host(rings: RingPages) -> (Self, Channel) {
        let (guest, host, hand) = channel(rings.to_host.into()).unwrap();
        let wires = Arc::new(Wires::default());
        let queue = Arc::new(Queue::new(guest, Box::new(Bell(wires.clone()))));
        let world = Self {
            wires,
            queue,
            host: Rc::new(RefCell::new(None)),
            hand,
        };
        (world, host)
    }

    /// Lets the host work.
    pub(crate) fn step_host(&self) {
        if let Some(host) = self.host.borrow_mut().as_mut() {
            assert!(
                host.as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()))
                    .is_pending(),
                "the rings are broken"
            );
        }
    }

    /// Lets both sides work.
    pub(crate) fn step(&self) {
        self.step_host();
        if self.wires.guest.swap(false, Ordering::Relaxed) {
            while self.queue.interrupt() {}
        }
    }

    /// Runs the guest's future to its end; fails if nothing happens for too long.
    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut steps = 0;
        let idle = || {
            self.step();
            steps += 1;
            if steps < 10_000 {
                Ok(())
            } else {
                Err("nothing happens")
            }
        };
        wait::block_on_while(future, idle).unwrap()
    }

    /// The host's controller, after the handshake.
    pub(crate) fn connect(&self) -> Result<Arc<Controller>, StorageError> {
        self.run(connect(
            self.queue.clone(),
            RINGS,
            Box::new(|length| Some(of_heap(length))),
        ))
    }
}
