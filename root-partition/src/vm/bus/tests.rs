//! A guest's end of the bus and the worker's, over a fake hypervisor.

use super::fake::SLOTS;
use crate::shell::machines::Order;
use crate::vm::child::Child;
use crate::vm::fake::FakeHost;
use crate::vm::tests::{finish, order, world_of};
use crate::vm::worker::Worker;
use hypercall_api::address::Gpa;
use hypercall_api::id::VpIndex;
use std::sync::Arc;
use vmbus::client::{Client, Effect, Event, OfferedChannel, Settings};
use vmbus::protocol::body::OPEN_USER_DATA;
use vmbus::protocol::gpadl::GpaRange;
use vmbus::protocol::guid::class;
use vmbus::protocol::id::{GpadlId, Relid, Status};
use vmbus::ring::channel::Rings;
use vmbus::ring::{self, PacketFlags, PacketType};

const ECHO: &[u8] = b"processors = 2\nmemory = \"5MiB\"\nkernel = \"kernels/web\"\ndevices = [\"echo\"]\n";
/// Frames of the root: enough, with some to spare.
const FRAMES: usize = 8192;
/// First page of a channel's rings.
const FIRST: u64 = 16;
/// Pages of a channel's rings, half of them to the host.
const PAGES: u64 = 8;

struct Guest {
    host: FakeHost,
    worker: Worker<FakeHost>,
    client: Client,
}

impl Guest {
    /// A guest with an echo device that has made contact, and its channel.
    fn connected() -> (Self, OfferedChannel) {
        let (host, worker) = world_of(ECHO, FRAMES);
        order(&host, &worker, Order::Start).unwrap();
        let mut guest = Self {
            host,
            worker,
            client: Client::new(Settings::default()),
        };
        let channel = guest.connect();
        (guest, channel)
    }

    fn connect(&mut self) -> OfferedChannel {
        self.client = Client::new(Settings::default());
        let events = self.ask(|client, out| client.connect(out));
        assert!(matches!(events[..], [Event::Connected(..)]), "{events:?}");
        let mut events = self.ask(|client, out| client.request_offers(out));
        assert_eq!(events.pop(), Some(Event::OffersDelivered));
        match events.pop() {
            Some(Event::Offered(channel)) => channel,
            other => panic!("no offer but {other:?}"),
        }
    }

    /// Does something, and returns what comes of it.
    fn ask<T, E: std::fmt::Debug>(
        &mut self,
        what: impl FnOnce(&mut Client, &mut Vec<Effect>) -> Result<T, E>,
    ) -> Vec<Event> {
        let mut effects = Vec::new();
        what(&mut self.client, &mut effects).unwrap();
        let mut events = Vec::new();
        for _ in 0..100 {
            for effect in effects.drain(..) {
                match effect {
                    Effect::Post { connection, message } => {
                        self.host.guest_posts(connection, &message).unwrap()
                    }
                    Effect::Event(event) => events.push(event),
                }
            }
            self.host.step();
            while let Some(message) = self.host.guest_takes() {
                self.client.receive(&message, &mut effects);
            }
        }
        events
    }

    fn child(&self) -> Arc<Child<FakeHost>> {
        self.worker.child("web").unwrap()
    }

    /// The rings' pages as the guest sees them.
    fn rings(&self) -> ring::Channel {
        let memory = self.child().memory.lock().extents().next().unwrap();
        let base = core::ptr::NonNull::new((memory.1 + FIRST * 4096) as *mut u8).unwrap();
        // SAFETY: the pages are the child's RAM, which both sides reach by rings only, and which outlives the test's use.
        let rings = unsafe { Rings::new(base, PAGES as usize, PAGES as usize / 2, Arc::new(())) };
        ring::Channel::guest(rings.unwrap()).unwrap()
    }

    fn open(&mut self, relid: Relid, user_data: u8) -> GpadlId {
        let pages = GpaRange::whole((FIRST..FIRST + PAGES).collect());
        let mut gpadl = None;
        let events = self.ask(|client, out| {
            client
                .create_gpadl(relid, &[pages], out)
                .map(|id| gpadl = Some(id))
        });
        let gpadl = gpadl.unwrap();
        assert_eq!(events, [Event::GpadlCreated(relid, gpadl, Ok(()))]);
        let mut data = [0; OPEN_USER_DATA];
        data[0] = user_data;
        let events =
            self.ask(|client, out| client.open(relid, gpadl, PAGES as u32 / 2, VpIndex(1), &data, out));
        assert_eq!(events[0], Event::Opened(relid, Ok(())));
        gpadl
    }

