//! The gateway as a state machine: frames in, and what becomes of them out. It owns no lock, no clock and no port.

use super::build::{self, Host};
use super::dhcp::{DhcpServer, DhcpSettings};
use super::flows::{Flow, Flows, NoFlow};
use super::forwards::{Forwards, PublicPort, Target};
use super::neighbours::{Known, MAX_WAITING_BYTES, Neighbours};
use super::own::{DHCP_SERVER, read_arp};
use super::packet::{End, Ends, Packet, Protocol};
use super::parts::{Part, Parts, Passage, Whole};
use super::verdict::{Counters, Dropped, Made, Network, Verdict};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use smoltcp::wire::{ArpOperation, Ipv4Cidr};
use vmbus::protocol::network::Mac;
use vsp::network::{Frame, segment};
use vsp::switch::frame::{ETHERTYPE_ARP, ETHERTYPE_IPV4, FrameHeader};

/// The root's address on the other side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outside {
    /// The root there.
    pub own: Host,
    /// Bits of the network's part.
    pub prefix: u8,
    /// The way to other networks.
    pub router: Option<Ipv4Addr>,
    /// The first name server.
    pub name_server: Option<Ipv4Addr>,
    /// The largest IP packet.
    pub mtu: usize,
}

/// The gateway.
pub struct Gateway {
    pub(super) inside: Host,
    network: Ipv4Cidr,
    pub(super) outside: Option<Outside>,
    /// The DHCP server.
    pub dhcp: DhcpServer,
    /// The port forwards.
    pub forwards: Forwards,
    /// The flows.
    pub flows: Flows,
    /// What was counted.
    pub counters: Counters,
    /// The cards of virtual machines, and the machines' names.
    machines: BTreeMap<Mac, String>,
    /// Addresses that were given to machines by name.
    fixed: BTreeMap<String, Ipv4Addr>,
    pub(super) guests: Neighbours,
    others: Neighbours,
    parts: Parts,
    /// Errors sent in the second that began then.
    pub(super) errors: (u64, u32),
}

impl Gateway {
    /// A gateway that guests see as `mac`, at the address that `settings` name. `seed` makes its ports hard to guess.
    pub fn new(mac: Mac, settings: DhcpSettings, seed: u64) -> Self {
        Self {
            inside: Host {
                mac,
                address: settings.gateway,
            },
            network: Ipv4Cidr::new(settings.gateway, settings.prefix),
            outside: None,
            dhcp: DhcpServer::new(settings),
            forwards: Forwards::default(),
            flows: Flows::new(seed),
            counters: Counters::default(),
            machines: BTreeMap::new(),
            fixed: BTreeMap::new(),
            guests: Neighbours::default(),
            others: Neighbours::default(),
            parts: Parts::default(),
            errors: (0, 0),
        }
    }

    /// The gateway as guests see it.
    pub const fn inside_host(&self) -> Host {
        self.inside
    }

    /// Whether `address` is one of the guests' network.
    pub fn is_inside(&self, address: Ipv4Addr) -> bool {
        self.network.contains_addr(&address)
    }

    /// The root's address outside is this from now on. Flows of another end.
    pub fn set_outside(&mut self, outside: Option<Outside>, now: u64, out: &mut Vec<Made>) {
        let address = |outside: Option<Outside>| outside.map(|outside| outside.own.address);
        if address(outside) != address(self.outside) {
            self.flows.end(|_| true);
            self.others.clear();
            self.parts.clear();
        }
        self.outside = outside;
        if let Some(outside) = outside {
            self.dhcp.set_mtu(outside.mtu as u16);
            // So that the first packet need not wait.
            if let Some(router) = outside.router
                && let Known::Not(true) = self.others.find(router, now)
            {
                out.push(ask(Network::Outside, outside.own, router));
            }
        }
    }

