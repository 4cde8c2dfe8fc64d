//! The DHCP server of an internal network (RFC 2131): leases that stay the same for the same card.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::ops::RangeInclusive;
use smoltcp::wire::{DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress};
use vmbus::protocol::network::Mac;
use vsp::switch::TICKS_A_SECOND;

/// Seconds that a lease holds.
pub const LEASE_SECONDS: u32 = 24 * 3600;
/// Ticks that an offer holds.
const OFFER: u64 = 60 * TICKS_A_SECOND;
/// Ticks for which an address is left alone that somebody found in use.
const DECLINED: u64 = 600 * TICKS_A_SECOND;
/// Most addresses that are left alone at a time.
const MAX_DECLINED: usize = 64;
/// Most leases.
pub const MAX_LEASES: usize = 4096;
/// Longest name of a host that is kept.
const MAX_HOST_NAME: usize = 63;
const OPTION_HOST_NAME: u8 = 12;
const OPTION_MTU: u8 = 26;
const OPTION_MESSAGE: u8 = 56;

/// What the server gives out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DhcpSettings {
    /// The gateway, which is the name server too.
    pub gateway: Ipv4Addr,
    /// Bits of the network's part.
    pub prefix: u8,
    /// The addresses that are given out.
    pub pool: RangeInclusive<Ipv4Addr>,
    /// The largest IP packet that goes through the gateway.
    pub mtu: u16,
}

/// A lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// The tick until which it holds.
    pub until: u64,
    /// It was taken, and not only offered.
    pub is_bound: bool,
    /// What the host calls itself.
    pub host_name: String,
}

/// The server.
pub struct DhcpServer {
    settings: DhcpSettings,
    leases: BTreeMap<Mac, Lease>,
    taken: BTreeMap<Ipv4Addr, Mac>,
    fixed: BTreeMap<Mac, Ipv4Addr>,
    declined: BTreeMap<Ipv4Addr, u64>,
}

/// An answer: the message, and whether it goes to everybody, as the client has no address yet that it answers to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The message.
    pub message: Vec<u8>,
    /// To whom.
    pub to: Ipv4Addr,
}

impl DhcpServer {
    /// A server without leases.
    pub fn new(settings: DhcpSettings) -> Self {
        Self {
            settings,
            leases: BTreeMap::new(),
            taken: BTreeMap::new(),
            fixed: BTreeMap::new(),
            declined: BTreeMap::new(),
        }
    }

    /// What it gives out.
    pub const fn settings(&self) -> &DhcpSettings {
        &self.settings
    }

    /// The largest IP packet that goes through the gateway has changed.
    pub const fn set_mtu(&mut self, mtu: u16) {
        self.settings.mtu = mtu;
    }

    /// Gives `mac` this address and no other from now on, and nobody else has it.
    pub fn fix(&mut self, mac: Mac, address: Ipv4Addr) {
        self.fixed.insert(mac, address);
        if self
            .leases
            .get(&mac)
            .is_some_and(|lease| lease.address != address)
        {
            self.forget(mac);
        }
        if let Some(other) = self.taken.get(&address).copied().filter(|&other| other != mac) {
            self.forget(other);
        }
    }

    /// The leases that hold.
    pub fn leases(&self, now: u64) -> impl Iterator<Item = (Mac, &Lease)> {
        let all = self.leases.iter().map(|(mac, lease)| (*mac, lease));
        all.filter(move |(_, lease)| lease.is_bound && lease.until > now)
    }

    /// Who has `address`, as far as the server knows.
    pub fn holder(&self, address: Ipv4Addr, now: u64) -> Option<Mac> {
        let mac = self.taken.get(&address)?;
        let lease = self.leases.get(mac)?;
        (lease.is_bound && lease.until > now).then_some(*mac)
    }

    /// The address of `mac`: its lease, or the one that it will get.
    pub fn address_of(&self, mac: Mac, now: u64) -> Option<Ipv4Addr> {
        let lease = self
            .leases
            .get(&mac)
            .filter(|lease| lease.is_bound && lease.until > now);
        lease
            .map(|lease| lease.address)
            .or_else(|| self.fixed.get(&mac).copied())
    }