    fn kill(&self) {
        order(&self.host, &self.worker, Order::Kill).unwrap();
        assert_eq!((self.host.free_frames(), self.host.own_pool()), (FRAMES, 0));
        assert!(self.host.ports.lock().is_clean());
    }
}

fn payload(channel: &mut ring::Channel) -> Option<(PacketType, u64, Vec<u8>)> {
    let mut batch = channel.incoming.batch();
    let packet = batch.next().unwrap()?;
    let mut bytes = vec![0; packet.payload_size()];
    packet.copy_most(&mut bytes);
    let seen = (packet.kind(), packet.transaction(), bytes);
    let _ = batch.finish();
    Some(seen)
}

#[test]
fn packets_come_back_and_the_guest_is_signalled_where_it_wants_to_be() {
    let (mut guest, channel) = Guest::connected();
    assert_eq!(channel.offer.class, class::ECHO);
    let mut rings = guest.rings();
    guest.open(channel.relid, 0);
    for (number, flags) in [(1, PacketFlags::empty()), (2, PacketFlags::COMPLETION_REQUESTED)] {
        let _ = rings
            .outgoing
            .send(number, flags, &[b"hello, e", b"cho!!!!!"])
            .unwrap();
        guest.host.guest_signals(channel.connection).unwrap();
        guest.host.run();
        let kind = match flags.is_empty() {
            true => PacketType::IN_BAND,
            false => PacketType::COMPLETION,
        };
        assert_eq!(
            payload(&mut rings),
            Some((kind, number, b"hello, echo!!!!!".to_vec()))
        );
        // On the VP that the open named, by the flag that is the channel's number.
        let flag = (1, channel.relid.0 as u16);
        assert!(guest.host.ports.lock().signalled.remove(&flag));
    }
    guest.kill();
}

#[test]
fn a_channel_closes_and_opens_again_and_its_memory_is_the_guests_own_between() {
    let (mut guest, channel) = Guest::connected();
    for _ in 0..3 {
        let gpadl = guest.open(channel.relid, 0);
        assert_eq!(guest.host.ports.lock().rows, 1);
        guest.ask(|client, out| client.close(channel.relid, out));
        assert!(
            guest.host.guest_signals(channel.connection).is_err(),
            "nobody is to be signalled"
        );
        let events = guest.ask(|client, out| client.teardown_gpadl(gpadl, out));
        assert_eq!(events, [Event::GpadlTornDown(gpadl)]);
        assert_eq!(guest.host.ports.lock().rows, 0);
    }
    guest.kill();
}

#[test]
fn a_machine_that_ends_with_open_channels_leaves_nothing() {
    let (mut guest, channel) = Guest::connected();
    guest.open(channel.relid, 3);
    guest.kill();
}

#[test]
fn a_machine_does_not_end_before_its_transfers() {
    let (guest, _) = Guest::connected();
    let buffer = {
        let child = guest.child();
        let memory = child.bus().unwrap().memory();
        let user = Arc::new(memory.user());
        memory.buffer_of(&user, [(Gpa(0x1000), 512)]).unwrap()
    };
    let mut ended = std::pin::pin!(async {
        use crate::shell::machines::Machines;
        guest.worker.order("web", Order::Kill).await
    });
    let mut context = core::task::Context::from_waker(core::task::Waker::noop());
    for _ in 0..100 {
        assert!(ended.as_mut().poll(&mut context).is_pending());
        guest.host.step();
    }
    assert_eq!(guest.host.partitions().0, 1);
    drop(buffer);
    finish(&guest.host, ended).unwrap();
    assert_eq!(guest.host.partitions().0, 0);
}

