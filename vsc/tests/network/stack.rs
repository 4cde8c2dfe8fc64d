//! TCP and UDP of smoltcp over two cards and a switch, by all that hosts do for guests and without any of it.

use crate::world::{World, mac, up};
use proptest::prelude::*;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::Device;
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vsc::network::station::{Station, poll};
use vsc::network::{Beside, Card, Settings, Version};
use vsp::network::wire::NoRoom;
use vsp::network::{Endpoint, Frame};
use vsp::switch::port::PortSettings;

/// A system with one socket.
struct System {
    station: Station,
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
}

impl System {
    fn new(number: u8, mut station: Station, socket: impl smoltcp::socket::AnySocket<'static>) -> Self {
        let address = EthernetAddress(station.card().address().0);
        let mut interface = Interface::new(Config::new(address.into()), &mut station, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::new(IpAddress::v4(10, 0, 0, number), 24))
                .unwrap();
        });
        let mut sockets = SocketSet::new(vec![]);
        let socket = sockets.add(socket);
        Self {
            station,
            interface,
            sockets,
            socket,
        }
    }

    fn poll(&mut self, now: i64) {
        let now = Instant::from_millis(now);
        poll(&mut self.interface, now, &mut self.station, &mut self.sockets);
    }

    fn tcp(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    fn udp(&mut self) -> &mut udp::Socket<'static> {
        self.sockets.get_mut(self.socket)
    }
}

fn tcp_socket(buffer: usize) -> tcp::Socket<'static> {
    let buffers = [(); 2].map(|()| tcp::SocketBuffer::new(vec![0; buffer]));
    let [receive, send] = buffers;
    tcp::Socket::new(receive, send)
}

fn udp_socket() -> udp::Socket<'static> {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 32 << 10]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(7).unwrap();
    socket
}

/// Sends `data` from the first to the second, and `data` turned round back; returns what came at both.
fn exchange(world: &World, stations: [Station; 2], data: &[u8]) -> [Vec<u8>; 2] {
    let [one, two] = stations;
    let mut systems = [
        System::new(1, one, tcp_socket(128 << 10)),
        System::new(2, two, tcp_socket(128 << 10)),
    ];
    let back: Vec<u8> = data.iter().rev().copied().collect();
    systems[1].tcp().listen(80).unwrap();
    let System {
        interface,
        sockets,
        socket,
        ..
    } = &mut systems[0];
    let target = (IpAddress::v4(10, 0, 0, 2), 80);
    sockets
        .get_mut::<tcp::Socket<'_>>(*socket)
        .connect(interface.context(), target, 40000)
        .unwrap();
    let sends = [data, &back[..]];
    let (mut sent, mut came) = ([0; 2], [Vec::new(), Vec::new()]);
    for now in 0.. {
        assert!(
            now < 100_000,
            "it does not end: {} and {} bytes came; {:?}",
            came[0].len(),
            came[1].len(),
            systems.each_ref().map(|system| system.station.card().counters()),
        );
        for (index, system) in systems.iter_mut().enumerate() {
            system.poll(now);
            let socket = system.tcp();
            if socket.can_send() && sent[index] < data.len() {
                sent[index] += socket.send_slice(&sends[index][sent[index]..]).unwrap();
            }
            while socket.can_recv() {
                socket
                    .recv(|bytes| {
                        came[index].extend_from_slice(bytes);
                        (bytes.len(), ())
                    })
                    .unwrap();
            }
            system.poll(now);
            world.step();
        }
        if came.iter().all(|came| came.len() >= data.len()) {
            return came;
        }
    }
    unreachable!()
}

fn data(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at * 31 + at / 256 + at / 65536) as u8)
        .collect()
}

#[test]
fn tcp_crosses_unharmed_whatever_hosts_do_for_guests() {
    let all = Settings::default();
    let none = Settings {
        offloads: false,
        ..all
    };
    let old = Settings {
        newest: Version::V5,
        ..all
    };
    let jumbo = Settings { mtu: 9000, ..all };
    let data = data(600_000);
    for (one, two) in [
        (all, all),
        (all, none),
        (none, all),
        (none, none),
        (old, all),
        (all, jumbo),
        (jumbo, jumbo),
    ] {
        let (world, cards) = up([one, two]);
        let stations = cards.clone().map(Station::new);
        let [back, forth] = exchange(&world, stations, &data);
        assert!(forth == data && back.iter().rev().eq(&data), "{one:?} {two:?}");
        for card in &cards {
            let counters = card.counters().unwrap();
            assert_eq!(counters.bad_checksums.load(Ordering::Relaxed), 0);
            assert_eq!(counters.bad_messages.load(Ordering::Relaxed), 0);
        }
    }
}

#[test]
fn large_packets_go_whole_from_guest_to_guest() {
    let (world, cards) = up([Settings::default(); 2]);
    let stations = cards.clone().map(Station::new);
    assert!(stations[0].largest_frame() > 60_000);
    let data = data(1 << 20);
    let [_, forth] = exchange(&world, stations, &data);
    assert_eq!(forth, data);
    let frames = cards[0].counters().unwrap().sent.load(Ordering::Relaxed);
    assert!(frames < 100, "{frames} frames for a mebibyte each way");
}

#[test]
fn what_a_stack_is_told_is_true() {
    let (_world, [with, without]) = up([
        Settings::default(),
        Settings {
            offloads: false,
            mtu: 9000,
            ..Settings::default()
        },
    ]);
    assert!(with.offloads().tcp_checksums && with.offloads().coalesced);
    let large = Station::new(with.clone()).capabilities().max_transmission_unit;
    assert_eq!(large, with.largest_cut());
    assert_eq!(
        Station::without_large_packets(with)
            .capabilities()
            .max_transmission_unit,
        1514
    );
    assert_eq!(without.largest_cut(), 0);
    assert_eq!(Station::new(without).capabilities().max_transmission_unit, 9014);
}