    /// `mac` is the card of the virtual machine `name`.
    pub fn introduce(&mut self, mac: Mac, name: &str) {
        if let Some(address) = self.fixed.get(name) {
            self.dhcp.fix(mac, *address);
        }
        self.machines.insert(mac, name.into());
    }

    /// The virtual machine `name` gets this address.
    pub fn fix(&mut self, name: &str, address: Ipv4Addr) {
        self.fixed.insert(name.into(), address);
        let card = self.machines.iter().find(|(_, machine)| *machine == name);
        if let Some((mac, _)) = card {
            self.dhcp.fix(*mac, address);
        }
    }

    /// The name of the machine whose card is `mac`.
    pub fn machine_of(&self, mac: Mac) -> Option<&str> {
        self.machines.get(&mac).map(String::as_str)
    }

    /// The address of a forward's guest.
    pub fn resolve(&self, target: &Target, now: u64) -> Option<Ipv4Addr> {
        match target {
            Target::Address(address) => Some(*address),
            Target::Machine(name) => {
                let mut cards = self.machines.iter().filter(|(_, machine)| *machine == name);
                let leased = cards.find_map(|(mac, _)| self.dhcp.address_of(*mac, now));
                leased.or_else(|| self.fixed.get(name).copied())
            }
        }
    }

    /// A forward ends, with the flows that it began.
    pub fn end_forward(&mut self, from: PublicPort) -> Result<(), super::forwards::BadForward> {
        self.forwards.delete(from)?;
        self.flows
            .end(|flow| flow.protocol == from.protocol && flow.port == from.port);
        Ok(())
    }

    pub(super) fn drop(&mut self, reason: Dropped) -> Verdict {
        self.counters.dropped[reason as usize] += 1;
        Verdict::Done
    }

    /// A frame of the guests' network, for the gateway or for all.
    pub fn from_inside(&mut self, frame: &Frame<'_>, now: u64, out: &mut Vec<Made>) -> Verdict {
        let Some(header) = FrameHeader::read(frame.head, None).filter(|header| !header.tag_in_frame) else {
            return self.drop(Dropped::Malformed);
        };
        match header.ethertype {
            ETHERTYPE_ARP => self.arp_from_inside(frame, header.source, now, out),
            ETHERTYPE_IPV4 => match Packet::read(frame) {
                Some(packet) => self.packet_from_inside(frame, packet, header.source, now, out),
                None => self.drop(Dropped::Malformed),
            },
            _ => Verdict::Done,
        }
    }

    /// A frame that came from outside to the root, or to all.
    pub fn from_outside(&mut self, frame: &Frame<'_>, now: u64, out: &mut Vec<Made>) -> Verdict {
        let (Some(outside), Some(header)) = (self.outside, FrameHeader::read(frame.head, None)) else {
            return Verdict::Stack;
        };
        if header.tag_in_frame {
            return Verdict::Stack;
        }
        match header.ethertype {
            ETHERTYPE_ARP => {
                if let Some((_, sender, _)) = read_arp(frame, header.source) {
                    let waiting = self.others.learn(sender, header.source, false, now);
                    release(waiting, Network::Outside, header.source, out);
                }
                Verdict::Stack
            }
            ETHERTYPE_IPV4 => match Packet::read(frame) {
                Some(packet) if packet.destination() == outside.own.address => {
                    self.packet_from_outside(frame, packet, header.source, now, out)
                }
                Some(_) => Verdict::Stack,
                None => self.drop(Dropped::Malformed),
            },
            _ => Verdict::Stack,
        }
    }

    /// A frame that the root's stack sends; [`Verdict::Stack`] says that it goes outside, as it is.
    pub fn from_stack(&mut self, frame: &Frame<'_>, now: u64, out: &mut Vec<Made>) -> Verdict {
        let Some(header) = FrameHeader::read(frame.head, None) else {
            return Verdict::Done;
        };
        if header.ethertype != ETHERTYPE_IPV4 {
            return Verdict::Stack;
        }
        match Packet::read(frame) {
            Some(packet) if self.is_inside(packet.destination()) => self.send_in(frame, packet, now, out),
            _ => Verdict::Stack,
        }
    }

