//! Guests with network cards, their host and a switch, on one thread: the guests' drivers and the host's providers, over rings in
//! ordinary memory. The guests' physical addresses are their addresses.
#![allow(unsafe_code)]
#![allow(dead_code, reason = "the benchmark uses a part of it")]

use std::collections::BTreeMap;
use std::future::Future;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use vmbus::protocol::id::GpadlId;
use vmbus::protocol::network::Mac;
use vmbus::ring::Channel;
use vmbus::ring::loopback::{Hand, channel};
use vsc::bus::{Doorbell, Interrupt, RingPages};
use vsc::memory::{Buffer, of_heap};
use vsc::network::{Card, NetworkError, Queue, Settings, Shared, connect};
use vsc::wait;
use vsp::buffer::{Buffer as HostBuffer, Segment};
use vsp::network::{Link, Nic, Progress, Settings as NicSettings, Wire};
use vsp::switch::port::{PortId, PortSettings};
use vsp::switch::{Kind, Switch};

pub(crate) const RINGS: RingPages = RingPages::both(32);
const RECEIVE: GpadlId = GpadlId(1);
const SEND: GpadlId = GpadlId(2);

/// Whether each side has been signalled, how often, and what was kept.
#[derive(Default)]
pub(crate) struct Wires {
    host: AtomicBool,
    guest: AtomicBool,
    pub(crate) to_host: AtomicUsize,
    pub(crate) to_guest: AtomicUsize,
    pub(crate) kept: AtomicUsize,
}

pub(crate) struct Bell(pub(crate) Arc<Wires>);

impl Doorbell for Bell {
    fn ring(&self) {
        self.0.to_host.fetch_add(1, Ordering::Relaxed);
        self.0.host.store(true, Ordering::Relaxed);
    }

    fn keep(&self, buffers: Vec<Arc<Buffer>>) {
        self.0.kept.fetch_add(buffers.len(), Ordering::Relaxed);
    }
}

struct HostLink {
    wires: Arc<Wires>,
    shared: BTreeMap<GpadlId, Arc<HostBuffer>>,
    nobody: Arc<()>,
}

fn segment(gpa: u64, length: usize) -> Option<Segment> {
    let pointer = NonNull::new(gpa as *mut u8)?;
    // SAFETY: the guests of these tests name memory of their own, which they keep until they are answered.
    Some(unsafe { Segment::new(pointer, gpa, length) })
}

/// A guest's memory, as its host has it.
fn mapped(buffer: &Buffer) -> Arc<HostBuffer> {
    let (_, pages) = buffer.pages(0, buffer.size()).unwrap();
    let whole = segment(pages[0] * 4096, buffer.size()).unwrap();
    Arc::new(HostBuffer::new(vec![whole], Arc::new(())))
}

impl Link for HostLink {
    fn signal(&self) {
        self.wires.to_guest.fetch_add(1, Ordering::Relaxed);
        self.wires.guest.store(true, Ordering::Relaxed);
    }

    fn buffer(&self, pieces: &mut dyn Iterator<Item = (u64, usize)>) -> Option<HostBuffer> {
        let segments: Option<Vec<_>> = pieces.map(|(gpa, length)| segment(gpa, length)).collect();
        Some(HostBuffer::new(segments?, self.nobody.clone()))
    }

    fn gpadl(&self, gpadl: GpadlId) -> Option<Arc<HostBuffer>> {
        self.shared.get(&gpadl).cloned()
    }

    fn offer_sub_channels(&self, _: u16) -> u16 {
        0
    }

    fn set_address(&self, address: Mac) -> bool {
        address != Mac([2, 0, 0, 0, 0, 0xee])
    }
}

/// A guest.
pub(crate) struct Guest {
    pub(crate) wires: Arc<Wires>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) shared: Shared,
    pub(crate) nic: Option<Arc<Nic>>,
    pub(crate) hand: Hand,
}

pub(crate) fn mac(number: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, number])
}

