//! The gateway against guests and hosts made of bytes.

mod anything;
mod dhcp;
mod errors;
mod flows;
mod neighbours;
mod parts;
mod translation;

use self::dhcp::lease;
use super::build::{self, Host};
use super::flows::{MAX_FLOWS, MAX_GUEST_FLOWS, State};
use super::forwards::{PublicPort, Target};
use super::fuzz::{gateway, gateway_frames};
use super::packet::Protocol;
use super::route::Gateway;
use super::verdict::{Dropped, Made, Network, Verdict};
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

/// A TCP packet without data, with these options: whole words.
fn with_options(mut bytes: Vec<u8>, options: &[u8]) -> Vec<u8> {
    bytes.truncate(54);
    bytes.extend_from_slice(options);
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes[14..]);
    packet.set_total_len(40 + options.len() as u16);
    packet.fill_checksum();
    let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
    let mut segment = TcpPacket::new_unchecked(packet.payload_mut());
    segment.set_header_len(20 + options.len() as u8);
    segment.fill_checksum(&from, &to);
    bytes
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
