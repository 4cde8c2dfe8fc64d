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

/// The root's network as the shell's commands see it.
pub trait RootNetwork: Sync {
    /// The uplink, if the root has one.
    fn uplink(&self) -> Option<UplinkInfo>;
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
