//! `net list`, `net stats`.

use super::super::{Invocation, Outcome, switch::networks};
use super::port;
use crate::shell::{
    output::{Report, Table, Value},
    switches::{PortInfo, PortName, SwitchInfo},
    system::SystemError,
};
use alloc::{format, string::ToString};
use vsp::switch::port::{Drop, PortKind};
use vsp::switch::words::Mirror;

/// Who is in a port, for people and programs.
fn occupant(port: &PortInfo) -> Value {
    match (&port.card, port.port.settings.kind) {
        (Some(card), _) => Value::text(PortName::Card(card.machine.clone(), card.index)),
        (None, PortKind::Host) => Value::text("the root"),
        (None, PortKind::Uplink) => Value::text("uplink"),
        (None, PortKind::Guest) => Value::None,
    }
}

fn mirror(switch: &SwitchInfo, port: &PortInfo) -> Value {
    match switch.mirror == Some(port.id) {
        true => Value::text("takes"),
        false => Value::text(Mirror::name(port.port.settings.mirror)),
    }
}

pub(in super::super) fn list(invocation: &Invocation<'_>) -> Outcome {
    let mut ports = Table::new(
        "ports",
        &[
            ("switch", "switch"),
            ("port", "port"),
            ("card", "card"),
            ("address", "address"),
            ("link", "link"),
            ("mirror", "mirror"),
        ],
    );
    let mut rules = Table::new(
        "rules",
        &[
            ("switch", "switch"),
            ("port", "port"),
            ("vlan", "VLAN"),
            ("limit", "limit"),
            ("guard", "guard"),
        ],
    );
    let mut traffic = Table::new(
        "counters",
        &[
            ("switch", "switch"),
            ("port", "port"),
            ("frames_from", "frames from"),
            ("bytes_from", "from"),
            ("frames_to", "frames to"),
            ("bytes_to", "to"),
            ("dropped", "dropped"),
            ("spoofed", "spoofed"),
            ("no_room", "no room"),
        ],
    );
    for switch in networks(invocation)?.switches() {
        for port in &switch.ports {
            let settings = &port.port.settings;
            let counters = &port.port.counters;
            ports.row([
                Value::text(&switch.name),
                Value::Number(port.id.0.into()),
                occupant(port),
                Value::optional(settings.address),
                match &port.card {
                    Some(card) => Value::text(if card.link { "up" } else { "down" }),
                    None => Value::None,
                },
                mirror(&switch, port),
            ]);
            rules.row([
                Value::text(&switch.name),
                Value::Number(port.id.0.into()),
                Value::Text(settings.vlan.describe()),
                Value::optional(settings.limit.map(|limit| limit.describe())),
                Value::Text(settings.guard.describe()),
            ]);
            traffic.row([
                Value::text(&switch.name),
                Value::Number(port.id.0.into()),
                Value::Number(counters.from_port.frames),
                Value::Bytes(counters.from_port.bytes),
                Value::Number(counters.to_port.frames),
                Value::Bytes(counters.to_port.bytes),
                Value::Number(Drop::ALL.iter().map(|&reason| counters.dropped(reason)).sum()),
                Value::Number(counters.dropped(Drop::Spoofed)),
                Value::Number(counters.dropped(Drop::NoRoom)),
            ]);
        }
    }
    let mut report = Report::table(ports);
    report.push_table(rules);
    report.push_table(traffic);
    Ok(report)
}

pub(in super::super) fn stats(invocation: &Invocation<'_>) -> Outcome {
    let name = port(invocation)?;
    let switches = networks(invocation)?.switches();
    let mut found = switches.iter().flat_map(|switch| {
        let is_meant = |port: &&PortInfo| match (&name, &port.card) {
            (PortName::Port(named, id), _) => *named == switch.name && *id == port.id,
            (PortName::Card(machine, index), Some(card)) => card.machine == *machine && card.index == *index,
            (PortName::Card(..), None) => false,
        };
        switch
            .ports
            .iter()
            .filter(is_meant)
            .map(move |port| (switch, port))
    });
    let (switch, port) = found.next().ok_or_else(|| {
        SystemError::new(format!(
            "there is no port {name}: 'net list' shows those that there are"
        ))
    })?;
    let counters = &port.port.counters;
    let mut report = Report::new();
    report.push_fields(
        "",
        [
            ("switch", "switch", Value::text(&switch.name)),
            ("port", "port", Value::Number(port.id.0.into())),
            ("card", "card", occupant(port)),
            (
                "frames_from",
                "frames from it",
                Value::Number(counters.from_port.frames),
            ),
            (
                "bytes_from",
                "bytes from it",
                Value::Bytes(counters.from_port.bytes),
            ),
            (
                "frames_to",
                "frames to it",
                Value::Number(counters.to_port.frames),
            ),
            ("bytes_to", "bytes to it", Value::Bytes(counters.to_port.bytes)),
        ],
    );
    if let Some(card) = &port.card {
        report.push_fields(
            "",
            [
                ("channels", "channels open", Value::Number(card.channels as u64)),
                ("mtu", "MTU", Value::Number(card.mtu.into())),
                ("refused", "refused by the card", Value::Number(card.refused)),
            ],
        );
    }
    let mut drops = Table::new("dropped", &[("reason", "dropped as"), ("frames", "frames")]);
    for reason in Drop::ALL {
        drops.row([
            Value::Text(reason.name().to_string()),
            Value::Number(counters.dropped(reason)),
        ]);
    }
    report.push_table(drops);
    Ok(report)
}
