//! An IPv4 packet by the first bytes of its frame: read, checked and rewritten there, with checksums kept right by the
//! difference (RFC 1624), so that the rest of the packet is never touched.

use super::parts::{Part, Passage, Whole};
use super::verdict::Network;
use core::net::Ipv4Addr;
use smoltcp::wire::{IpProtocol, Ipv4Packet};
use vmbus::protocol::network::packet_info::{LargeSend, SendChecksum};
use vmbus::protocol::network::{ETHERNET_HEADER, Mac};
use vsp::network::Frame;
use vsp::switch::HEADER_BYTES;

/// Bytes of an IPv4 header without options.
const IP_HEADER: usize = 20;
/// Bytes of a TCP header without options, which follow.
const TCP_HEADER: usize = 20;
/// Where a TCP header has its checksum.
const TCP_CHECKSUM: usize = 16;
/// Where a TCP header tells its length, in its upper half.
const TCP_LENGTH: usize = 12;
/// TCP's flag of the two packets that begin a connection.
const SYN: u8 = 2;
/// TCP's options (RFC 9293, 3.2): the last one, one of a single byte, and the largest segment that the sender takes.
const OPTION_END: u8 = 0;
const OPTION_NONE: u8 = 1;
const OPTION_SEGMENT_SIZE: u8 = 2;

/// What a packet carries, of what can be translated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP echo requests and replies; the identifier stands for a port.
    Echo,
}

/// The first bytes of a frame that holds an IPv4 packet.
#[derive(Clone)]
pub struct Packet {
    bytes: [u8; HEADER_BYTES],
    length: usize,
    ip_header: usize,
    /// Bytes of the IP packet; of one that is to be cut, all of it.
    pub ip_length: usize,
    /// Bytes of the largest IP packet on the wire: itself, or the segments that it is to be cut into.
    pub longest: usize,
    /// It is a part of a packet.
    pub part: Option<Part>,
    /// Its TCP or UDP checksum is still to be filled in, by whoever sends it.
    unfilled: bool,
}

/// The ends of a packet that can be translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// What it carries.
    pub protocol: Protocol,
    /// Where it comes from.
    pub source: (Ipv4Addr, u16),
    /// Where it goes.
    pub destination: (Ipv4Addr, u16),
}

/// What changed in a packet, as checksums see it.
#[derive(Clone, Copy, Default)]
struct Difference(u64);

impl Difference {
    fn word(&mut self, old: u16, new: u16) {
        self.0 += u64::from(!old) + u64::from(new);
    }

    /// The checksum that follows from `checksum`.
    fn apply(self, checksum: u16) -> u16 {
        let mut sum = u64::from(!checksum) + self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }
}

impl Packet {
    /// Reads the packet of a frame whose Ethernet header says that it is IPv4; `None` if it is none, or its header's checksum is wrong.
    pub fn read(frame: &Frame<'_>) -> Option<Self> {
        let mut bytes = [0; HEADER_BYTES];
        let length = frame.head.len().min(HEADER_BYTES);
        bytes[..length].copy_from_slice(&frame.head[..length]);
        let room = length.checked_sub(ETHERNET_HEADER)?;
        if room < IP_HEADER {
            return None;
        }
        let packet = Ipv4Packet::new_unchecked(&bytes[ETHERNET_HEADER..length]);
        let ip_header = usize::from(packet.header_len());
        if packet.version() != 4 || ip_header < IP_HEADER || ip_header > room {
            return None;
        }
        let is_large = frame.large.is_some();
        let header_is_theirs = is_large || frame.checksum.has(SendChecksum::IP_HEADER);
        if !header_is_theirs && !packet.verify_checksum() {
            return None;
        }
        let whole = frame.length - ETHERNET_HEADER;
        // Senders of packets that are to be cut leave the length to whoever cuts.
        let ip_length = if is_large {
            whole
        } else {
            usize::from(packet.total_len())
        };
        if ip_length < ip_header || ip_length > whole {
            return None;
        }
        let (offset, more) = (usize::from(packet.frag_offset()), packet.more_frags());
        let part = (more || offset != 0).then_some(Part {
            offset,
            length: ip_length - ip_header,
            more,
        });
        let unfilled = is_large || frame.checksum.has(SendChecksum::TCP | SendChecksum::UDP);
        // Nobody can cut a part, or fill in the checksum of a whole of which it has a part only.
        if part.is_some() && unfilled {
            return None;
        }
        let tcp_header = bytes.get(ETHERNET_HEADER + ip_header + TCP_LENGTH);
        let headers = ip_header + tcp_header.map_or(TCP_HEADER, |length| usize::from(length >> 4) * 4);
        let segment = |large: LargeSend| headers + large.mss() as usize;
        Some(Self {
            bytes,
            length,
            ip_header,
            ip_length,
            longest: frame.large.map_or(ip_length, segment).min(ip_length),
            part,
            unfilled,
        })
    }

