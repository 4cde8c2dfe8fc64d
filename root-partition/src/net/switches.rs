//! Switches made and forgotten by people.

use super::Switches;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use vsp::network::Wire;
use vsp::switch::{Kind, Switch};

/// Switches at most.
const MOST: usize = 64;

/// Why a switch was not made, or not forgotten.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SwitchError {
    /// The name is taken.
    #[error("there is a switch '{0}' already")]
    Exists(String),
    /// No more can be had.
    #[error("there are {MOST} switches already")]
    TooMany,
    /// There is none of the name.
    #[error("there is no switch '{0}': 'switch list' shows those that there are")]
    Unknown(String),
    /// Somebody uses it.
    #[error("switch '{0}' has {1} ports in use: 'net list' shows whose they are")]
    InUse(String, usize),
}

impl Switches {
    /// Makes a switch.
    pub fn create(&self, name: &str, kind: Kind) -> Result<(), SwitchError> {
        let mut wires = self.wires.lock();
        if wires.contains_key(name) {
            return Err(SwitchError::Exists(name.to_string()));
        }
        if wires.len() >= MOST {
            return Err(SwitchError::TooMany);
        }
        wires.insert(name.to_string(), Arc::new(Wire::new(Switch::new(kind))));
        Ok(())
    }

    /// Forgets a switch that has no ports.
    pub fn delete(&self, name: &str) -> Result<(), SwitchError> {
        let mut wires = self.wires.lock();
        let wire = wires.get(name);
        let wire = wire.ok_or_else(|| SwitchError::Unknown(name.to_string()))?;
        match wire.with(|switch| switch.ports().count()) {
            0 => {
                wires.remove(name);
                Ok(())
            }
            ports => Err(SwitchError::InUse(name.to_string(), ports)),
        }
    }

    /// The switch called `name`, if there is one.
    pub fn find(&self, name: &str) -> Result<Arc<Wire>, SwitchError> {
        let wires = self.wires.lock();
        let wire = wires.get(name).cloned();
        wire.ok_or_else(|| SwitchError::Unknown(name.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vsp::switch::port::PortSettings;

    #[test]
    fn a_switch_in_use_is_not_forgotten() {
        let switches = Switches::default();
        switches.create("lab", Kind::Internal).unwrap();
        assert_eq!(
            switches.create("lab", Kind::Private),
            Err(SwitchError::Exists("lab".into()))
        );
        let wire = switches.find("lab").unwrap();
        let port = wire.with(|switch| switch.attach(PortSettings::host(Default::default())).unwrap());
        assert_eq!(switches.delete("lab"), Err(SwitchError::InUse("lab".into(), 1)));
        wire.with(|switch| switch.detach(port));
        switches.delete("lab").unwrap();
        assert_eq!(switches.delete("lab"), Err(SwitchError::Unknown("lab".into())));
    }
}