#[test]
fn sub_channels_are_offered_when_their_device_asks_and_go_when_it_closes() {
    let (mut guest, channel) = Guest::connected();
    let pages = GpaRange::whole((FIRST..FIRST + PAGES).collect());
    let gpadl = {
        let mut id = None;
        guest.ask(|client, out| {
            client
                .create_gpadl(channel.relid, &[pages], out)
                .map(|gpadl| id = Some(gpadl))
        });
        id.unwrap()
    };
    let mut data = [0; OPEN_USER_DATA];
    data[0] = 3;
    let events = guest.ask(|client, out| client.open(channel.relid, gpadl, 4, VpIndex(0), &data, out));
    let subs: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Offered(sub) => Some((sub.offer.sub_channel_index, sub.relid)),
            _ => None,
        })
        .collect();
    assert_eq!(
        subs.iter().map(|(index, _)| *index).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    let events = guest.ask(|client, out| client.close(channel.relid, out));
    assert_eq!(events, subs.map_rescinded());
    guest.kill();
}

trait Rescinded {
    fn map_rescinded(&self) -> Vec<Event>;
}

impl Rescinded for Vec<(u16, Relid)> {
    fn map_rescinded(&self) -> Vec<Event> {
        self.iter().map(|(_, relid)| Event::Rescinded(*relid)).collect()
    }
}

#[test]
fn another_kernel_finds_a_fresh_bus() {
    let (mut guest, channel) = Guest::connected();
    guest.open(channel.relid, 0);
    // What the one before had not taken does not reach the next.
    let again = guest.connect();
    assert_eq!(again.offer, channel.offer);
    assert_eq!(guest.host.ports.lock().rows, 0);
    guest.open(again.relid, 0);
    guest.kill();
}

#[test]
fn an_open_for_a_vp_that_is_not_there_or_of_pages_that_are_not_is_refused() {
    let (mut guest, channel) = Guest::connected();
    let relid = channel.relid;
    let beyond = GpaRange::whole((1 << 40..(1 << 40) + 8).collect());
    let events = guest.ask(|client, out| client.create_gpadl(relid, &[beyond], out));
    assert!(matches!(events[..], [Event::GpadlCreated(_, _, Err(_))]));
    let pages = GpaRange::whole((FIRST..FIRST + PAGES).collect());
    let mut gpadl = GpadlId(0);
    guest.ask(|client, out| client.create_gpadl(relid, &[pages], out).map(|id| gpadl = id));
    let events = guest.ask(|client, out| client.open(relid, gpadl, 4, VpIndex(2), &[0; OPEN_USER_DATA], out));
    assert!(matches!(events[..], [Event::Opened(_, Err(_))]));
    guest.kill();
}

#[test]
fn messages_wait_for_a_guest_that_does_not_take_them() {
    let (mut guest, channel) = Guest::connected();
    // Each teardown of what does not exist is answered.
    let request =
        vmbus::protocol::message::ChannelMessage::GpadlTeardown(vmbus::protocol::body::GpadlTeardown {
            relid: channel.relid,
            gpadl: GpadlId(7),
        });
    for _ in 0..SLOTS * 3 {
        guest
            .host
            .guest_posts(vmbus::protocol::id::CONTACT_CONNECTION, &request.encode())
            .unwrap();
    }
    let mut taken = 0;
    for _ in 0..100 {
        taken += std::iter::from_fn(|| guest.host.guest_takes()).count();
        guest.host.step();
    }
    assert_eq!(taken, SLOTS * 3);
    let events = guest.ask(|client, out| client.unload(out));
    assert_eq!(events, [Event::Unloaded]);
    guest.kill();
}

#[test]
fn a_guest_that_breaks_its_rings_stops_its_channel_alone() {
    let (mut guest, channel) = Guest::connected();
    let gpadl = guest.open(channel.relid, 0);
    guest
        .child()
        .memory
        .lock()
        .write(Gpa(FIRST * 4096), &u32::MAX.to_le_bytes())
        .unwrap();
    guest.host.guest_signals(channel.connection).unwrap();
    guest.host.run();
    guest.ask(|client, out| client.close(channel.relid, out));
    let events = guest.ask(|client, out| client.teardown_gpadl(gpadl, out));
    assert_eq!(events, [Event::GpadlTornDown(gpadl)]);
    guest.open(channel.relid, 0);
    guest.kill();
}

#[test]
fn a_socket_that_a_guest_wants_is_refused_as_nobody_listens() {
    let (mut guest, _) = Guest::connected();
    let (endpoint, service) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
    let events = guest.ask(|client, out| client.connect_socket(endpoint, service, out));
    let status = Status::CONNECTION_REFUSED;
    let refused = Event::SocketRefused {
        endpoint,
        service,
        status,
    };
    assert_eq!(events, [refused]);
    guest.kill();
}
