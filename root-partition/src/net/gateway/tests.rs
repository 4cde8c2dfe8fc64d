//! The gateway against guests and hosts made of bytes.

use super::build::{self, Host};
use super::flows::{MAX_FLOWS, MAX_GUEST_FLOWS, State};
use super::forwards::{PublicPort, Target};
use super::fuzz::{gateway, gateway_frames};
use super::packet::Protocol;
use super::route::{Dropped, Gateway, Made, Network, Verdict};
use core::net::Ipv4Addr;
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, Icmpv4Packet,
    Icmpv4Repr, IpAddress, IpProtocol, Ipv4Packet, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket,
};
use vmbus::protocol::network::Mac;
use vmbus::protocol::network::packet_info::{LargeSend, SendChecksum};
use vsp::network::{Frame, segment};
use vsp::switch::TICKS_A_SECOND as SECOND;

const GUEST: Host = host(1, Ipv4Addr::new(192, 168, 86, 20));
const OTHER_GUEST: Host = host(2, Ipv4Addr::new(192, 168, 86, 21));
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 86, 1);
const ROOT: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const ROUTER: Host = host(0x22, Ipv4Addr::new(10, 0, 2, 2));
const NAMES: Host = host(0x23, Ipv4Addr::new(10, 0, 2, 3));
const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

const fn host(number: u8, address: Ipv4Addr) -> Host {
    Host {
        mac: Mac([2, 0, 0, 0, 0, number]),
        address,
    }
}

/// A gateway that knows its router and its name server.
struct World {
    gateway: Gateway,
    now: u64,
    made: Vec<Made>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            gateway: gateway(),
            now: 1000 * SECOND,
            made: Vec::new(),
        };
        for other in [ROUTER, NAMES] {
            // The gateway asks by sending; the first packet waits for the answer.
            world.inside(&tcp(GUEST, (GUEST.address, 9), (other.address, 9), 2, b""));
            let root = Host {
                mac: Mac::BROADCAST,
                address: ROOT,
            };
            world.outside(&build::arp(ArpOperation::Reply, other, root));
        }
        let far = tcp(GUEST, (GUEST.address, 9), (FAR, 9), 2, b"");
        world.inside(&far);
        world.made.clear();
        world.gateway.flows.end(|_| true);
        world
    }

    fn step(&mut self, frame: &Frame<'_>, inside: bool) -> Option<(Network, Vec<u8>)> {
        let verdict = match inside {
            true => self.gateway.from_inside(frame, self.now, &mut self.made),
            false => self.gateway.from_outside(frame, self.now, &mut self.made),
        };
        match verdict {
            Verdict::Forward(to, packet) => {
                let mut bytes = Vec::new();
                segment::complete(&packet.frame(frame), None, false, |part| {
                    bytes.extend_from_slice(part)
                })
                .unwrap();
                Some((to, bytes))
            }
            _ => None,
        }
    }

    /// What a frame of a guest becomes outside.
    fn inside(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let (to, bytes) = self.step(&Frame::of_bytes(bytes), true)?;
        assert_eq!(to, Network::Outside);
        Some(bytes)
    }

    /// What a frame from outside becomes inside.
    fn outside(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let (to, bytes) = self.step(&Frame::of_bytes(bytes), false)?;
        assert_eq!(to, Network::Inside);
        Some(bytes)
    }

    fn made(&mut self) -> Vec<u8> {
        assert_eq!(self.made.len(), 1);
        self.made.remove(0).bytes
    }

    fn dropped(&self, reason: Dropped) -> u64 {
        self.gateway.counters.dropped(reason)
    }
}

fn to_gateway(from: Host, address: Ipv4Addr) -> (Host, Host) {
    let gateway = Host {
        mac: Mac([2, 0, 0, 0, 0, 0xfe]),
        address,
    };
    (from, gateway)
}

fn raw(from: Host, to: Ipv4Addr, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    // By way of a UDP datagram, whose IP header is then changed.
    let (from, to) = to_gateway(from, to);
    let mut bytes = build::udp((from, 0), (to, 0), &vec![0; payload.len().max(8) - 8]);
    bytes.truncate(34);
    bytes.extend_from_slice(payload);
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes[14..]);
    packet.set_next_header(protocol);
    packet.set_total_len(20 + payload.len() as u16);
    packet.fill_checksum();
    bytes
}