    /// The first bytes, as they are now.
    pub fn head(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The frame with these first bytes.
    pub fn frame<'a>(&'a self, frame: &Frame<'a>) -> Frame<'a> {
        Frame {
            head: self.head(),
            ..*frame
        }
    }

    fn ip(&self) -> Ipv4Packet<&[u8]> {
        Ipv4Packet::new_unchecked(&self.bytes[ETHERNET_HEADER..self.length])
    }

    /// Who sent it.
    pub fn source(&self) -> Ipv4Addr {
        self.ip().src_addr()
    }

    /// To whom it goes.
    pub fn destination(&self) -> Ipv4Addr {
        self.ip().dst_addr()
    }

    /// What it carries.
    pub fn next_header(&self) -> IpProtocol {
        self.ip().next_header()
    }

    /// Whether it is a part of a packet without its beginning.
    pub fn is_later_part(&self) -> bool {
        self.part.is_some_and(|part| part.offset != 0)
    }

    /// The packet that it is a part of, which comes from `from`.
    pub fn whole(&self, from: Network) -> Whole {
        Whole {
            from,
            source: self.source(),
            destination: self.destination(),
            protocol: self.next_header().into(),
            id: self.ip().ident(),
        }
    }

    /// Gives it the addresses and the name of `passage`, and leaves checksums behind the IP header alone.
    pub fn pass(&mut self, passage: &Passage) {
        let mut ip = Ipv4Packet::new_unchecked(&mut self.bytes[ETHERNET_HEADER..self.length]);
        ip.set_src_addr(passage.source);
        ip.set_dst_addr(passage.destination);
        ip.set_ident(passage.id);
        self.fill_header();
    }

    /// How many routers it may still pass.
    pub fn hops(&self) -> u8 {
        self.ip().hop_limit()
    }

    /// Where what it carries begins in the frame.
    pub const fn transport(&self) -> usize {
        ETHERNET_HEADER + self.ip_header
    }

    /// Bytes of what it carries that are among the first bytes.
    pub fn transport_bytes(&self) -> &[u8] {
        let end = self.length.min(ETHERNET_HEADER + self.ip_length);
        self.bytes.get(self.transport()..end).unwrap_or(&[])
    }

    /// Where it comes from and goes, if it can be translated.
    pub fn ends(&self) -> Option<Ends> {
        if self.is_later_part() {
            return None;
        }
        let transport = self.transport_bytes();
        let ends = |protocol, source, destination| Ends {
            protocol,
            source: (self.source(), source),
            destination: (self.destination(), destination),
        };
        let port = |at: usize| Some(u16::from_be_bytes(*transport.get(at..)?.first_chunk()?));
        match self.next_header() {
            IpProtocol::Tcp if transport.len() >= 20 => Some(ends(Protocol::Tcp, port(0)?, port(2)?)),
            IpProtocol::Udp if transport.len() >= 8 => Some(ends(Protocol::Udp, port(0)?, port(2)?)),
            IpProtocol::Icmp if transport.len() >= 8 => match transport[..2] {
                [8, 0] => Some(ends(Protocol::Echo, port(4)?, 0)),
                [0, 0] => Some(ends(Protocol::Echo, 0, port(4)?)),
                _ => None,
            },
            _ => None,
        }
    }

    /// TCP's flags; 0 for another packet.
    pub fn tcp_flags(&self) -> u8 {
        match self.next_header() {
            IpProtocol::Tcp => self.transport_bytes().get(13).copied().unwrap_or(0),
            _ => 0,
        }
    }

    /// Sets the Ethernet addresses.
    pub fn set_macs(&mut self, source: Mac, destination: Mac) {
        self.bytes[..6].copy_from_slice(&destination.0);
        self.bytes[6..12].copy_from_slice(&source.0);
    }

    fn word(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    fn put(&mut self, at: usize, value: u16) {
        self.bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }

    fn change(&mut self, at: usize, value: u16, difference: &mut Difference) {
        difference.word(self.word(at), value);
        self.put(at, value);
    }

    fn change_address(&mut self, at: usize, address: Ipv4Addr, difference: &mut Difference) {
        let [a, b, c, d] = address.octets();
        self.change(at, u16::from_be_bytes([a, b]), difference);
        self.change(at + 2, u16::from_be_bytes([c, d]), difference);
    }

    /// Lets the packet pass a router: one hop fewer.
    pub fn count_hop(&mut self) {
        let hops = self.hops().saturating_sub(1);
        Ipv4Packet::new_unchecked(&mut self.bytes[ETHERNET_HEADER..self.length]).set_hop_limit(hops);
        self.fill_header();
    }

    /// Works out the header's checksum anew.
    fn fill_header(&mut self) {
        Ipv4Packet::new_unchecked(&mut self.bytes[ETHERNET_HEADER..self.length]).fill_checksum();
    }

    /// Gives a packet that has [`ends`](Self::ends) another source, or another destination.
    pub fn translate(&mut self, protocol: Protocol, change: End, (address, port): (Ipv4Addr, u16)) {
        let transport = self.transport();
        let mut addresses = Difference::default();
        let at = ETHERNET_HEADER + if change == End::Source { 12 } else { 16 };
        self.change_address(at, address, &mut addresses);
        self.fill_header();
        let (port_at, checksum_at) = match (protocol, change) {
            (Protocol::Echo, _) => (transport + 4, transport + 2),
            (Protocol::Tcp, End::Source) => (transport, transport + TCP_CHECKSUM),
            (Protocol::Tcp, End::Destination) => (transport + 2, transport + TCP_CHECKSUM),
            (Protocol::Udp, End::Source) => (transport, transport + 6),
            (Protocol::Udp, End::Destination) => (transport + 2, transport + 6),
        };
        let mut difference = Difference::default();
        self.change(port_at, port, &mut difference);
        if protocol != Protocol::Echo {
            // ICMP has no pseudo header.
            difference.0 += addresses.0;
        }
        let old = self.word(checksum_at);
        let absent = protocol == Protocol::Udp && old == 0;
        if self.unfilled && protocol != Protocol::Echo || absent {
            return;
        }
        let checksum = match difference.apply(old) {
            0 if protocol == Protocol::Udp => 0xffff,
            checksum => checksum,
        };
        self.put(checksum_at, checksum);
    }

    /// Has neither end of a connection that begins send segments that are larger than packets of `mtu` bytes hold: an end whose own
    /// network takes more would otherwise find that out by errors only, if they reach it.
    pub fn limit_segments(&mut self, mtu: usize) {
        if self.tcp_flags() & SYN == 0 {
            return;
        }
        let most = mtu.saturating_sub(IP_HEADER + TCP_HEADER) as u16;
        let Some(at) = self.segment_size() else { return };
        let old = self.word(at);
        if old <= most {
            return;
        }
        self.put(at, most);
        if self.unfilled {
            return;
        }
        // At an odd byte it lies across two of the checksum's words, with its halves in the other order.
        let in_words = |size: u16| if at % 2 == 0 { size } else { size.swap_bytes() };
        let mut difference = Difference::default();
        difference.word(in_words(old), in_words(most));
        let checksum_at = self.transport() + TCP_CHECKSUM;
        let checksum = difference.apply(self.word(checksum_at));
        self.put(checksum_at, checksum);
    }

    /// Where a TCP packet says which segments its sender takes.
    fn segment_size(&self) -> Option<usize> {
        let transport = self.transport_bytes();
        let end = usize::from(transport.get(TCP_LENGTH)? >> 4) * 4;
        let options = transport.get(..end.min(transport.len()))?;
        let mut at = TCP_HEADER;
        loop {
            match *options.get(at)? {
                OPTION_END => return None,
                OPTION_NONE => at += 1,
                OPTION_SEGMENT_SIZE => {
                    options.get(at + 2..at + 4)?;
                    return Some(self.transport() + at + 2);
                }
                _ => at += usize::from(*options.get(at + 1)?).max(2),
            }
        }
    }

    /// The packet that an ICMP error tells of, if this is one: which was sent from `source` to `destination`.
    pub fn quoted(&self) -> Option<Ends> {
        let transport = self.transport_bytes();
        let is_error = matches!(transport.first(), Some(3 | 11 | 12));
        if self.next_header() != IpProtocol::Icmp || !is_error || self.part.is_some() {
            return None;
        }
        let inner = transport.get(8..)?;
        if inner.len() < IP_HEADER {
            return None;
        }
        let packet = Ipv4Packet::new_unchecked(inner);
        let header = usize::from(packet.header_len());
        if packet.version() != 4 || header < IP_HEADER || packet.frag_offset() != 0 {
            return None;
        }
        let quoted = inner.get(header..header + 8)?;
        let port = |at: usize| u16::from_be_bytes([quoted[at], quoted[at + 1]]);
        let (protocol, source, destination) = match packet.next_header() {
            IpProtocol::Tcp => (Protocol::Tcp, port(0), port(2)),
            IpProtocol::Udp => (Protocol::Udp, port(0), port(2)),
            IpProtocol::Icmp if quoted[0] == 8 => (Protocol::Echo, port(4), 0),
            _ => return None,
        };
        Some(Ends {
            protocol,
            source: (packet.src_addr(), source),
            destination: (packet.dst_addr(), destination),
        })
    }

    /// Turns an ICMP error about a translated packet into one about the packet as its sender knows it.
    pub fn translate_quoted(&mut self, protocol: Protocol, sender: (Ipv4Addr, u16), remote: (Ipv4Addr, u16)) {
        let transport = self.transport();
        let inner = transport + 8;
        let inner_header = usize::from(self.bytes[inner] & 0xf) * 4;
        let mut difference = Difference::default();
        let mut header = Difference::default();
        self.change_address(inner + 12, sender.0, &mut header);
        self.change_address(inner + 16, remote.0, &mut header);
        let checksum = header.apply(self.word(inner + 10));
        self.change(inner + 10, checksum, &mut difference);
        difference.0 += header.0;
        let ports = inner + inner_header;
        match protocol {
            Protocol::Echo => {
                let mut echo = Difference::default();
                self.change(ports + 4, sender.1, &mut echo);
                let checksum = echo.apply(self.word(ports + 2));
                self.change(ports + 2, checksum, &mut difference);
                difference.0 += echo.0;
            }
            Protocol::Tcp | Protocol::Udp => {
                let mut own = Difference::default();
                self.change(ports, sender.1, &mut own);
                self.change(ports + 2, remote.1, &mut own);
                difference.0 += own.0;
                // TCP's checksum is not among what is quoted for sure.
                let at = ports + 6;
                if protocol == Protocol::Udp && self.word(at) != 0 {
                    own.0 += header.0;
                    let checksum = own.apply(self.word(at));
                    self.change(at, checksum, &mut difference);
                }
            }
        }
        let checksum = difference.apply(self.word(transport + 2));
        self.put(transport + 2, checksum);
        let mut outer = Difference::default();
        self.change_address(ETHERNET_HEADER + 16, sender.0, &mut outer);
        self.fill_header();
    }
}

/// An end of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}
