//! One entry for fuzzers: the gateway against whatever comes from both sides.

use super::Gateway;
use super::build::{self, Host};
use super::dhcp::DhcpSettings;
use super::flows::MAX_FLOWS;
use super::forwards::{PublicPort, Target};
use super::packet::Protocol;
use super::route::Outside;
use super::verdict::{Network, Verdict};
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use smoltcp::wire::{ArpOperation, Icmpv4Packet, Icmpv4Repr, Ipv4Packet};
use vmbus::protocol::network::Mac;
use vmbus::protocol::network::packet_info::{LargeSend, SendChecksum};
use vsp::network::Frame;

/// A gateway with an uplink, a forward and a machine.
pub fn gateway() -> Gateway {
    let mut gateway = Gateway::new(
        Mac([2, 0, 0, 0, 0, 0xfe]),
        DhcpSettings {
            gateway: Ipv4Addr::new(192, 168, 86, 1),
            prefix: 24,
            pool: Ipv4Addr::new(192, 168, 86, 10)..=Ipv4Addr::new(192, 168, 86, 250),
            mtu: 1500,
        },
        7,
    );
    let mut made = Vec::new();
    gateway.set_outside(
        Some(Outside {
            own: Host {
                mac: Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]),
                address: Ipv4Addr::new(10, 0, 2, 15),
            },
            prefix: 24,
            router: Some(Ipv4Addr::new(10, 0, 2, 2)),
            name_server: Some(Ipv4Addr::new(10, 0, 2, 3)),
            mtu: 1500,
        }),
        0,
        &mut made,
    );
    gateway.introduce(Mac([2, 0, 0, 0, 0, 1]), "web");
    let from = PublicPort {
        protocol: Protocol::Tcp,
        port: 8080,
    };
    let added = gateway.forwards.add(from, Target::Machine("web".into()), 80);
    debug_assert!(added.is_ok());
    gateway
}

/// Hosts of both networks, as the gateway above knows them.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 86, 1);
const ROOT: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const ROUTER: Host = Host {
    mac: Mac([2, 0, 0, 0, 0, 0x22]),
    address: Ipv4Addr::new(10, 0, 2, 2),
};
const FAR: Host = Host {
    mac: ROUTER.mac,
    address: Ipv4Addr::new(198, 51, 100, 7),
};
/// A port of FAR's, and one of guests.
const PORTS: [u16; 2] = [123, 5000];

/// Runs frames through a gateway, as `data` says: such as guests, routers and hosts send, with some bytes changed, and others. Returns
/// how many packets went on or were answered.
#[allow(clippy::missing_panics_doc)] // that is what it is for
pub fn gateway_frames(data: &[u8]) -> usize {
    let mut gateway = gateway();
    let mut input = data.iter().copied();
    let (mut now, mut reached) = (0, 0);
    while let Some(how) = input.next() {
        let mut next = || input.next().unwrap_or(0);
        let (is_outside, mut bytes) = frame(&mut next);
        for _ in 0..next() % 4 {
            let at = usize::from(next());
            if let Some(byte) = bytes.get_mut(at) {
                *byte = next();
            }
        }
        if how & 0x10 == 0 {
            fill_checksums(&mut bytes);
        }
        now += u64::from(how >> 5) << 24;
        let mut frame = Frame::of_bytes(&bytes);
        if how & 0xc == 4 {
            frame.checksum = SendChecksum(SendChecksum::TCP | SendChecksum::IP_HEADER);
        }
        if how & 0xc == 8 {
            frame.large = Some(LargeSend::new(1460, 34, false));
        }
        let mut made = Vec::new();
        let verdict = match (how & 3, is_outside) {
            (3, _) => gateway.from_stack(&frame, now, &mut made),
            (2, true) | (0 | 1, false) => gateway.from_inside(&frame, now, &mut made),
            _ => gateway.from_outside(&frame, now, &mut made),
        };
        reached += made.len();
        if let Verdict::Forward(to, packet) = &verdict {
            reached += 1;
            match to {
                Network::Outside => assert_eq!(packet.source(), ROOT, "a guest's address goes outside"),
                Network::Inside => assert!(gateway.is_inside(packet.destination())),
            }
        }
        if let Verdict::Forward(_, packet) | Verdict::ForwardToStack(packet) = &verdict {
            assert_eq!(packet.head().len(), frame.head.len());
            assert!(frame.large.is_some() || frame.checksum.0 != 0 || header_holds(packet.head()));
        }
        for made in &made {
            assert!((42..=9100).contains(&made.bytes.len()));
            assert!(header_holds(&made.bytes), "{:x?}", made.bytes);
        }
    }
    let mut leased = Vec::new();
    for (_, lease) in gateway.dhcp.leases(now) {
        assert!(gateway.dhcp.settings().pool.contains(&lease.address));
        assert!(!leased.contains(&lease.address), "two have {}", lease.address);
        leased.push(lease.address);
    }
    assert!(gateway.flows.len() <= MAX_FLOWS);
    reached
}