fn tcp(from: Host, source: (Ipv4Addr, u16), to: (Ipv4Addr, u16), flags: u8, data: &[u8]) -> Vec<u8> {
    let repr = TcpRepr {
        src_port: source.1,
        dst_port: to.1,
        control: TcpControl::None,
        seq_number: TcpSeqNumber(7),
        ack_number: (flags & 0x10 != 0).then_some(TcpSeqNumber(9)),
        window_len: 1000,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: data,
    };
    let mut segment = vec![0; repr.buffer_len()];
    let (source_address, to_address) = (IpAddress::Ipv4(source.0), IpAddress::Ipv4(to.0));
    repr.emit(
        &mut TcpPacket::new_unchecked(&mut segment[..]),
        &source_address,
        &to_address,
        &ChecksumCapabilities::default(),
    );
    segment[13] = flags;
    TcpPacket::new_unchecked(&mut segment[..]).fill_checksum(&source_address, &to_address);
    let from = Host {
        address: source.0,
        ..from
    };
    raw(from, to.0, IpProtocol::Tcp, &segment)
}

fn udp(from: Host, source: u16, to: (Ipv4Addr, u16), data: &[u8]) -> Vec<u8> {
    let (from, gateway) = to_gateway(from, to.0);
    build::udp((from, source), (gateway, to.1), data)
}

fn echo(from: Host, to: Ipv4Addr, reply: bool, ident: u16) -> Vec<u8> {
    let (from, gateway) = to_gateway(from, to);
    let message = match reply {
        false => Icmpv4Repr::EchoRequest {
            ident,
            seq_no: 3,
            data: b"hello",
        },
        true => Icmpv4Repr::EchoReply {
            ident,
            seq_no: 3,
            data: b"hello",
        },
    };
    build::icmp(from, gateway, &message)
}

/// Source, destination and ports of a packet whose checksums hold.
fn ends(bytes: &[u8]) -> (Ipv4Addr, u16, Ipv4Addr, u16) {
    let packet = Ipv4Packet::new_checked(&bytes[14..]).unwrap();
    assert!(packet.verify_checksum());
    let (source, to) = (packet.src_addr(), packet.dst_addr());
    let (from, into) = (IpAddress::Ipv4(source), IpAddress::Ipv4(to));
    match packet.next_header() {
        IpProtocol::Tcp => {
            let segment = TcpPacket::new_checked(packet.payload()).unwrap();
            assert!(segment.verify_checksum(&from, &into));
            (source, segment.src_port(), to, segment.dst_port())
        }
        IpProtocol::Udp => {
            let datagram = UdpPacket::new_checked(packet.payload()).unwrap();
            assert!(datagram.verify_checksum(&from, &into));
            (source, datagram.src_port(), to, datagram.dst_port())
        }
        _ => {
            let message = Icmpv4Packet::new_checked(packet.payload()).unwrap();
            assert!(message.verify_checksum());
            (source, message.echo_ident(), to, 0)
        }
    }
}

#[test]
fn a_connection_of_a_guest_goes_out_by_the_roots_address_and_answers_come_back() {
    let mut world = World::new();
    let out = world
        .inside(&tcp(GUEST, (GUEST.address, 4000), (FAR, 80), 2, b""))
        .unwrap();
    assert_eq!(ends(&out), (ROOT, 4000, FAR, 80));
    assert_eq!((&out[..6], out[22]), (&ROUTER.mac.0[..], 63));
    let back = world
        .outside(&tcp(ROUTER, (FAR, 80), (ROOT, 4000), 0x12, b""))
        .unwrap();
    assert_eq!(ends(&back), (FAR, 80, GUEST.address, 4000));
    assert_eq!(&back[..6], &GUEST.mac.0);
    let out = world
        .inside(&tcp(GUEST, (GUEST.address, 4000), (FAR, 80), 0x18, b"GET /"))
        .unwrap();
    assert_eq!((ends(&out), &out[54..]), ((ROOT, 4000, FAR, 80), &b"GET /"[..]));
    assert_eq!(
        world.gateway.flows.iter().next().unwrap().state,
        State::Established
    );
}

