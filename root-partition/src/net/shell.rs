//! The root's network as the shell's commands see it.

use super::gateway::flows::MAX_FLOWS;
use super::gateway::forwards::{self, PublicPort, Target};
use super::gateway::verdict::Dropped;
use super::start::Network;
use crate::hypervisor::time;
use crate::shell::network::{CardCounter, ForwardInfo, GatewayInfo, LeaseInfo, RootNetwork, UplinkInfo};
use crate::shell::system::{Pending, SystemError};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::sync::atomic::Ordering;
use core::time::Duration;
use embassy_time::{Instant, Timer};
use vsp::switch::TICKS_A_SECOND;

/// How often one looks whether there is an address.
const LOOK: embassy_time::Duration = embassy_time::Duration::from_millis(20);

fn micros(duration: Duration) -> embassy_time::Duration {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    // Far below what would overflow when it is added to now.
    embassy_time::Duration::from_micros(micros.min(1 << 40))
}

impl RootNetwork for Network {
    fn uplink(&self) -> Option<UplinkInfo> {
        let uplink = self.uplink.get()?;
        let card = &uplink.card;
        card.read_statistics();
        let address = uplink.stack.address();
        let counters = &card.counters;
        let counter = |key, label, value: &core::sync::atomic::AtomicU64| CardCounter {
            key,
            label,
            value: value.load(Ordering::Relaxed),
        };
        Some(UplinkInfo {
            card: card.name.clone(),
            hardware_address: card.address(),
            mtu: card.mtu() as u64,
            link: card.link_up().then(|| card.status().speed()),
            address: address.as_ref().map(|own| (own.address, own.prefix)),
            router: address.as_ref().and_then(|own| own.router),
            name_servers: address.map_or(Vec::new(), |own| own.name_servers),
            counters: [
                counter("received", "frames received", &counters.received),
                counter("received_bytes", "bytes received", &counters.received_bytes),
                counter("sent", "frames sent", &counters.sent),
                counter("sent_bytes", "bytes sent", &counters.sent_bytes),
                counter("damaged", "damaged", &counters.damaged),
                counter("malformed", "malformed", &counters.malformed),
                counter("missed", "missed", &counters.missed),
                counter("no_room", "no room", &counters.no_room),
                counter("unsendable", "unsendable", &counters.unsendable),
                counter("resets", "resets", &counters.resets),
            ]
            .to_vec(),
        })
    }

    fn gateway(&self) -> GatewayInfo {
        let now = time::now();
        self.gateway.with(|gateway| {
            gateway.flows.expire(now);
            let settings = gateway.dhcp.settings();
            GatewayInfo {
                address: (settings.gateway, settings.prefix),
                pool: (*settings.pool.start(), *settings.pool.end()),
                leases: gateway.dhcp.leases(now).count() as u64,
                flows: gateway.flows.len() as u64,
                max_flows: MAX_FLOWS as u64,
                outward: gateway.counters.outward,
                inward: gateway.counters.inward,
                dropped: Dropped::ALL
                    .iter()
                    .map(|&(reason, name)| (name, gateway.counters.dropped(reason)))
                    .collect(),
            }
        })
    }

    fn leases(&self) -> Vec<LeaseInfo> {
        let now = time::now();
        let mut leases: Vec<LeaseInfo> = self.gateway.with(|gateway| {
            let held = gateway.dhcp.leases(now).map(|(mac, lease)| LeaseInfo {
                address: lease.address,
                mac,
                machine: gateway.machine_of(mac).map(ToString::to_string),
                host_name: lease.host_name.clone(),
                left: Duration::from_secs((lease.until - now) / TICKS_A_SECOND),
            });
            held.collect()
        });
        leases.sort_unstable_by_key(|lease| lease.address);
        leases
    }

    fn forwards(&self) -> Vec<ForwardInfo> {
        let now = time::now();
        self.gateway.with(|gateway| {
            gateway.flows.expire(now);
            let all = gateway.forwards.list().into_iter();
            let info = |(from, target, port): (PublicPort, Target, u16)| ForwardInfo {
                from: from.to_string(),
                to: format!("{target}:{port}"),
                address: gateway.resolve(&target, now),
                flows: gateway.flows.through(from.protocol, from.port).count() as u64,
            };
            all.map(info).collect()
        })
    }

    fn add_forward(&self, from: &str, to: &str) -> Result<(), SystemError> {
        let from = forwards::read_from(from).map_err(SystemError::new)?;
        let (target, port) = forwards::read_to(to).map_err(SystemError::new)?;
        self.gateway.with(|gateway| {
            if let Target::Address(address) = target
                && !gateway.is_inside(address)
            {
                let own = gateway.inside_host().address;
                return Err(SystemError(format!(
                    "{address} is not in the guests' network, whose gateway is {own}"
                )));
            }
            gateway.forwards.add(from, target, port).map_err(SystemError::new)
        })
    }

    fn delete_forward(&self, from: &str) -> Result<(), SystemError> {
        let from = forwards::read_from(from).map_err(SystemError::new)?;
        let ended = self.gateway.with(|gateway| gateway.end_forward(from));
        ended.map_err(SystemError::new)
    }

    fn wait(&self, limit: Duration) -> Pending<'_, ()> {
        Box::pin(async move {
            let end = Instant::now() + micros(limit);
            while Instant::now() < end {
                match self.uplink.get() {
                    Some(uplink) if uplink.stack.address().is_some() => return,
                    None if !self.starting.load(Ordering::Acquire) => return,
                    _ => Timer::after(LOOK).await,
                }
            }
        })
    }

    fn resolve<'a>(&'a self, name: &'a str) -> Pending<'a, Result<Ipv4Addr, SystemError>> {
        Box::pin(async move {
            let uplink = self.uplink.get().ok_or_else(no_uplink)?;
            let found = uplink.stack.resolve(name).await;
            found.map_err(|error| SystemError(alloc::format!("{name}: {error}")))
        })
    }

    fn ping(
        &self,
        target: Ipv4Addr,
        limit: Duration,
    ) -> Pending<'_, Result<Result<Duration, SystemError>, SystemError>> {
        Box::pin(async move {
            let uplink = self.uplink.get().ok_or_else(no_uplink)?;
            let answer = uplink.stack.ping(target, micros(limit)).await;
            Ok(match answer {
                Ok(time) => Ok(Duration::from_micros(time.as_micros())),
                Err(super::stack::PingFailure::NoAddress) => {
                    return Err(SystemError(super::stack::PingFailure::NoAddress.to_string()));
                }
                Err(error) => Err(SystemError::new(error)),
            })
        })
    }
}

fn no_uplink() -> SystemError {
    SystemError::new(
        "the root has no network card: 'dev list' shows what the machine has, and 'root log' why one is not used",
    )
}