impl Guest {
    /// A guest, and the host's end of its channel.
    pub(crate) fn without_host(settings: &Settings) -> (Self, Channel) {
        let (guest, host, hand) = channel(settings.rings.to_host.into()).unwrap();
        let wires = Arc::new(Wires::default());
        let bell = Box::new(Bell(wires.clone()));
        let queue = Queue::first(guest, bell, settings, &|length| Some(of_heap(length))).unwrap();
        let guest = Self {
            wires,
            queue,
            shared: Shared {
                receive: Arc::new(of_heap(settings.receive_bytes)),
                receive_gpadl: RECEIVE,
                send: Arc::new(of_heap(settings.send_bytes)),
                send_gpadl: SEND,
            },
            nic: None,
            hand,
        };
        (guest, host)
    }

    fn new(number: u8, settings: &Settings) -> Self {
        let (mut guest, host) = Self::without_host(settings);
        let nic = Arc::new(Nic::new(NicSettings {
            address: mac(number),
            name: "Ethernet".into(),
            queues: 4,
        }));
        let link = HostLink {
            wires: guest.wires.clone(),
            shared: [
                (RECEIVE, mapped(&guest.shared.receive)),
                (SEND, mapped(&guest.shared.send)),
            ]
            .into(),
            nobody: Arc::new(()),
        };
        nic.open(0, host, Arc::new(link));
        guest.nic = Some(nic);
        guest
    }

    /// Lets the host work, and tells the guest if it was signalled.
    pub(crate) fn step(&self) {
        if let Some(nic) = &self.nic
            && self.wires.host.swap(false, Ordering::Relaxed)
        {
            loop {
                match nic.process(0, 64, 0) {
                    Progress::More => {}
                    Progress::Idle => break,
                    other => panic!("{other:?}"),
                }
            }
        }
        if self.wires.guest.swap(false, Ordering::Relaxed) {
            while self.queue.interrupt() {}
        }
    }
}

/// Guests on a switch.
pub(crate) struct World {
    pub(crate) guests: Vec<Guest>,
    pub(crate) wire: Arc<Wire>,
    pub(crate) ports: Vec<PortId>,
}

impl World {
    /// Guests with addresses `mac(1)` and so on.
    pub(crate) fn new(settings: &[Settings]) -> Self {
        let wire = Arc::new(Wire::new(Switch::new(Kind::Private)));
        let mut world = Self {
            guests: Vec::new(),
            wire,
            ports: Vec::new(),
        };
        for (number, settings) in (1..).zip(settings) {
            let guest = Guest::new(number, settings);
            let nic = guest.nic.clone().unwrap();
            let port = world
                .wire
                .attach(PortSettings::guest(mac(number)), nic.clone())
                .unwrap();
            nic.plug(Some((world.wire.clone(), port)));
            world.ports.push(port);
            world.guests.push(guest);
        }
        world
    }

    pub(crate) fn step(&self) {
        self.guests.iter().for_each(Guest::step);
    }

    /// Runs a guest's future to its end; fails if nothing happens for too long.
    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.try_run(future).expect("nothing happens")
    }

    pub(crate) fn try_run<T>(&self, future: impl Future<Output = T>) -> Result<T, ()> {
        let mut steps = 0;
        let idle = || {
            self.step();
            steps += 1;
            if steps < 10_000 { Ok(()) } else { Err(()) }
        };
        wait::block_on_while(future, idle)
    }

    /// The card of guest `index`, after the handshake.
    pub(crate) fn connect(&self, index: usize, settings: Settings) -> Result<Arc<Card>, NetworkError> {
        let guest = &self.guests[index];
        self.run(connect(guest.queue.clone(), guest.shared.clone(), settings))
    }
}

/// Guests with these settings, and their cards.
pub(crate) fn up<const N: usize>(settings: [Settings; N]) -> (World, [Arc<Card>; N]) {
    let world = World::new(&settings);
    let cards = std::array::from_fn(|index| world.connect(index, settings[index]).unwrap());
    (world, cards)
}