#[test]
fn guests_with_the_same_port_to_the_same_host_get_different_ones() {
    let mut world = World::new();
    let out = |world: &mut World, guest: Host| {
        ends(
            &world
                .inside(&tcp(guest, (guest.address, 4000), (FAR, 80), 2, b""))
                .unwrap(),
        )
        .1
    };
    let (first, second) = (out(&mut world, GUEST), out(&mut world, OTHER_GUEST));
    assert!(first == 4000 && second != 4000 && second >= 1024);
    let back = world
        .outside(&tcp(ROUTER, (FAR, 80), (ROOT, second), 0x12, b""))
        .unwrap();
    assert_eq!(ends(&back), (FAR, 80, OTHER_GUEST.address, 4000));
}

#[test]
fn echo_requests_and_udp_are_translated_both_ways() {
    let mut world = World::new();
    let out = world.inside(&echo(GUEST, FAR, false, 0x1234)).unwrap();
    assert_eq!(ends(&out), (ROOT, 0x1234, FAR, 0));
    let back = world.outside(&echo(host(0x22, FAR), ROOT, true, 0x1234)).unwrap();
    assert_eq!(ends(&back), (FAR, 0x1234, GUEST.address, 0));
    let out = world.inside(&udp(GUEST, 5000, (FAR, 123), b"time")).unwrap();
    assert_eq!(ends(&out), (ROOT, 5000, FAR, 123));
    let back = world
        .outside(&udp(host(0x22, FAR), 123, (ROOT, 5000), b"late"))
        .unwrap();
    assert_eq!(ends(&back), (FAR, 123, GUEST.address, 5000));
}

#[test]
fn a_datagram_without_a_checksum_stays_without() {
    let mut world = World::new();
    let mut bytes = udp(GUEST, 5000, (FAR, 123), b"time");
    bytes[40..42].fill(0);
    assert_eq!(world.inside(&bytes).unwrap()[40..42], [0, 0]);
}

#[test]
fn what_a_card_is_to_fill_in_is_left_to_it() {
    let mut world = World::new();
    let mut bytes = tcp(GUEST, (GUEST.address, 4000), (FAR, 80), 2, b"");
    bytes[50..52].fill(0xee);
    let mut frame = Frame::of_bytes(&bytes);
    frame.checksum = SendChecksum(SendChecksum::TCP);
    assert_eq!(ends(&world.step(&frame, true).unwrap().1), (ROOT, 4000, FAR, 80));
    let mut bytes = tcp(GUEST, (GUEST.address, 4000), (FAR, 80), 0x10, &[7; 5000]);
    bytes[16..18].fill(0);
    bytes[24..26].fill(0);
    let mut frame = Frame::of_bytes(&bytes);
    frame.large = Some(LargeSend::new(1460, 34, false));
    let whole = world.step(&frame, true).unwrap().1;
    assert_eq!(whole.len(), 5000 + 4 * 54);
    assert_eq!(ends(&whole[..1514]), (ROOT, 4000, FAR, 80));
}

#[test]
fn questions_for_names_go_to_the_roots_name_server_and_answers_seem_the_gateways() {
    let mut world = World::new();
    let out = world.inside(&udp(GUEST, 5353, (GATEWAY, 53), b"who")).unwrap();
    assert_eq!(ends(&out), (ROOT, 5353, NAMES.address, 53));
    let back = world.outside(&udp(NAMES, 53, (ROOT, 5353), b"you")).unwrap();
    assert_eq!(ends(&back), (GATEWAY, 53, GUEST.address, 5353));
    let out = world
        .inside(&tcp(GUEST, (GUEST.address, 5353), (GATEWAY, 53), 2, b""))
        .unwrap();
    assert_eq!(ends(&out), (ROOT, 5353, NAMES.address, 53));
}

