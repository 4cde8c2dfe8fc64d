//! `switch list`, `net list`: switches, and the cards that are plugged into them.

use alloc::format;

use super::{Invocation, Outcome};
use crate::shell::output::{Report, Table, Value};
use crate::shell::{machines::SwitchInfo, system::SystemError};
use alloc::vec::Vec;
use vsp::switch::port::Drop;
use vsp::switch::vlan::VlanMode;

fn switches(invocation: &Invocation<'_>) -> Result<Vec<SwitchInfo>, SystemError> {
    let machines = invocation.system.machines();
    machines
        .map(|machines| machines.switches())
        .ok_or_else(|| SystemError::new("there can be no switches on this system"))
}

pub(super) fn list(invocation: &Invocation<'_>) -> Outcome {
    let mut table = Table::new(
        "switches",
        &[
            ("name", "name"),
            ("kind", "kind"),
            ("ports", "ports"),
            ("addresses", "addresses"),
        ],
    );
    for switch in switches(invocation)? {
        table.row([
            Value::text(&switch.name),
            Value::Text(format!("{:?}", switch.kind).to_lowercase()),
            Value::Number(switch.ports.len() as u64),
            Value::Number(switch.learned as u64),
        ]);
    }
    Ok(Report::table(table))
}

pub(super) fn ports(invocation: &Invocation<'_>) -> Outcome {
    let columns = [
        ("switch", "switch"),
        ("port", "port"),
        ("address", "address"),
        ("vlan", "VLAN"),
    ];
    let mut cards = Table::new("ports", &columns);
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
    for switch in switches(invocation)? {
        for (id, port) in switch.ports {
            let counters = &port.counters;
            let vlan = match port.settings.vlan {
                VlanMode::Access(vlan) => u64::from(vlan.0),
                VlanMode::Trunk { native, .. } => native.0.into(),
            };
            cards.row([
                Value::text(&switch.name),
                Value::Number(id.0.into()),
                Value::optional(port.settings.address),
                Value::Number(vlan),
            ]);
            traffic.row([
                Value::text(&switch.name),
                Value::Number(id.0.into()),
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
    let mut report = Report::table(cards);
    report.push_table(traffic);
    Ok(report)
}