    /// Whether the card `mac` may send from `address`: one of the network that nobody else has a lease of.
    pub(super) fn is_theirs(&self, address: Ipv4Addr, mac: Mac, now: u64) -> bool {
        self.is_inside(address)
            && address != self.inside.address
            && self.dhcp.holder(address, now).is_none_or(|holder| holder == mac)
    }

    fn packet_from_inside(
        &mut self,
        frame: &Frame<'_>,
        mut packet: Packet,
        mac: Mac,
        now: u64,
        out: &mut Vec<Made>,
    ) -> Verdict {
        let ends = packet.ends();
        if let Some(ends) = ends.filter(|_| packet.part.is_none())
            && (ends.protocol, ends.destination.1) == (Protocol::Udp, DHCP_SERVER)
            && matches!(ends.destination.0, address if address == Ipv4Addr::BROADCAST || address == self.inside.address)
        {
            return self.dhcp_message(frame, &packet, mac, now, out);
        }
        let to = packet.destination();
        // Groups stay inside.
        if to.is_broadcast() || to.is_multicast() {
            return Verdict::Done;
        }
        let guest = Host {
            mac,
            address: packet.source(),
        };
        if !self.is_theirs(guest.address, mac, now) {
            return self.drop(Dropped::Spoofed);
        }
        self.guests.learn(guest.address, mac, true, now);
        let outside = self.outside;
        if to == self.inside.address {
            return self.for_gateway(frame, packet, ends, guest, now, out);
        }
        if outside.is_some_and(|outside| outside.own.address == to) {
            packet.set_macs(self.inside.mac, outside.map_or(mac, |outside| outside.own.mac));
            return Verdict::ForwardToStack(packet);
        }
        // Neighbours talk to each other.
        if self.is_inside(to) || to.is_loopback() || to.is_unspecified() {
            return Verdict::Done;
        }
        if let Some(part) = packet.part.filter(|_| packet.is_later_part()) {
            let outside = match self.may_leave(&packet, guest, now, out) {
                Ok(outside) => outside,
                Err(reason) => return self.drop(reason),
            };
            let Some(passage) = self.parts.follow(&packet.whole(Network::Inside), part, now) else {
                return self.drop(Dropped::Fragment);
            };
            packet.pass(&passage);
            return self.leave(frame, packet, outside, now, out);
        }
        let Some(ends) = ends else {
            return self.drop(Dropped::OtherProtocol);
        };
        self.send_out(frame, packet, &ends, ends.destination, guest, now, out)
    }

