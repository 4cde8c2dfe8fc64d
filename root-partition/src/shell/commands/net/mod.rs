//! `net …`: network cards of machines, and the ports that they are in.
//!
//! | module | holds |
//! |---|---|
//! | [`card`] | `net attach`, `net detach` |
//! | [`capture`] | `net capture` |
//! | [`port`] | what changes a port |
//! | [`show`] | `net list`, `net stats` |

pub(super) mod capture;
pub(super) mod card;
pub(super) mod port;
pub(super) mod show;

#[cfg(test)]
mod tests;

use super::{Invocation, arguments::Argument};
use crate::shell::{status::Failure, switches::PortName, system::System};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

/// A port, by its card or its number.
pub(super) const PORT: Argument = Argument {
    name: "PORT",
    help: "web or web/0 for the machine web's first card, or SWITCH:NUMBER",
    required: true,
    repeated: false,
    values: Some(port_names),
};

fn port_names(system: &dyn System) -> Vec<String> {
    let switches = system.machines().map(|machines| machines.switches());
    let mut names = Vec::new();
    for switch in switches.unwrap_or_default() {
        for port in switch.ports {
            names.push(match port.card {
                Some(card) => PortName::Card(card.machine, card.index).to_string(),
                None => PortName::Port(switch.name.clone(), port.id).to_string(),
            });
        }
    }
    names
}

/// The port that was named. Its row requires it.
fn port(invocation: &Invocation<'_>) -> Result<PortName, Failure> {
    let text = invocation.arguments.word(0).unwrap_or_default();
    PortName::parse(text).ok_or_else(|| {
        Failure::Usage(format!(
            "'{text}' is no port: give a machine's card, as in 'web' or 'web/1', or a switch's port, as in 'default:3'"
        ))
    })
}

/// Reads a word, or says by `rule` how it is to be.
fn read<T>(what: &str, text: &str, rule: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Failure> {
    parse(text).ok_or_else(|| Failure::Usage(format!("{what} {text}: {rule}")))
}
