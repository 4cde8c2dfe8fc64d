//! One entry for fuzzers: the gateway against whatever comes from both sides.

use super::Gateway;
use super::build::Host;
use super::dhcp::DhcpSettings;
use super::forwards::{PublicPort, Target};
use super::packet::Protocol;
use super::route::Outside;
use super::verdict::Verdict;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
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

/// Runs frames of `input` through a gateway: each is a byte that says where it comes from and what is said beside it, two
/// bytes of length, and the frame.
pub fn gateway_frames(input: &[u8]) {
    let mut gateway = gateway();
    let mut rest = input;
    let mut now = 0;
    while let Some((&[how, low, high], behind)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes([low, high])).min(behind.len());
        let (bytes, behind) = behind.split_at(length);
        rest = behind;
        now += u64::from(how >> 5) << 24;
        let mut frame = Frame::of_bytes(bytes);
        if how & 4 != 0 {
            frame.checksum = SendChecksum(SendChecksum::TCP | SendChecksum::IP_HEADER);
        }
        if how & 8 != 0 {
            frame.large = Some(LargeSend::new(1460, 34, false));
        }
        let mut made = Vec::new();
        let verdict = match how & 3 {
            0 | 1 => gateway.from_inside(&frame, now, &mut made),
            2 => gateway.from_outside(&frame, now, &mut made),
            _ => gateway.from_stack(&frame, now, &mut made),
        };
        if let Verdict::Forward(_, packet) | Verdict::ForwardToStack(packet) = verdict {
            assert_eq!(packet.head().len(), frame.head.len());
        }
        assert!(
            made.iter()
                .all(|made| made.bytes.len() >= 42 && made.bytes.len() <= 9100)
        );
    }
}
