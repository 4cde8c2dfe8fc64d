//! `vm …`: virtual machines.
//!
//! | module | holds |
//! |---|---|
//! | [`console`] | `vm console` |
//! | [`control`] | what changes a machine's state |
//! | [`inspect`] | `vm regs`, `vm stats`, `vm dump` |
//! | [`show`] | `vm list`, `vm show`, `vm log` |

pub(super) mod console;
pub(super) mod control;
pub(super) mod inspect;
pub(super) mod show;

#[cfg(test)]
mod tests;

use alloc::{string::String, vec::Vec};

use super::{Invocation, arguments::Argument};
use crate::shell::{
    machines::Machines,
    status::Failure,
    system::{System, SystemError},
};

/// A machine that there is, or that is described.
pub(super) const MACHINE: Argument = Argument {
    name: "NAME",
    help: "The virtual machine",
    required: true,
    repeated: false,
    values: Some(machine_names),
};

/// A description.
pub(super) const DESCRIPTION: Argument = Argument {
    name: "DESCRIPTION",
    help: "Its description: web for the boot archive's vms/web.toml",
    required: true,
    repeated: false,
    values: Some(|system| {
        system
            .machines()
            .map(|machines| machines.descriptions())
            .unwrap_or_default()
    }),
};

fn machine_names(system: &dyn System) -> Vec<String> {
    let Some(machines) = system.machines() else {
        return Vec::new();
    };
    let existing = machines.list().into_iter().map(|machine| machine.name);
    existing.chain(machines.descriptions()).collect()
}

/// The machines.
pub(super) fn machines<'a>(invocation: &'a Invocation<'a>) -> Result<&'a dyn Machines, Failure> {
    let machines = invocation.system.machines();
    machines.ok_or_else(|| SystemError::new("there can be no virtual machines on this system").into())
}

/// The machine that was named. Its row requires it.
pub(super) fn name<'a>(invocation: &'a Invocation<'a>) -> &'a str {
    invocation.arguments.word(0).unwrap_or_default()
}
