//! The network of the root: the virtual switches, by name; the uplink; the root's own stack.
//!
//! ```text
//! guests ── switch "default" ── gateway ── root's port of ── switch "external" ── network card
//!                                             └─ the root's stack
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`start`] | bringing it all up: read this first |
//! | [`capture`] | frames of a port as a pcap file |
//! | [`config`] | `network.toml` |
//! | [`gateway`] | the way out for guests: DHCP, name servers, address translation, port forwards |
//! | [`uplink`] | a physical card in its port |
//! | [`host_port`] | the root in its port |
//! | [`ping`] | ICMP echo requests of the root |
//! | [`stack`] | the root's TCP/IP stack |
//! | [`switches`] | switches that people make and forget |

pub mod capture;
pub mod config;
pub mod gateway;
pub mod host_port;
mod ping;
mod shell;
pub mod stack;
pub mod start;
mod switches;
pub mod uplink;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use spin::{Mutex, Once};
use vmbus::protocol::network::Mac;
use vsp::network::Wire;
use vsp::switch::{Kind, Switch};

/// The switch of network cards for which none is named.
pub const DEFAULT_SWITCH: &str = "default";

/// The switch that has the physical network on it.
pub const EXTERNAL_SWITCH: &str = "external";

/// The switches.
#[derive(Default)]
pub struct Switches {
    wires: Mutex<BTreeMap<String, Arc<Wire>>>,
    registrar: Once<Registrar>,
}

/// Who is told of each card of a virtual machine: its address, and the machine's name.
pub type Registrar = Box<dyn Fn(Mac, &str) + Send + Sync>;

impl Switches {
    /// The switch called `name`. One that is not there yet is made, a private one, and stays.
    pub fn named(&self, name: &str) -> Arc<Wire> {
        let mut wires = self.wires.lock();
        let new = || Arc::new(Wire::new(Switch::new(Kind::Private)));
        wires.entry(name.to_string()).or_insert_with(new).clone()
    }

    /// Adds a switch, unless there is one of the name.
    pub fn add(&self, name: &str, wire: Arc<Wire>) -> bool {
        let mut wires = self.wires.lock();
        let is_new = !wires.contains_key(name);
        if is_new {
            wires.insert(name.to_string(), wire);
        }
        is_new
    }

    /// Has `registrar` told of all cards from now on; only the first counts.
    pub fn register_with(&self, registrar: Registrar) {
        self.registrar.call_once(|| registrar);
    }

    /// The virtual machine `machine` has a card with this address.
    pub fn introduce(&self, card: Mac, machine: &str) {
        if let Some(registrar) = self.registrar.get() {
            registrar(card, machine);
        }
    }

    /// All, by name.
    pub fn all(&self) -> Vec<(String, Arc<Wire>)> {
        let wires = self.wires.lock();
        wires
            .iter()
            .map(|(name, wire)| (name.clone(), wire.clone()))
            .collect()
    }
}
