//! `switch …`: virtual switches.

use super::{
    Invocation, Outcome,
    arguments::{Argument, Flag},
};
use crate::shell::{
    output::{Report, Table, Value},
    status::Failure,
    switches::Networks,
    system::SystemError,
};
use alloc::{format, string::ToString};
use vsp::switch::Kind;

/// The kinds of switches, by name.
const KINDS: [(&str, Kind); 3] = [
    ("private", Kind::Private),
    ("internal", Kind::Internal),
    ("external", Kind::External),
];

pub(super) const NEW: Argument = Argument {
    name: "NAME",
    help: "What the switch is to be called",
    required: true,
    repeated: false,
    values: None,
};

pub(super) const SWITCH: Argument = Argument {
    name: "SWITCH",
    help: "The switch",
    required: true,
    repeated: false,
    values: Some(|system| {
        let switches = system.machines().map(|machines| machines.switches());
        let switches = switches.unwrap_or_default();
        switches.into_iter().map(|switch| switch.name).collect()
    }),
};

pub(super) const KIND: Flag = Flag {
    name: "--kind",
    value: Some("KIND"),
    help: "private (machines; where not given), internal (and the root), external (and a physical network)",
};

/// Switches and cards.
pub(super) fn networks<'a>(invocation: &Invocation<'a>) -> Result<&'a dyn Networks, SystemError> {
    let machines = invocation.system.machines();
    let machines = machines.ok_or_else(|| SystemError::new("there can be no switches on this system"))?;
    Ok(machines)
}

pub(super) fn kind_name(kind: Kind) -> &'static str {
    let named = KINDS.iter().find(|(_, other)| *other == kind);
    named.map_or("", |(name, _)| name)
}

pub(super) fn list(invocation: &Invocation<'_>) -> Outcome {
    let mut table = Table::new(
        "switches",
        &[
            ("name", "name"),
            ("kind", "kind"),
            ("ports", "ports"),
            ("addresses", "addresses"),
            ("mirror_port", "copies to port"),
        ],
    );
    for switch in networks(invocation)?.switches() {
        table.row([
            Value::text(&switch.name),
            Value::text(kind_name(switch.kind)),
            Value::Number(switch.ports.len() as u64),
            Value::Number(switch.learned as u64),
            switch
                .mirror
                .map_or(Value::None, |port| Value::Number(port.0.into())),
        ]);
    }
    Ok(Report::table(table))
}

pub(super) fn create(invocation: &Invocation<'_>) -> Outcome {
    let arguments = invocation.arguments;
    let wanted = arguments.value(KIND.name).unwrap_or("private");
    let kind = KINDS.iter().find(|(name, _)| *name == wanted);
    let (_, kind) = kind.ok_or_else(|| {
        let names = KINDS.map(|(name, _)| name).join(", ");
        Failure::Usage(format!("switch create: --kind {wanted}: the kinds are {names}"))
    })?;
    let name = arguments.word(0).unwrap_or_default();
    networks(invocation)?.create_switch(name, *kind)?;
    let mut report = Report::new();
    report.push_fields(
        "",
        [
            ("name", "created", Value::Text(name.to_string())),
            ("kind", "kind", Value::text(kind_name(*kind))),
        ],
    );
    Ok(report)
}

pub(super) fn delete(invocation: &Invocation<'_>) -> Outcome {
    networks(invocation)?.delete_switch(invocation.arguments.word(0).unwrap_or_default())?;
    Ok(Report::new())
}
