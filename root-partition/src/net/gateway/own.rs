//! What is for the gateway itself: ARP, echo requests, DHCP, questions for names; and what it tells guests of their packets.

use super::build::{self, Host};
use super::packet::{Ends, Packet, Protocol};
use super::route::{Gateway, release};
use super::verdict::{Dropped, Made, Network, Verdict};
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, Icmpv4Packet, Icmpv4Repr, IpProtocol};
use vmbus::protocol::network::{ETHERNET_HEADER, Mac};
use vsp::network::{Frame, segment};
use vsp::switch::TICKS_A_SECOND;

pub(super) const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const NAME_SERVER: u16 = 53;
/// Largest frame that is looked at as a whole: an echo request of a guest, a DHCP message.
const MAX_WHOLE: usize = 9018;
/// ICMP errors a second at most.
const ERRORS_A_SECOND: u32 = 50;

impl Gateway {
    pub(super) fn arp_from_inside(
        &mut self,
        frame: &Frame<'_>,
        source: Mac,
        now: u64,
        out: &mut Vec<Made>,
    ) -> Verdict {
        let Some((operation, sender, target)) = read_arp(frame, source) else {
            return self.drop(Dropped::Malformed);
        };
        if sender != Ipv4Addr::UNSPECIFIED && !self.is_theirs(sender, source, now) {
            return self.drop(Dropped::Spoofed);
        }
        let waiting = self.guests.learn(sender, source, self.is_inside(sender), now);
        release(waiting, Network::Inside, source, out);
        if operation == ArpOperation::Request && target == self.inside.address {
            let to = Host {
                mac: source,
                address: sender,
            };
            out.push(Made {
                to: Network::Inside,
                bytes: build::arp(ArpOperation::Reply, self.inside, to),
            });
        }
        Verdict::Done
    }

    /// A packet for the gateway itself.
    pub(super) fn for_gateway(
        &mut self,
        frame: &Frame<'_>,
        packet: Packet,
        ends: Option<Ends>,
        guest: Host,
        now: u64,
        out: &mut Vec<Made>,
    ) -> Verdict {
        if packet.part.is_some() {
            return self.drop(Dropped::Fragment);
        }
        match ends {
            Some(ends) if ends.protocol == Protocol::Echo => {
                self.answer_echo(frame, &packet, guest, out);
                Verdict::Done
            }
            // The relay: questions go on to the root's own name server.
            Some(ends) if ends.destination.1 == NAME_SERVER => {
                let server = self.outside.and_then(|outside| outside.name_server);
                match server {
                    Some(server) => {
                        self.send_out(frame, packet, &ends, (server, NAME_SERVER), guest, now, out)
                    }
                    None => {
                        self.error(guest, (3, 3), 0, &packet, now, out);
                        self.drop(Dropped::NoUplink)
                    }
                }
            }
            _ => {
                // Nothing listens here: who asks is told at once.
                if packet.next_header() != IpProtocol::Icmp {
                    self.error(guest, (3, 3), 0, &packet, now, out);
                }
                Verdict::Done
            }
        }
    }

    fn answer_echo(&mut self, frame: &Frame<'_>, packet: &Packet, guest: Host, out: &mut Vec<Made>) {
        let Some(whole) = whole(frame) else { return };
        let end = (ETHERNET_HEADER + packet.ip_length).min(whole.len());
        let Some(message) = whole.get(packet.transport()..end) else {
            return;
        };
        let Ok(message) = Icmpv4Packet::new_checked(message) else {
            return;
        };
        let parsed = Icmpv4Repr::parse(&message, &smoltcp::phy::ChecksumCapabilities::default());
        if let Ok(Icmpv4Repr::EchoRequest { ident, seq_no, data }) = parsed {
            let reply = Icmpv4Repr::EchoReply { ident, seq_no, data };
            out.push(Made {
                to: Network::Inside,
                bytes: build::icmp(self.inside, guest, &reply),
            });
        }
    }

    pub(super) fn dhcp_message(
        &mut self,
        frame: &Frame<'_>,
        packet: &Packet,
        mac: Mac,
        now: u64,
        out: &mut Vec<Made>,
    ) -> Verdict {
        let whole = whole(frame);
        let end = ETHERNET_HEADER + packet.ip_length;
        let message = whole
            .as_ref()
            .and_then(|bytes| bytes.get(packet.transport() + 8..end));
        let Some(message) = message else {
            return self.drop(Dropped::Malformed);
        };
        if let Some(answer) = self.dhcp.receive(mac, message, now) {
            let to = Host {
                mac: if answer.to.is_broadcast() {
                    Mac::BROADCAST
                } else {
                    mac
                },
                address: answer.to,
            };
            out.push(Made {
                to: Network::Inside,
                bytes: build::udp((self.inside, DHCP_SERVER), (to, DHCP_CLIENT), &answer.message),
            });
        }
        Verdict::Done
    }

    /// Tells a guest what became of its packet, unless it was told much already.
    pub(super) fn error(
        &mut self,
        guest: Host,
        kind: (u8, u8),
        word: u16,
        packet: &Packet,
        now: u64,
        out: &mut Vec<Made>,
    ) {
        let second = now / TICKS_A_SECOND;
        if self.errors.0 != second {
            self.errors = (second, 0);
        }
        self.errors.1 += 1;
        if self.errors.1 <= ERRORS_A_SECOND {
            let quoted = &packet.head()[ETHERNET_HEADER..];
            let quoted = &quoted[..quoted.len().min(packet.ip_length)];
            out.push(Made {
                to: Network::Inside,
                bytes: build::icmp_error(self.inside, guest, kind, word, quoted),
            });
        }
    }
}

/// An ARP message that its sender sent itself: what it is, who sent it, of whom it is.
pub(super) fn read_arp(frame: &Frame<'_>, source: Mac) -> Option<(ArpOperation, Ipv4Addr, Ipv4Addr)> {
    let message = ArpPacket::new_checked(frame.head.get(ETHERNET_HEADER..)?).ok()?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&message).ok()?
    else {
        return None;
    };
    (source_hardware_addr.0 == source.0).then_some((operation, source_protocol_addr, target_protocol_addr))
}

/// All bytes of a frame, copied, with what its sender left out filled in.
fn whole(frame: &Frame<'_>) -> Option<Vec<u8>> {
    let mut whole = None;
    if frame.large.is_none() && frame.length <= MAX_WHOLE {
        segment::complete(frame, None, false, |bytes| whole = Some(bytes.to_vec())).ok()?;
    }
    whole
}