#[test]
fn nobody_reaches_a_guest_unasked() {
    let mut world = World::new();
    assert!(
        world
            .outside(&tcp(ROUTER, (FAR, 80), (ROOT, 4000), 2, b""))
            .is_none()
    );
    assert!(world.outside(&udp(ROUTER, 53, (ROOT, 4000), b"")).is_none());
    world.inside(&udp(GUEST, 5000, (FAR, 123), b"")).unwrap();
    assert!(
        world
            .outside(&udp(host(0x22, FAR), 124, (ROOT, 5000), b""))
            .is_none()
    );
    assert!(world.outside(&udp(ROUTER, 123, (ROOT, 5000), b"")).is_none());
    // To the guest's address itself: that is not the root's.
    assert!(
        world
            .outside(&udp(host(0x22, FAR), 123, (GUEST.address, 5000), b""))
            .is_none()
    );
}

#[test]
fn a_forward_leads_to_a_machine_by_its_lease_and_ends_with_its_flows() {
    let mut world = World::new();
    let ask = tcp(ROUTER, (FAR, 50_000), (ROOT, 8080), 2, b"");
    assert!(world.outside(&ask).is_none());
    assert_eq!(world.dropped(Dropped::Unresolved), 3);
    let address = lease(&mut world, GUEST.mac);
    let came = world.outside(&ask).unwrap();
    assert_eq!(ends(&came), (FAR, 50_000, address, 80));
    let guest = Host { address, ..GUEST };
    let answer = tcp(guest, (address, 80), (FAR, 50_000), 0x12, b"");
    assert_eq!(ends(&world.inside(&answer).unwrap()), (ROOT, 8080, FAR, 50_000));
    // A guest's own connection gets another port than the forwarded one.
    let own = world
        .inside(&tcp(guest, (address, 8080), (FAR, 80), 2, b""))
        .unwrap();
    assert_ne!(ends(&own).1, 8080);
    let from = PublicPort {
        protocol: Protocol::Tcp,
        port: 8080,
    };
    world.gateway.end_forward(from).unwrap();
    assert!(world.inside(&answer).is_none() && world.outside(&ask).is_none());
    assert!(world.gateway.end_forward(from).is_err());
}

#[test]
fn errors_about_a_guests_packets_reach_it_as_it_sent_them() {
    let mut world = World::new();
    for bytes in [
        udp(GUEST, 5000, (FAR, 123), b"time"),
        tcp(GUEST, (GUEST.address, 5000), (FAR, 123), 2, b""),
        echo(GUEST, FAR, false, 5000),
    ] {
        let out = world.inside(&bytes).unwrap();
        let root = host(0x56, ROOT);
        let error = build::icmp_error(ROUTER, root, (3, 1), 0, &out[14..]);
        let error = world.outside(&error).unwrap();
        let outer = Ipv4Packet::new_checked(&error[14..]).unwrap();
        assert!(
            outer.verify_checksum()
                && Icmpv4Packet::new_checked(outer.payload())
                    .unwrap()
                    .verify_checksum()
        );
        assert_eq!(
            (outer.src_addr(), outer.dst_addr()),
            (ROUTER.address, GUEST.address)
        );
        // As the guest sent it, but for the hop and what follows from it.
        let mut quoted = outer.payload()[8..].to_vec();
        let inner = &mut Ipv4Packet::new_unchecked(&mut quoted[..]);
        assert!(inner.verify_checksum());
        inner.set_hop_limit(64);
        inner.fill_checksum();
        assert_eq!(quoted[..28], bytes[14..42]);
    }
}

#[test]
fn a_packet_that_the_uplink_cannot_take_is_answered_with_the_mtu() {
    let mut world = World::new();
    assert!(world.inside(&udp(GUEST, 5000, (FAR, 123), &[0; 1473])).is_none());
    let error = world.made();
    assert_eq!(
        (error[34], error[35], &error[40..42]),
        (3, 4, &1500_u16.to_be_bytes()[..])
    );
    assert!(world.inside(&udp(GUEST, 5000, (FAR, 123), &[0; 1472])).is_some());
}