/// A frame, and whether it is one of the network outside.
fn frame(next: &mut impl FnMut() -> u8) -> (bool, Vec<u8>) {
    let (what, which) = (next(), next() % 3);
    let guest = Host {
        mac: Mac([2, 0, 0, 0, 0, 1 + which]),
        address: Ipv4Addr::new(192, 168, 86, 20 + which),
    };
    let to = |address| Host {
        mac: Mac([2, 0, 0, 0, 0, 0xfe]),
        address,
    };
    let data: Vec<u8> = (0..next() % 40).map(|_| next()).collect();
    let [port, own] = PORTS;
    match what % 13 {
        0 => (false, build::arp(ArpOperation::Request, guest, to(GATEWAY))),
        1 => (true, build::arp(ArpOperation::Reply, ROUTER, to(ROOT))),
        2 | 3 => (false, dhcp(guest, next)),
        4 => (false, build::udp((guest, own), (to(FAR.address), port), &data)),
        5 => (false, build::udp((guest, own), (to(GATEWAY), 53), &data)),
        6 => (false, tcp(guest, to(FAR.address), [own, port], next(), &data)),
        7 => (true, tcp(FAR, to(ROOT), [port, 8080], next(), &data)),
        8 => (true, build::udp((FAR, port), (to(ROOT), own), &data)),
        9 => {
            let (ident, seq_no) = (own, next().into());
            let message = Icmpv4Repr::EchoRequest {
                ident,
                seq_no,
                data: &data,
            };
            let address = [GATEWAY, FAR.address, ROOT][usize::from(next() % 3)];
            (false, build::icmp(guest, to(address), &message))
        }
        10 => {
            let sent = build::udp((to(ROOT), own), (FAR, port), &data);
            (
                true,
                build::icmp_error(ROUTER, to(ROOT), (3, next()), 0, &sent[14..]),
            )
        }
        11 => {
            // A part of a packet.
            let is_outside = next() & 1 != 0;
            let mut bytes = match is_outside {
                true => build::udp((FAR, port), (to(ROOT), own), &data),
                false => build::udp((guest, own), (to(FAR.address), port), &data),
            };
            (bytes[19], bytes[20], bytes[21]) = (next() % 4, next() & 0x20, next() % 4);
            (is_outside, bytes)
        }
        _ => (next() & 1 != 0, data),
    }
}

/// A DHCP message of a guest's.
fn dhcp(guest: Host, next: &mut impl FnMut() -> u8) -> Vec<u8> {
    const COOKIE: [u8; 4] = [99, 130, 83, 99];
    let mut message = alloc::vec![0; 236];
    (message[0], message[1], message[2]) = (1, 1, 6);
    message[28..34].copy_from_slice(&guest.mac.0);
    message.extend(COOKIE);
    message.extend([53, 1, next() % 9]);
    let address = [192, 168, 86, next()];
    match next() % 4 {
        0 => message[12..16].copy_from_slice(&address),
        1 => {}
        _ => message.extend([50, 4, address[0], address[1], address[2], address[3]]),
    }
    for _ in 0..next() % 3 {
        let (kind, length) = (next(), next() % 8);
        message.extend([kind, length]);
        message.extend((0..length).map(|_| next()));
    }
    message.push(255);
    let everybody = Host {
        mac: Mac::BROADCAST,
        address: Ipv4Addr::BROADCAST,
    };
    let from = Host {
        address: Ipv4Addr::UNSPECIFIED,
        ..guest
    };
    build::udp((from, 68), (everybody, 67), &message)
}

/// A TCP packet, with `options` that fill words.
fn tcp(from: Host, to: Host, [source, destination]: [u16; 2], flags: u8, options: &[u8]) -> Vec<u8> {
    let words = options.len() / 4;
    let header = 20 + 4 * words;
    let mut bytes = build::udp((from, source), (to, destination), &alloc::vec![0; header - 8]);
    // TCP in the place of UDP.
    bytes[23] = 6;
    bytes[38..42].fill(0);
    (bytes[46], bytes[47]) = ((header as u8 / 4) << 4, flags);
    bytes[54..].copy_from_slice(&options[..4 * words]);
    bytes
}

/// Makes the checksums of an IPv4 packet right that the gateway looks at: of the header, and of ICMP.
fn fill_checksums(bytes: &mut [u8]) {
    let Some([first, ..]) = bytes.get(14..34).filter(|_| bytes[12..14] == [8, 0]) else {
        return;
    };
    let end = 14 + usize::from(first & 0xf) * 4;
    if (34..=bytes.len()).contains(&end) {
        Ipv4Packet::new_unchecked(&mut bytes[14..]).fill_checksum();
        if bytes[23] == 1 && bytes.len() >= end + 8 {
            Icmpv4Packet::new_unchecked(&mut bytes[end..]).fill_checksum();
        }
    }
}

/// Whether the header of an IPv4 packet has the right checksum; other frames have none.
fn header_holds(bytes: &[u8]) -> bool {
    bytes.get(12..14) != Some(&[8, 0]) || Ipv4Packet::new_unchecked(&bytes[14..]).verify_checksum()
}