    /// Takes a message of the card `mac`; returns the answer.
    pub fn receive(&mut self, mac: Mac, message: &[u8], now: u64) -> Option<Answer> {
        let packet = DhcpPacket::new_checked(message).ok()?;
        let request = DhcpRepr::parse(&packet).ok()?;
        // One card has one lease: whoever could ask for others would have all addresses soon.
        if request.client_hardware_address != EthernetAddress(mac.0) || !mac.is_station() {
            return None;
        }
        let host_name = host_name(&packet);
        let for_us = request
            .server_identifier
            .is_none_or(|server| server == self.settings.gateway);
        match request.message_type {
            DhcpMessageType::Discover => {
                let address = self.choose(mac, request.requested_ip, now)?;
                let until = now + OFFER;
                let bound = self
                    .leases
                    .get(&mac)
                    .filter(|lease| lease.is_bound && lease.until > until);
                if bound.is_none() {
                    self.enter(mac, address, until, false, host_name)?;
                }
                Some(self.answer(&request, DhcpMessageType::Offer, Some(address)))
            }
            DhcpMessageType::Request if !for_us => {
                // It took another server's offer.
                if self.leases.get(&mac).is_some_and(|lease| !lease.is_bound) {
                    self.forget(mac);
                }
                None
            }
            DhcpMessageType::Request => {
                let asked = request.requested_ip.unwrap_or(request.client_ip);
                if self.choose(mac, Some(asked), now) != Some(asked) {
                    return Some(self.answer(&request, DhcpMessageType::Nak, None));
                }
                let until = now + u64::from(LEASE_SECONDS) * TICKS_A_SECOND;
                self.enter(mac, asked, until, true, host_name)?;
                Some(self.answer(&request, DhcpMessageType::Ack, Some(asked)))
            }
            DhcpMessageType::Release if for_us => {
                if self
                    .leases
                    .get(&mac)
                    .is_some_and(|lease| lease.address == request.client_ip)
                {
                    self.forget(mac);
                }
                None
            }
            DhcpMessageType::Decline if for_us => {
                if let Some(address) = request.requested_ip
                    && self
                        .leases
                        .get(&mac)
                        .is_some_and(|lease| lease.address == address)
                {
                    self.forget(mac);
                    self.declined.retain(|_, until| *until > now);
                    if self.declined.len() < MAX_DECLINED {
                        self.declined.insert(address, now + DECLINED);
                    }
                }
                None
            }
            DhcpMessageType::Inform => Some(self.answer(&request, DhcpMessageType::Ack, None)),
            _ => None,
        }
    }

    /// The address that `mac` gets: the one that is fixed for it, the one that it had, the one that it asks for, or one that
    /// follows from its own address, as far as they are free.
    fn choose(&mut self, mac: Mac, asked: Option<Ipv4Addr>, now: u64) -> Option<Ipv4Addr> {
        if let Some(fixed) = self.fixed.get(&mac) {
            return Some(*fixed);
        }
        if let Some(lease) = self.leases.get(&mac)
            && self.in_pool(lease.address)
        {
            return Some(lease.address);
        }
        if let Some(asked) = asked.filter(|&asked| self.is_free(asked, now)) {
            return Some(asked);
        }
        let (first, last) = (
            self.settings.pool.start().to_bits(),
            self.settings.pool.end().to_bits(),
        );
        let size = u64::from(last - first) + 1;
        let start = mac
            .0
            .iter()
            .fold(0, |sum: u64, &byte| sum.wrapping_mul(31) + u64::from(byte))
            % size;
        let nth = |step: u64| Ipv4Addr::from_bits(first + ((start + step) % size) as u32);
        (0..size).map(nth).find(|&address| self.is_free(address, now))
    }

    fn in_pool(&self, address: Ipv4Addr) -> bool {
        self.settings.pool.contains(&address) && address != self.settings.gateway
    }

    fn is_free(&self, address: Ipv4Addr, now: u64) -> bool {
        let lease = self.taken.get(&address).and_then(|mac| self.leases.get(mac));
        self.in_pool(address)
            && lease.is_none_or(|lease| lease.until <= now)
            && self.declined.get(&address).is_none_or(|&until| until <= now)
            && !self.fixed.values().any(|&fixed| fixed == address)
    }

