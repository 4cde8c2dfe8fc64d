//! `net vlan`, `net limit`, `net guard`, `net mirror`, `net link`.

use super::super::{
    Invocation, Outcome,
    arguments::{Argument, Flag},
    switch::networks,
};
use super::{port, read};
use crate::shell::{output::Report, status::Failure, switches::PortChange};
use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use vsp::switch::guard::Guards;
use vsp::switch::limit::Limit;
use vsp::switch::vlan::{VlanId, VlanMode, VlanSet};
use vsp::switch::words::{GUARD_RULE, LIMIT_RULE, MIRROR_RULE, Mirror, TRUNK_RULE, VLAN_RULE};

const fn argument(
    name: &'static str,
    help: &'static str,
    values: fn(&dyn crate::shell::system::System) -> Vec<String>,
) -> Argument {
    Argument {
        name,
        help,
        required: true,
        repeated: false,
        values: Some(values),
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

pub(in super::super) const VLAN: Argument = argument(
    "VLAN",
    "1 to 4094, or none; with --trunk that of frames without a tag",
    |_| words(&["none"]),
);

pub(in super::super) const TRUNK: Flag = Flag {
    name: "--trunk",
    value: Some("VLANS"),
    help: "Further VLANs, whose frames have tags: 5,7-9 or all",
};

pub(in super::super) const RATE: Argument =
    argument("RATE", "How much it may send, as in 100Mbit, or none", |_| {
        words(&["none"])
    });

pub(in super::super) const GUARDS: Argument = argument(
    "GUARDS",
    "What it may not send: all, none, or some of mac,dhcp,router",
    |_| words(&["all", "none", "mac", "dhcp", "router"]),
);

pub(in super::super) const MIRROR: Argument = argument(
    "WHAT",
    "Frames to copy: sent, received, both, none; takes: get the copies",
    |_| words(&["sent", "received", "both", "none", "takes"]),
);

pub(in super::super) const LINK: Argument = argument("STATE", "up or down", |_| words(&["up", "down"]));

/// The second argument. Its row requires it.
fn second<'a>(invocation: &'a Invocation<'_>) -> &'a str {
    invocation.arguments.word(1).unwrap_or_default()
}

fn change(invocation: &Invocation<'_>, change: PortChange) -> Outcome {
    networks(invocation)?.change_port(&port(invocation)?, change)?;
    Ok(Report::new())
}

/// The VLANs of a port: `vlan`, and behind tags those of `trunk`.
pub(super) fn vlans(command: &str, vlan: &str, trunk: Option<&str>) -> Result<VlanMode, Failure> {
    let vlan = read(command, vlan, VLAN_RULE, VlanId::parse)?;
    Ok(match trunk {
        Some(trunk) => VlanMode::Trunk {
            native: vlan,
            allowed: read("--trunk", trunk, TRUNK_RULE, VlanSet::parse)?,
        },
        None => VlanMode::Access(vlan),
    })
}

pub(in super::super) fn vlan(invocation: &Invocation<'_>) -> Outcome {
    let trunk = invocation.arguments.value(TRUNK.name);
    let vlan = vlans("net vlan:", second(invocation), trunk)?;
    change(invocation, PortChange::Vlan(vlan))
}

pub(in super::super) fn limit(invocation: &Invocation<'_>) -> Outcome {
    let limit = read("net limit:", second(invocation), LIMIT_RULE, Limit::parse)?;
    change(invocation, PortChange::Limit(limit))
}

pub(in super::super) fn guard(invocation: &Invocation<'_>) -> Outcome {
    let guard = read("net guard:", second(invocation), GUARD_RULE, Guards::parse)?;
    change(invocation, PortChange::Guard(guard))
}

pub(in super::super) fn mirror(invocation: &Invocation<'_>) -> Outcome {
    let mirror = read("net mirror:", second(invocation), MIRROR_RULE, Mirror::parse)?;
    change(invocation, PortChange::Mirror(mirror))
}

pub(in super::super) fn link(invocation: &Invocation<'_>) -> Outcome {
    let up = read(
        "net link:",
        second(invocation),
        "give up or down",
        |text| match text {
            "up" => Some(true),
            "down" => Some(false),
            _ => None,
        },
    )?;
    change(invocation, PortChange::Link(up))
}