    /// Sends a guest's packet outside, to `remote`, which the guest knows by another address where it is the name server.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn send_out(
        &mut self,
        frame: &Frame<'_>,
        mut packet: Packet,
        ends: &Ends,
        remote: (Ipv4Addr, u16),
        guest: Host,
        now: u64,
        out: &mut Vec<Made>,
    ) -> Verdict {
        let outside = match self.may_leave(&packet, guest, now, out) {
            Ok(outside) => outside,
            Err(reason) => return self.drop(reason),
        };
        let flow = match self.flow_out(ends, remote, packet.tcp_flags(), now) {
            Ok(flow) => flow,
            Err(reason) => return self.drop(reason),
        };
        let first = packet.part.map(|part| (packet.whole(Network::Inside), part));
        packet.translate(flow.protocol, End::Source, (outside.own.address, flow.port));
        if flow.remote != flow.seen {
            packet.translate(flow.protocol, End::Destination, flow.remote);
        }
        packet.limit_segments(outside.mtu);
        if let Some(first) = first {
            let id = self.parts.new_id();
            self.begin_parts(first, &mut packet, id, guest.mac, now);
        }
        self.leave(frame, packet, outside, now, out)
    }

    /// Whether a guest's packet can go outside; the guest is told why it cannot.
    fn may_leave(
        &mut self,
        packet: &Packet,
        guest: Host,
        now: u64,
        out: &mut Vec<Made>,
    ) -> Result<Outside, Dropped> {
        let Some(outside) = self.outside else {
            self.error(guest, (3, 0), 0, packet, now, out);
            return Err(Dropped::NoUplink);
        };
        if packet.hops() <= 1 {
            self.error(guest, (11, 0), 0, packet, now, out);
            return Err(Dropped::Hops);
        }
        if packet.longest > outside.mtu {
            self.error(guest, (3, 4), outside.mtu as u16, packet, now, out);
            return Err(Dropped::TooLarge);
        }
        Ok(outside)
    }

    /// Keeps what became of the first part of a packet, which is called `id` from here on, for those that follow.
    fn begin_parts(
        &mut self,
        (whole, part): (Whole, Part),
        packet: &mut Packet,
        id: u16,
        card: Mac,
        now: u64,
    ) {
        let passage = Passage {
            source: packet.source(),
            destination: packet.destination(),
            id,
        };
        packet.pass(&passage);
        self.parts.begin(whole, part, card, passage, now);
    }

    /// Sends a packet outside that has been translated.
    fn leave(
        &mut self,
        frame: &Frame<'_>,
        mut packet: Packet,
        outside: Outside,
        now: u64,
        out: &mut Vec<Made>,
    ) -> Verdict {
        packet.count_hop();
        self.counters.outward += 1;
        let to = packet.destination();
        let is_near = Ipv4Cidr::new(outside.own.address, outside.prefix).contains_addr(&to);
        let Some(next) = (if is_near { Some(to) } else { outside.router }) else {
            return self.drop(Dropped::Unresolved);
        };
        let known = self.others.find(next, now);
        self.pass_on(frame, packet, Network::Outside, outside.own, next, known, out)
    }

    fn flow_out(
        &mut self,
        ends: &Ends,
        remote: (Ipv4Addr, u16),
        flags: u8,
        now: u64,
    ) -> Result<Flow, Dropped> {
        if let Some(flow) = self.flows.from_inside(ends, flags, now) {
            return Ok(flow);
        }
        // An answer to an echo request that nobody sent, or the middle of a connection that is not known.
        let begins = match ends.protocol {
            Protocol::Tcp => flags & 0x17 == 2,
            Protocol::Udp => true,
            Protocol::Echo => ends.destination.1 == 0,
        };
        if !begins {
            return Err(Dropped::NoFlow);
        }
        let (forwards, protocol) = (&self.forwards, ends.protocol);
        let is_forwarded = |port| forwards.find(PublicPort { protocol, port }).is_some();
        self.flows.open(ends, remote, now, is_forwarded).map_err(no_flow)
    }

    fn packet_from_outside(
        &mut self,
        frame: &Frame<'_>,
        mut packet: Packet,
        from: Mac,
        now: u64,
        out: &mut Vec<Made>,
    ) -> Verdict {
        if let Some(part) = packet.part.filter(|_| packet.is_later_part()) {
            let Some(passage) = self.parts.follow(&packet.whole(Network::Outside), part, now) else {
                // It may be the root's own.
                return Verdict::Stack;
            };
            if packet.hops() <= 1 {
                return self.drop(Dropped::Hops);
            }
            packet.pass(&passage);
            packet.count_hop();
            return self.send_in(frame, packet, now, out);
        }
        if let Some(sent) = packet.quoted() {
            let Some(flow) = self.flows.of_sent(&sent) else {
                return Verdict::Stack;
            };
            packet.translate_quoted(flow.protocol, flow.guest, flow.seen);
            return self.send_in(frame, packet, now, out);
        }
        let Some(ends) = packet.ends() else {
            return Verdict::Stack;
        };
        let flow = match self.flows.from_outside(&ends, packet.tcp_flags(), now) {
            Some(flow) => flow,
            None => match self.flow_in(&ends, packet.tcp_flags(), now) {
                Some(Ok(flow)) => flow,
                Some(Err(reason)) => return self.drop(reason),
                None => return Verdict::Stack,
            },
        };
        if packet.hops() <= 1 {
            return self.drop(Dropped::Hops);
        }
        let whole = packet.whole(Network::Outside);
        packet.translate(flow.protocol, End::Destination, flow.guest);
        if flow.remote != flow.seen {
            packet.translate(flow.protocol, End::Source, flow.seen);
        }
        if let Some(part) = packet.part {
            self.begin_parts((whole, part), &mut packet, whole.id, from, now);
        }
        if let Some(outside) = self.outside {
            packet.limit_segments(outside.mtu);
        }
        packet.count_hop();
        self.send_in(frame, packet, now, out)
    }

    /// The flow that a packet from outside begins, if its port is forwarded.
    fn flow_in(&mut self, ends: &Ends, flags: u8, now: u64) -> Option<Result<Flow, Dropped>> {
        let from = PublicPort {
            protocol: ends.protocol,
            port: ends.destination.1,
        };
        let (target, port) = self.forwards.find(from)?;
        let guest = self.resolve(target, now).map(|address| (address, *port));
        if ends.protocol == Protocol::Tcp && flags & 0x17 != 2 {
            return Some(Err(Dropped::NoFlow));
        }
        let Some(guest) = guest else {
            return Some(Err(Dropped::Unresolved));
        };
        Some(self.flows.open_to(ends, guest, now).map_err(no_flow))
    }

    /// Sends a packet to a guest.
    fn send_in(&mut self, frame: &Frame<'_>, packet: Packet, now: u64, out: &mut Vec<Made>) -> Verdict {
        let guest = packet.destination();
        self.counters.inward += 1;
        let known = match self.dhcp.holder(guest, now) {
            Some(mac) => Known::At(mac, false),
            None => self.guests.find(guest, now),
        };
        self.pass_on(frame, packet, Network::Inside, self.inside, guest, known, out)
    }

    #[allow(clippy::too_many_arguments)]
    fn pass_on(
        &mut self,
        frame: &Frame<'_>,
        mut packet: Packet,
        to: Network,
        own: Host,
        next: Ipv4Addr,
        known: Known,
        out: &mut Vec<Made>,
    ) -> Verdict {
        if let Known::At(_, true) | Known::Not(true) = known {
            out.push(ask(to, own, next));
        }
        if let Known::At(mac, _) = known {
            packet.set_macs(own.mac, mac);
            return Verdict::Forward(to, packet);
        }
        packet.set_macs(own.mac, Mac::BROADCAST);
        let waiting = match to {
            Network::Inside => &mut self.guests,
            Network::Outside => &mut self.others,
        };
        // Complete, as nobody will work on it later.
        if frame.length <= MAX_WAITING_BYTES {
            let _ = segment::complete(&packet.frame(frame), None, false, |bytes| {
                waiting.wait(next, bytes.to_vec());
            });
        }
        self.drop(Dropped::Unresolved)
    }
}

const fn no_flow(error: NoFlow) -> Dropped {
    match error {
        NoFlow::TableFull | NoFlow::NoPort => Dropped::TableFull,
    }
}

/// A question who has `address`.
fn ask(to: Network, own: Host, address: Ipv4Addr) -> Made {
    let other = Host {
        mac: Mac::BROADCAST,
        address,
    };
    Made {
        to,
        bytes: build::arp(ArpOperation::Request, own, other),
    }
}

/// Lets packets go that waited for `mac`.
pub(super) fn release(waiting: Vec<Vec<u8>>, to: Network, mac: Mac, out: &mut Vec<Made>) {
    out.extend(waiting.into_iter().map(|mut bytes| {
        bytes[..6].copy_from_slice(&mac.0);
        Made { to, bytes }
    }));
}