#[test]
fn datagrams_cross_and_those_larger_than_the_mtu_are_dropped_and_counted() {
    let (world, cards) = up([Settings::default(); 2]);
    let [one, two] = cards.clone().map(Station::new);
    let (mut one, mut two) = (
        System::new(1, one, udp_socket()),
        System::new(2, two, udp_socket()),
    );
    let target = (IpAddress::v4(10, 0, 0, 2), 7);
    for length in [0, 1, 1472, 1473, 2000, 1471] {
        one.udp().send_slice(&data(length), target).unwrap();
        for now in 0..10 {
            one.poll(now);
            world.step();
            two.poll(now);
            world.step();
        }
        match two.udp().recv() {
            Ok((came, _)) => assert_eq!(came, data(length)),
            Err(_) => assert!(length > 1472, "{length} bytes have not come"),
        }
    }
    assert_eq!(cards[0].counters().unwrap().no_room.load(Ordering::Relaxed), 2);
}

/// Keeps what comes to a port that takes no offloads.
#[derive(Default)]
struct Keeper(std::sync::Mutex<Vec<Vec<u8>>>);

impl Endpoint for Keeper {
    fn deliver(&self, frame: &Frame<'_>, tag: Option<u16>, cut_tag: bool) -> Result<(), NoRoom> {
        let mut kept = self.0.lock().unwrap();
        vsp::network::segment::complete(frame, tag, cut_tag, |bytes| kept.push(bytes.to_vec()))
            .map_err(|_| NoRoom)
    }
}

#[test]
fn a_frame_with_a_wrong_checksum_does_not_reach_the_stack() {
    let (world, [one, two]) = up([Settings::default(); 2]);
    let mut station = Station::new(two.clone());
    let mut frame = udp_frame(&data(100));
    one.send(
        0,
        &mut frame.clone(),
        &Beside {
            fill_checksums: true,
            ..Beside::default()
        },
    )
    .unwrap();
    world.step();
    assert!(Device::receive(&mut station, Instant::ZERO).is_some());
    frame[40] ^= 1;
    frame[41] ^= 1;
    one.send(0, &mut frame, &Beside::default()).unwrap();
    world.step();
    assert!(Device::receive(&mut station, Instant::ZERO).is_none());
    assert_eq!(two.counters().unwrap().bad_checksums.load(Ordering::Relaxed), 1);
}

fn udp_frame(data: &[u8]) -> Vec<u8> {
    let mut frame = [mac(2).0, mac(1).0].concat();
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((data.len() as u16 + 28).to_be_bytes());
    frame.extend([0, 1, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 7]);
    frame.extend((data.len() as u16 + 8).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(data);
    frame
}

/// Whether the checksum of a UDP frame holds, worked out a word at a time.
fn udp_holds(frame: &[u8]) -> bool {
    let words = |bytes: &[u8]| -> u64 {
        bytes
            .chunks(2)
            .map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)))
            .sum()
    };
    let ones = |mut sum: u64| {
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum == 0xffff
    };
    ones(words(&frame[14..34]))
        && ones(words(&frame[26..34]) + 17 + (frame.len() - 34) as u64 + words(&frame[34..]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_left_to_the_host_is_filled_in_for_those_who_want_it(length in 0..1400_usize, offloads: bool) {
        let (world, [card, _other]) = up([Settings { offloads, ..Settings::default() }, Settings::default()]);
        let keeper = Arc::new(Keeper::default());
        world.wire.detach(world.ports[1]);
        world.wire.attach(PortSettings::guest(mac(2)), keeper.clone()).unwrap();
        let beside = Beside { fill_checksums: true, ..Beside::default() };
        let card: &Arc<Card> = &card;
        card.send(0, &mut udp_frame(&data(length)), &beside).unwrap();
        world.step();
        let kept = keeper.0.lock().unwrap();
        prop_assert_eq!(kept.len(), 1);
        prop_assert!(udp_holds(&kept[0]));
        prop_assert_eq!(&kept[0][42..], data(length));
    }
}

/// embassy-net's driver gives and takes the same frames, and wakes who waits.
#[test]
fn an_embassy_driver_is_woken_when_a_frame_comes() {
    use embassy_net_driver::{Driver, LinkState, RxToken, TxToken};
    use std::sync::atomic::AtomicUsize;
    use std::task::{Context, Wake, Waker};

    #[derive(Default)]
    struct Wakes(AtomicUsize);
    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    let (world, [one, two]) = up([Settings::default(); 2]);
    let (mut one, mut two) = (Station::new(one), Station::new(two));
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(wakes.clone());
    let mut context = Context::from_waker(&waker);
    assert!(one.link_state(&mut context) == LinkState::Up);
    assert!(Driver::receive(&mut two, &mut context).is_none());
    let sent = udp_frame(&data(64));
    let token = Driver::transmit(&mut one, &mut context).expect("there is room");
    TxToken::consume(token, sent.len(), |bytes| bytes.copy_from_slice(&sent));
    let before = wakes.0.load(Ordering::Relaxed);
    world.step();
    world.step();
    assert!(wakes.0.load(Ordering::Relaxed) > before);
    let (token, _) = Driver::receive(&mut two, &mut context).expect("a frame has come");
    // The checksum is the host's to fill in, or to vouch for.
    RxToken::consume(token, |bytes| assert_eq!(bytes[42..], sent[42..]));
}
