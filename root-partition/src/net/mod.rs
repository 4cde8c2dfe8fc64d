//! The network of the root: the virtual switches, by name.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use spin::Mutex;
use vsp::network::Wire;
use vsp::switch::{Kind, Switch};

/// The switch of network cards for which none is named.
pub const DEFAULT_SWITCH: &str = "default";

/// The switches.
#[derive(Default)]
pub struct Switches {
    wires: Mutex<BTreeMap<String, Arc<Wire>>>,
}

impl Switches {
    /// The switch called `name`. One that is not there yet is made, a private one, and stays.
    pub fn named(&self, name: &str) -> Arc<Wire> {
        let mut wires = self.wires.lock();
        let new = || Arc::new(Wire::new(Switch::new(Kind::Private)));
        wires.entry(name.to_string()).or_insert_with(new).clone()
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