#[test]
fn a_packet_that_has_passed_too_many_routers_is_answered() {
    let mut world = World::new();
    let mut bytes = udp(GUEST, 5000, (FAR, 123), b"");
    bytes[22] = 1;
    Ipv4Packet::new_unchecked(&mut bytes[14..]).fill_checksum();
    assert!(world.inside(&bytes).is_none());
    assert_eq!(world.made()[34], 11);
}

#[test]
fn fragments_and_packets_with_wrong_checksums_are_dropped_and_counted() {
    let mut world = World::new();
    let mut bytes = udp(GUEST, 5000, (FAR, 123), &[0; 64]);
    bytes[20] = 0x20;
    assert!(world.inside(&bytes).is_none());
    Ipv4Packet::new_unchecked(&mut bytes[14..]).fill_checksum();
    assert!(world.inside(&bytes).is_none());
    assert_eq!(
        (
            world.dropped(Dropped::Malformed),
            world.dropped(Dropped::Fragment)
        ),
        (1, 1)
    );
}

#[test]
fn a_guest_cannot_send_from_an_address_of_others() {
    let mut world = World::new();
    let leased = lease(&mut world, OTHER_GUEST.mac);
    for address in [leased, GATEWAY, ROOT, FAR] {
        let liar = Host { address, ..GUEST };
        assert!(world.inside(&udp(liar, 5000, (FAR, 123), b"")).is_none());
        let question = build::arp(ArpOperation::Request, liar, to_gateway(GUEST, GATEWAY).1);
        assert!(world.inside(&question).is_none());
    }
    assert_eq!(world.dropped(Dropped::Spoofed), 8);
    assert!(world.made.is_empty());
}

#[test]
fn the_gateway_answers_arp_and_pings() {
    let mut world = World::new();
    world.inside(&build::arp(
        ArpOperation::Request,
        GUEST,
        to_gateway(GUEST, GATEWAY).1,
    ));
    let answer = world.made();
    let message = ArpRepr::parse(&ArpPacket::new_checked(&answer[14..]).unwrap()).unwrap();
    let ArpRepr::EthernetIpv4 {
        operation,
        source_protocol_addr,
        ..
    } = message
    else {
        panic!("{message}")
    };
    assert_eq!((operation, source_protocol_addr), (ArpOperation::Reply, GATEWAY));
    world.inside(&echo(GUEST, GATEWAY, false, 77));
    assert_eq!(ends(&world.made()), (GATEWAY, 77, GUEST.address, 0));
    world.inside(&tcp(GUEST, (GUEST.address, 1), (GATEWAY, 80), 2, b""));
    assert_eq!(world.made()[34..36], [3, 3]);
}

#[test]
fn a_packet_waits_for_the_address_of_a_neighbour_and_then_goes() {
    let mut world = World::new();
    let near = host(0x44, Ipv4Addr::new(10, 0, 2, 99));
    let packet = udp(GUEST, 5000, (near.address, 9), b"first");
    assert!(world.inside(&packet).is_none());
    let question = world.made();
    assert_eq!(
        (&question[..6], &question[38..42]),
        (&[0xff; 6][..], &near.address.octets()[..])
    );
    world.outside(&build::arp(ArpOperation::Reply, near, host(0x56, ROOT)));
    let sent = world.made();
    assert_eq!(
        (&sent[..6], ends(&sent)),
        (&near.mac.0[..], (ROOT, 5000, near.address, 9))
    );
    assert!(world.inside(&packet).is_some());
}

