//! Messages that only servers send: a child that sends them would take over its neighbours.

use super::frame::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use bitflags::bitflags;

bitflags! {
    /// What a port may not send.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Guards: u8 {
        /// Frames with another sender's address.
        const SPOOFED_ADDRESS = 1;
        /// Answers of a DHCP server.
        const DHCP_SERVER = 2;
        /// Router advertisements and redirects of IPv6.
        const ROUTER = 4;
    }
}

const UDP: u8 = 17;
const ICMP6: u8 = 58;
const DHCP_SERVER_PORT: u16 = 67;
const DHCP6_SERVER_PORT: u16 = 547;
const ROUTER_ADVERTISEMENT: u8 = 134;
const REDIRECT: u8 = 137;
/// Extension headers that are followed; a packet with more of them cannot be judged, and does not pass a guard.
const MAX_EXTENSIONS: usize = 4;

/// Whether `guards` hold back a frame with a payload of this kind that begins at `payload` of `bytes`.
#[inline]
pub fn is_guarded(guards: Guards, ethertype: u16, bytes: &[u8], payload: usize) -> bool {
    let payload = || bytes.get(payload..).unwrap_or(&[]);
    match ethertype {
        ETHERTYPE_IPV4 => guards.contains(Guards::DHCP_SERVER) && from_dhcp_server(payload()),
        ETHERTYPE_IPV6 => {
            guards.intersects(Guards::DHCP_SERVER | Guards::ROUTER) && guarded_ipv6(guards, payload())
        }
        _ => false,
    }
}

fn from_dhcp_server(packet: &[u8]) -> bool {
    let &[first, .., flags, offset, _, protocol] = packet.first_chunk::<10>().unwrap_or(&[0; 10]);
    let header = usize::from(first & 0xf) * 4;
    if protocol != UDP {
        return false;
    }
    // The rest of a fragmented datagram has no port; without its first fragment it is nothing.
    if u16::from_be_bytes([flags & 0x1f, offset]) != 0 {
        return false;
    }
    match packet.get(header..).and_then(|udp| udp.first_chunk::<2>()) {
        Some(port) => u16::from_be_bytes(*port) == DHCP_SERVER_PORT,
        // A first fragment so short that its port is in the next hides it.
        None => true,
    }
}

fn guarded_ipv6(guards: Guards, packet: &[u8]) -> bool {
    let Some((header, mut rest)) = packet.split_first_chunk::<40>() else {
        return true;
    };
    let mut next = header[6];
    for _ in 0..=MAX_EXTENSIONS {
        match next {
            UDP => {
                let port = rest.first_chunk().map(|port| u16::from_be_bytes(*port));
                return guards.contains(Guards::DHCP_SERVER)
                    && port.is_none_or(|port| port == DHCP6_SERVER_PORT);
            }
            ICMP6 => {
                let kind = rest.first().copied();
                let guarded = kind.is_none_or(|kind| matches!(kind, ROUTER_ADVERTISEMENT | REDIRECT));
                return guards.contains(Guards::ROUTER) && guarded;
            }
            // Hop-by-hop, routing and destination options tell their length in units of 8 bytes.
            0 | 43 | 60 => {
                let Some(&[following, length]) = rest.first_chunk() else {
                    return true;
                };
                next = following;
                match rest.get((usize::from(length) + 1) * 8..) {
                    Some(behind) => rest = behind,
                    None => return true,
                }
            }
            // A fragment: only the first can be judged.
            44 => {
                let Some(&[following, _, high, low]) = rest.first_chunk() else {
                    return true;
                };
                if u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
                    return false;
                }
                next = following;
                rest = rest.get(8..).unwrap_or(&[]);
            }
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::frame::FrameHeader;
    use super::*;
    use alloc::vec::Vec;

    fn judged(ethertype: u16, payload: &[u8]) -> bool {
        let mut bytes: Vec<u8> = [[2; 6], [4; 6]].concat();
        bytes.extend(ethertype.to_be_bytes());
        bytes.extend(payload);
        let header = FrameHeader::read(&bytes, None).unwrap();
        is_guarded(Guards::all(), header.ethertype, &bytes, header.payload)
    }

    fn ipv4(protocol: u8, fragment: u16, options: usize, transport: &[u8]) -> Vec<u8> {
        let mut packet = alloc::vec![0; 20 + options];
        packet[0] = 0x45 + (options / 4) as u8;
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet[9] = protocol;
        packet.extend(transport);
        packet
    }

    fn ipv6(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = alloc::vec![0; 40];
        packet[6] = next;
        packet.extend(rest);
        packet
    }

    #[test]
    fn answers_of_a_dhcp_server_are_held_back_and_questions_are_not() {
        assert!(judged(ETHERTYPE_IPV4, &ipv4(UDP, 0, 0, &[0, 67, 0, 68])));
        assert!(judged(ETHERTYPE_IPV4, &ipv4(UDP, 0, 12, &[0, 67, 0, 68])));
        assert!(judged(ETHERTYPE_IPV4, &ipv4(UDP, 0x2000, 0, &[])));
        assert!(!judged(ETHERTYPE_IPV4, &ipv4(UDP, 0, 0, &[0, 68, 0, 67])));
        assert!(!judged(ETHERTYPE_IPV4, &ipv4(UDP, 5, 0, &[0, 67, 0, 68])));
        assert!(!judged(ETHERTYPE_IPV4, &ipv4(6, 0, 0, &[0, 67, 0, 68])));
        assert!(judged(ETHERTYPE_IPV6, &ipv6(UDP, &[2, 35])));
    }

    #[test]
    fn router_advertisements_are_held_back_wherever_they_hide() {
        assert!(judged(ETHERTYPE_IPV6, &ipv6(ICMP6, &[134])));
        assert!(!judged(ETHERTYPE_IPV6, &ipv6(ICMP6, &[135])));
        let hidden = [&[ICMP6, 0, 0, 0, 0, 0, 0, 0][..], &[134]].concat();
        assert!(judged(ETHERTYPE_IPV6, &ipv6(60, &hidden)));
        assert!(judged(ETHERTYPE_IPV6, &ipv6(44, &hidden)));
        let loops = [0u8; 80];
        assert!(judged(ETHERTYPE_IPV6, &ipv6(0, &loops)));
        assert!(judged(ETHERTYPE_IPV6, &ipv6(0, &[ICMP6, 200])));
        assert!(judged(ETHERTYPE_IPV6, &[0; 39]));
    }
}
