//! Frames that the gateway makes itself.

use alloc::vec;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
    Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};
use vmbus::protocol::network::{ETHERNET_HEADER, Mac};

/// Hops that packets of the gateway may pass.
const HOPS: u8 = 64;

/// An end of a frame that is made: hardware and IP address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Host {
    /// Hardware address.
    pub mac: Mac,
    /// IP address.
    pub address: Ipv4Addr,
}

fn ethernet(source: Mac, destination: Mac, ethertype: EthernetProtocol, payload: usize) -> Vec<u8> {
    let mut bytes = vec![0; ETHERNET_HEADER + payload];
    let header = EthernetRepr {
        src_addr: EthernetAddress(source.0),
        dst_addr: EthernetAddress(destination.0),
        ethertype,
    };
    header.emit(&mut EthernetFrame::new_unchecked(&mut bytes[..]));
    bytes
}

/// An ARP message from `from` to `to`.
pub fn arp(operation: ArpOperation, from: Host, to: Host) -> Vec<u8> {
    let asks = operation == ArpOperation::Request;
    let message = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(from.mac.0),
        source_protocol_addr: from.address,
        target_hardware_addr: EthernetAddress(if asks { [0; 6] } else { to.mac.0 }),
        target_protocol_addr: to.address,
    };
    let destination = if asks { Mac::BROADCAST } else { to.mac };
    let mut bytes = ethernet(from.mac, destination, EthernetProtocol::Arp, message.buffer_len());
    message.emit(&mut ArpPacket::new_unchecked(&mut bytes[ETHERNET_HEADER..]));
    bytes
}

/// An IPv4 packet of `length` bytes behind its header, which `fill` writes.
fn ipv4(
    from: Host,
    to: Host,
    next_header: IpProtocol,
    length: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let header = Ipv4Repr {
        src_addr: from.address,
        dst_addr: to.address,
        next_header,
        payload_len: length,
        hop_limit: HOPS,
    };
    let start = ETHERNET_HEADER + header.buffer_len();
    let mut bytes = ethernet(
        from.mac,
        to.mac,
        EthernetProtocol::Ipv4,
        header.buffer_len() + length,
    );
    header.emit(
        &mut Ipv4Packet::new_unchecked(&mut bytes[ETHERNET_HEADER..]),
        &ChecksumCapabilities::default(),
    );
    fill(&mut bytes[start..]);
    bytes
}

/// A UDP datagram.
pub fn udp(from: (Host, u16), to: (Host, u16), payload: &[u8]) -> Vec<u8> {
    let header = UdpRepr {
        src_port: from.1,
        dst_port: to.1,
    };
    let length = header.header_len() + payload.len();
    ipv4(from.0, to.0, IpProtocol::Udp, length, |bytes| {
        header.emit(
            &mut UdpPacket::new_unchecked(bytes),
            &from.0.address.into(),
            &to.0.address.into(),
            payload.len(),
            |data| data.copy_from_slice(payload),
            &ChecksumCapabilities::default(),
        );
    })
}

/// An ICMP message.
pub fn icmp(from: Host, to: Host, message: &Icmpv4Repr<'_>) -> Vec<u8> {
    ipv4(from, to, IpProtocol::Icmp, message.buffer_len(), |bytes| {
        message.emit(
            &mut Icmpv4Packet::new_unchecked(bytes),
            &ChecksumCapabilities::default(),
        );
    })
}

/// An ICMP error about the packet that begins with `packet`: type, code, and what stands in the second half of its second
/// word (the MTU, for a packet that is too large).
pub fn icmp_error(from: Host, to: Host, (kind, code): (u8, u8), word: u16, packet: &[u8]) -> Vec<u8> {
    // The IP header and 8 bytes are what every receiver needs; more of it fits.
    let quoted = &packet[..packet.len().min(96)];
    ipv4(from, to, IpProtocol::Icmp, 8 + quoted.len(), |bytes| {
        bytes[..8].copy_from_slice(&[kind, code, 0, 0, 0, 0, (word >> 8) as u8, word as u8]);
        bytes[8..].copy_from_slice(quoted);
        Icmpv4Packet::new_unchecked(bytes).fill_checksum();
    })
}