#[test]
fn a_guest_that_opens_flows_without_end_leaves_room_for_others() {
    let mut world = World::new();
    for number in 0..20_000_u32 {
        let to = Ipv4Addr::from_bits(0xc633_0000 + number);
        world.inside(&udp(GUEST, 5000, (to, 9), b""));
    }
    let flows = &world.gateway.flows;
    assert_eq!(flows.len(), MAX_GUEST_FLOWS);
    // The newest are there, and another guest has room.
    assert!(
        world
            .outside(&udp(
                host(0x22, Ipv4Addr::from_bits(0xc633_0000 + 19_999)),
                9,
                (ROOT, 5000),
                b""
            ))
            .is_some()
    );
    assert!(world.inside(&udp(OTHER_GUEST, 5000, (FAR, 9), b"")).is_some());
    for guest in 30..36 {
        let guest = host(guest, Ipv4Addr::new(192, 168, 86, guest));
        for number in 0..MAX_GUEST_FLOWS as u32 {
            world.inside(&udp(
                guest,
                5000,
                (Ipv4Addr::from_bits(0xc633_0000 + number), 9),
                b"",
            ));
        }
    }
    assert_eq!(world.gateway.flows.len(), MAX_FLOWS);
    // With the table full of others' flows, one that has few still gets more.
    for number in 0..100_u32 {
        let to = (Ipv4Addr::from_bits(0xc633_8000 + number), 80);
        assert!(
            world
                .inside(&tcp(OTHER_GUEST, (OTHER_GUEST.address, 4000), to, 2, b""))
                .is_some()
        );
    }
    assert_eq!(world.gateway.flows.len(), MAX_FLOWS);
    let flows = world.gateway.flows.iter();
    let own = flows.filter(|flow| flow.guest.0 == OTHER_GUEST.address);
    assert_eq!(own.count(), 101);
}

#[test]
fn connections_that_are_open_are_not_ended_for_new_ones() {
    let mut world = World::new();
    for number in 0..MAX_GUEST_FLOWS as u32 {
        let far = Ipv4Addr::from_bits(0xc633_0000 + number);
        world
            .inside(&tcp(GUEST, (GUEST.address, 4000), (far, 80), 2, b""))
            .unwrap();
        world
            .outside(&tcp(ROUTER, (far, 80), (ROOT, 4000), 0x12, b""))
            .unwrap();
        world
            .inside(&tcp(GUEST, (GUEST.address, 4000), (far, 80), 0x10, b""))
            .unwrap();
    }
    assert!(
        world
            .inside(&tcp(GUEST, (GUEST.address, 4000), (FAR, 80), 2, b""))
            .is_none()
    );
    assert_eq!(world.dropped(Dropped::TableFull), 1);
    // A guest that only says that it was answered does not keep its flows so.
    let states = world
        .gateway
        .flows
        .iter()
        .filter(|flow| flow.state == State::Established);
    assert_eq!(states.count(), MAX_GUEST_FLOWS);
}

#[test]
fn flows_end_when_they_are_idle() {
    let mut world = World::new();
    world.inside(&udp(GUEST, 5000, (FAR, 123), b"")).unwrap();
    world
        .inside(&tcp(GUEST, (GUEST.address, 4000), (FAR, 80), 2, b""))
        .unwrap();
    world
        .outside(&tcp(ROUTER, (FAR, 80), (ROOT, 4000), 0x12, b""))
        .unwrap();
    world
        .inside(&tcp(GUEST, (GUEST.address, 4000), (FAR, 80), 0x10, b""))
        .unwrap();
    world.now += 61 * SECOND;
    assert!(
        world
            .outside(&udp(host(0x22, FAR), 123, (ROOT, 5000), b""))
            .is_none()
    );
    assert!(
        world
            .outside(&tcp(ROUTER, (FAR, 80), (ROOT, 4000), 0x10, b""))
            .is_some()
    );
    // Both ends say goodbye.
    world
        .inside(&tcp(GUEST, (GUEST.address, 4000), (FAR, 80), 0x11, b""))
        .unwrap();
    world
        .outside(&tcp(ROUTER, (FAR, 80), (ROOT, 4000), 0x11, b""))
        .unwrap();
    world
        .inside(&tcp(GUEST, (GUEST.address, 4000), (FAR, 80), 0x10, b""))
        .unwrap();
    world.now += 21 * SECOND;
    world.gateway.flows.expire(world.now);
    assert!(world.gateway.flows.is_empty());
    // The middle of a connection that is not known begins none.
    assert!(
        world
            .inside(&tcp(GUEST, (GUEST.address, 4000), (FAR, 80), 0x10, b""))
            .is_none()
    );
    assert_eq!(world.dropped(Dropped::NoFlow), 1);
}