    fn enter(
        &mut self,
        mac: Mac,
        address: Ipv4Addr,
        until: u64,
        is_bound: bool,
        host_name: String,
    ) -> Option<()> {
        self.forget(mac);
        if let Some(other) = self.taken.get(&address).copied() {
            self.forget(other);
        }
        if self.leases.len() >= MAX_LEASES {
            let oldest = self.leases.iter().min_by_key(|(_, lease)| lease.until);
            let oldest = oldest.map(|(mac, _)| *mac)?;
            self.forget(oldest);
        }
        self.taken.insert(address, mac);
        self.leases.insert(
            mac,
            Lease {
                address,
                until,
                is_bound,
                host_name,
            },
        );
        Some(())
    }

    fn forget(&mut self, mac: Mac) {
        if let Some(lease) = self.leases.remove(&mac) {
            self.taken.remove(&lease.address);
        }
    }

    fn answer(
        &self,
        request: &DhcpRepr<'_>,
        message_type: DhcpMessageType,
        address: Option<Ipv4Addr>,
    ) -> Answer {
        let settings = &self.settings;
        let is_refusal = message_type == DhcpMessageType::Nak;
        let mtu = settings.mtu.to_be_bytes();
        let options = [DhcpOption {
            kind: OPTION_MTU,
            data: &mtu,
        }];
        let refusal = [DhcpOption {
            kind: OPTION_MESSAGE,
            data: b"this address is not to be had",
        }];
        let lease = |value| (address.is_some() && !is_refusal).then_some(value);
        let message = DhcpRepr {
            message_type,
            transaction_id: request.transaction_id,
            secs: 0,
            client_hardware_address: request.client_hardware_address,
            client_ip: if is_refusal {
                Ipv4Addr::UNSPECIFIED
            } else {
                request.client_ip
            },
            your_ip: address.unwrap_or(Ipv4Addr::UNSPECIFIED),
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: (!is_refusal).then_some(settings.gateway),
            subnet_mask: (!is_refusal).then(|| netmask(settings.prefix)),
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: request.broadcast,
            requested_ip: None,
            client_identifier: None,
            server_identifier: Some(settings.gateway),
            parameter_request_list: None,
            dns_servers: (!is_refusal).then(|| [settings.gateway].into_iter().collect()),
            max_size: None,
            lease_duration: lease(LEASE_SECONDS),
            renew_duration: lease(LEASE_SECONDS / 2),
            rebind_duration: lease(LEASE_SECONDS / 8 * 7),
            additional_options: if is_refusal { &refusal } else { &options },
        };
        let mut bytes = vec![0; message.buffer_len()];
        let emitted = message.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..]));
        debug_assert!(emitted.is_ok());
        // RFC 2131, 4.1.
        let to = match (is_refusal, request.client_ip, request.broadcast, address) {
            (true, ..) => Ipv4Addr::BROADCAST,
            (_, own, ..) if own != Ipv4Addr::UNSPECIFIED => own,
            (_, _, false, Some(address)) => address,
            _ => Ipv4Addr::BROADCAST,
        };
        Answer { message: bytes, to }
    }
}

/// The mask of a network whose part has `prefix` bits.
pub const fn netmask(prefix: u8) -> Ipv4Addr {
    match prefix {
        0 => Ipv4Addr::UNSPECIFIED,
        1..=32 => Ipv4Addr::from_bits(u32::MAX << (32 - prefix)),
        _ => Ipv4Addr::BROADCAST,
    }
}

/// What the client calls itself, as far as a terminal can show it.
fn host_name(packet: &DhcpPacket<&[u8]>) -> String {
    let option = packet.options().find(|option| option.kind == OPTION_HOST_NAME);
    let bytes = option.map_or(&[][..], |option| option.data);
    let shown = bytes
        .iter()
        .filter(|byte| byte.is_ascii_graphic())
        .take(MAX_HOST_NAME);
    shown.map(|&byte| char::from(byte)).collect()
}
