//! What the shell knows of the root's own network.

use super::system::{Pending, SystemError};
use alloc::{string::String, vec::Vec};
use core::net::Ipv4Addr;
use core::time::Duration;
use vmbus::protocol::network::Mac;

/// The uplink and the root's stack on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UplinkInfo {
    /// The card's name.
    pub card: String,
    /// Its address.
    pub hardware_address: Mac,
    /// The largest IP packet that it carries.
    pub mtu: u64,
    /// Megabits a second; `None` where there is no link.
    pub link: Option<u32>,
    /// The root's address, with the bits of the network's part.
    pub address: Option<(Ipv4Addr, u8)>,
    /// The way to other networks.
    pub router: Option<Ipv4Addr>,
    /// Name servers.
    pub name_servers: Vec<Ipv4Addr>,
    /// What went through the card.
    pub counters: Vec<CardCounter>,
}

/// A counter of a card.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CardCounter {
    /// For programs.
    pub key: &'static str,
    /// For people.
    pub label: &'static str,
    /// The value.
    pub value: u64,
}

/// A port forward.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForwardInfo {
    /// The root's port: `tcp:8080`.
    pub from: String,
    /// The guest's: `web:80`.
    pub to: String,
    /// The guest's address, once it has one.
    pub address: Option<Ipv4Addr>,
    /// Flows by it that go on.
    pub flows: u64,
}

/// A lease of an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseInfo {
    /// The address.
    pub address: Ipv4Addr,
    /// The card that has it.
    pub mac: Mac,
    /// The virtual machine whose card it is.
    pub machine: Option<String>,
    /// What its system calls itself.
    pub host_name: String,
    /// How long it holds.
    pub left: Duration,
}

/// The gateway of the default switch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GatewayInfo {
    /// Its address, with the bits of the network's part.
    pub address: (Ipv4Addr, u8),
    /// The first and last address that are given out.
    pub pool: (Ipv4Addr, Ipv4Addr),
    /// Leases that hold.
    pub leases: u64,
    /// Flows that go on.
    pub flows: u64,
    /// Flows at most.
    pub max_flows: u64,
    /// Packets that went out.
    pub outward: u64,
    /// Packets that went in.
    pub inward: u64,
    /// Packets that went nowhere, by reason.
    pub dropped: Vec<(&'static str, u64)>,
}

/// The root's network as the shell's commands see it.
pub trait RootNetwork: Sync {
    /// The uplink, if the root has one.
    fn uplink(&self) -> Option<UplinkInfo>;
    /// The gateway of the default switch.
    fn gateway(&self) -> GatewayInfo;
    /// The leases that hold, by address.
    fn leases(&self) -> Vec<LeaseInfo>;
    /// The port forwards.
    fn forwards(&self) -> Vec<ForwardInfo>;
    /// Adds the port forward from `from`, `tcp:8080`, to `to`, `web:80`.
    fn add_forward(&self, from: &str, to: &str) -> Result<(), SystemError>;
    /// Ends a port forward, and what goes by it.
    fn delete_forward(&self, from: &str) -> Result<(), SystemError>;
    /// Waits until the root has an address, or will not have one, at most for `limit`.
    fn wait(&self, limit: Duration) -> Pending<'_, ()>;
    /// The address of `name`, which may be one.
    fn resolve<'a>(&'a self, name: &'a str) -> Pending<'a, Result<Ipv4Addr, SystemError>>;
    /// Sends one ICMP echo request. The inner error is that of one request, after which others may be answered.
    fn ping(
        &self,
        target: Ipv4Addr,
        limit: Duration,
    ) -> Pending<'_, Result<Result<Duration, SystemError>, SystemError>>;
}