#[test]
fn without_an_uplink_a_guest_is_told() {
    let mut world = World::new();
    world.inside(&udp(GUEST, 5000, (FAR, 123), b"")).unwrap();
    world.gateway.set_outside(None, world.now, &mut Vec::new());
    assert!(world.gateway.flows.is_empty());
    assert!(world.inside(&udp(GUEST, 5000, (FAR, 123), b"")).is_none());
    assert_eq!(world.made()[34..36], [3, 0]);
}

/// A DHCP message of the card `mac`.
fn dhcp(mac: Mac, message_type: DhcpMessageType, change: impl FnOnce(&mut DhcpRepr<'_>)) -> Vec<u8> {
    let mut repr = DhcpRepr {
        message_type,
        transaction_id: 0x1234,
        secs: 0,
        client_hardware_address: EthernetAddress(mac.0),
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: false,
        requested_ip: None,
        client_identifier: None,
        server_identifier: None,
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    change(&mut repr);
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..])).unwrap();
    let from = Host {
        mac,
        address: repr.client_ip,
    };
    let everybody = Host {
        mac: Mac::BROADCAST,
        address: Ipv4Addr::BROADCAST,
    };
    build::udp((from, 68), (everybody, 67), &bytes)
}

/// The type of an answer, the address in it, the MTU that it tells.
fn answer(world: &mut World) -> (DhcpMessageType, Ipv4Addr, Vec<u8>) {
    let bytes = world.made();
    let message = DhcpPacket::new_checked(&bytes[42..]).unwrap();
    let repr = DhcpRepr::parse(&message).unwrap();
    assert_eq!(
        (repr.transaction_id, repr.server_identifier),
        (0x1234, Some(GATEWAY))
    );
    let mtu = message.options().find(|option| option.kind == 26);
    (
        repr.message_type,
        repr.your_ip,
        mtu.map_or(Vec::new(), |option| option.data.to_vec()),
    )
}

/// Has `mac` get a lease.
fn lease(world: &mut World, mac: Mac) -> Ipv4Addr {
    world.inside(&dhcp(mac, DhcpMessageType::Discover, |_| {}));
    let (kind, offered, mtu) = answer(world);
    assert_eq!(
        (kind, &mtu[..]),
        (DhcpMessageType::Offer, &1500_u16.to_be_bytes()[..])
    );
    world.inside(&dhcp(mac, DhcpMessageType::Request, |request| {
        request.requested_ip = Some(offered);
        request.server_identifier = Some(GATEWAY);
    }));
    let (kind, address, _) = answer(world);
    assert_eq!((kind, address), (DhcpMessageType::Ack, offered));
    address
}

#[test]
fn a_card_gets_a_lease_keeps_it_and_gives_it_back() {
    let mut world = World::new();
    let address = lease(&mut world, GUEST.mac);
    assert_ne!(lease(&mut world, OTHER_GUEST.mac), address);
    assert_eq!(lease(&mut world, GUEST.mac), address);
    assert_eq!(world.gateway.dhcp.leases(world.now).count(), 2);
    // Renewed by the address itself.
    world.inside(&dhcp(GUEST.mac, DhcpMessageType::Request, |request| {
        request.client_ip = address
    }));
    assert_eq!(answer(&mut world).0, DhcpMessageType::Ack);
    world.inside(&dhcp(GUEST.mac, DhcpMessageType::Release, |request| {
        request.client_ip = address
    }));
    assert!(world.made.is_empty());
    assert_eq!(world.gateway.dhcp.leases(world.now).count(), 1);
    world.now += 24 * 3600 * SECOND;
    assert_eq!(world.gateway.dhcp.leases(world.now).count(), 0);
}

#[test]
fn an_address_of_another_is_refused_and_one_in_use_is_left_alone() {
    let mut world = World::new();
    let taken = lease(&mut world, OTHER_GUEST.mac);
    for asked in [taken, GATEWAY, FAR, Ipv4Addr::new(192, 168, 86, 255)] {
        world.inside(&dhcp(GUEST.mac, DhcpMessageType::Request, |request| {
            request.requested_ip = Some(asked)
        }));
        assert_eq!(answer(&mut world).0, DhcpMessageType::Nak);
    }
    let address = lease(&mut world, GUEST.mac);
    world.inside(&dhcp(GUEST.mac, DhcpMessageType::Decline, |request| {
        request.requested_ip = Some(address)
    }));
    assert_ne!(lease(&mut world, GUEST.mac), address);
}

#[test]
fn one_card_has_one_lease_whatever_it_says() {
    let mut world = World::new();
    for number in 0..500_u16 {
        let [high, low] = number.to_be_bytes();
        let mut bytes = dhcp(Mac([2, 9, 9, 9, high, low]), DhcpMessageType::Discover, |_| {});
        bytes[6..12].copy_from_slice(&GUEST.mac.0);
        world.inside(&bytes);
    }
    assert!(world.made.is_empty());
    // With cards of their own they take what there is, and no more.
    let mut offers = 0;
    for number in 0..500_u16 {
        let [high, low] = number.to_be_bytes();
        world.inside(&dhcp(
            Mac([2, 9, 9, 9, high, low]),
            DhcpMessageType::Discover,
            |_| {},
        ));
        offers += world.made.drain(..).count();
    }
    assert_eq!(offers, 241);
    world.now += 61 * SECOND;
    lease(&mut world, GUEST.mac);
}

#[test]
fn a_machine_gets_the_address_that_is_fixed_for_it() {
    let mut world = World::new();
    let fixed = Ipv4Addr::new(192, 168, 86, 5);
    let before = lease(&mut world, GUEST.mac);
    world.gateway.fix("web", fixed);
    assert_eq!(
        world.gateway.resolve(&Target::Machine("web".into()), world.now),
        Some(fixed)
    );
    world.inside(&dhcp(GUEST.mac, DhcpMessageType::Request, |request| {
        request.client_ip = before
    }));
    assert_eq!(answer(&mut world).0, DhcpMessageType::Nak);
    assert_eq!(lease(&mut world, GUEST.mac), fixed);
    world.inside(&dhcp(OTHER_GUEST.mac, DhcpMessageType::Request, |request| {
        request.requested_ip = Some(fixed)
    }));
    assert_eq!(answer(&mut world).0, DhcpMessageType::Nak);
}

proptest! {
    #[test]
    fn whatever_comes_is_harmless(input in prop::collection::vec(any::<u8>(), 0..4000)) {
        gateway_frames(&input);
    }

    #[test]
    fn packets_with_damaged_bytes_are_harmless(
        which in 0..6_usize, how: u8, damage in prop::collection::vec((0..200_usize, any::<u8>()), 0..8), cut: Option<u8>
    ) {
        let mut bytes = match which {
            0 => udp(GUEST, 5000, (FAR, 123), &[1; 100]),
            1 => tcp(GUEST, (GUEST.address, 4000), (GATEWAY, 53), 2, b""),
            2 => echo(GUEST, GATEWAY, false, 1),
            3 => dhcp(GUEST.mac, DhcpMessageType::Discover, |_| {}),
            4 => tcp(ROUTER, (FAR, 80), (ROOT, 8080), 2, b""),
            _ => build::icmp_error(ROUTER, host(0x56, ROOT), (3, 1), 0, &udp(GUEST, 5000, (FAR, 123), b"")[14..]),
        };
        for (at, value) in damage {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(cut.map_or(usize::MAX, usize::from));
        let mut input = vec![how, bytes.len() as u8, (bytes.len() >> 8) as u8];
        input.extend(&bytes);
        let again = input.clone();
        input.extend(again);
        gateway_frames(&input);
    }

    #[test]
    fn checksums_hold_after_every_translation(data in prop::collection::vec(any::<u8>(), 0..1400), port in 1..u16::MAX, guest in 2..250_u8) {
        let mut world = World::new();
        let guest = host(guest, Ipv4Addr::new(192, 168, 86, guest));
        for bytes in [udp(guest, port, (FAR, 99), &data), tcp(guest, (guest.address, port), (FAR, 99), 2, &data)] {
            let out = ends(&world.inside(&bytes).unwrap());
            prop_assert_eq!((out.0, out.2, out.3), (ROOT, FAR, 99));
        }
    }
}
