//! `net forward …`, `net leases`, `net gateway`: the way of guests to the outside, and back.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use super::{Invocation, Outcome, arguments::Argument, dispatch::closest, network::network};
use crate::net::gateway::forwards::{Target, read_to};
use crate::shell::{
    output::{Report, Table, Value},
    system::{System, SystemError},
};

pub(super) const FROM: Argument = Argument {
    name: "FROM",
    help: "A port of the root, as in tcp:8080",
    required: true,
    repeated: false,
    values: None,
};

pub(super) const FORWARDED: Argument = Argument {
    values: Some(|system| {
        let forwards = system.network().map(|network| network.forwards());
        let names = forwards.unwrap_or_default().into_iter();
        names.map(|forward| forward.from).collect()
    }),
    ..FROM
};

pub(super) const TO: Argument = Argument {
    name: "TO",
    help: "A port of a virtual machine or an address, as in web:80",
    required: true,
    repeated: false,
    values: Some(|system| machines(system).iter().map(|name| format!("{name}:")).collect()),
};

/// The names of all machines, those that were only described included.
fn machines(system: &dyn System) -> Vec<String> {
    let Some(machines) = system.machines() else {
        return Vec::new();
    };
    let made = machines.list().into_iter().map(|machine| machine.name);
    let mut names: Vec<String> = made.chain(machines.descriptions()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

pub(super) fn add(invocation: &Invocation<'_>) -> Outcome {
    let word = |index| invocation.arguments.word(index).unwrap_or_default();
    let network = network(invocation)?;
    if let Ok((Target::Machine(name), _)) = read_to(word(1)) {
        let names = machines(invocation.system);
        if !names.contains(&name) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let advice = match closest(&name, &names) {
                Some(near) => format!("did you mean '{near}'?"),
                None => "'vm list' shows those that there are".to_string(),
            };
            return Err(SystemError(format!("there is no virtual machine '{name}': {advice}")).into());
        }
    }
    network.add_forward(word(0), word(1))?;
    Ok(Report::new())
}

pub(super) fn delete(invocation: &Invocation<'_>) -> Outcome {
    let from = invocation.arguments.word(0).unwrap_or_default();
    network(invocation)?.delete_forward(from)?;
    Ok(Report::new())
}

pub(super) fn list(invocation: &Invocation<'_>) -> Outcome {
    let mut table = Table::new(
        "forwards",
        &[
            ("from", "from"),
            ("to", "to"),
            ("address", "address now"),
            ("flows", "flows"),
        ],
    );
    for forward in network(invocation)?.forwards() {
        table.row([
            Value::text(forward.from),
            Value::text(forward.to),
            Value::optional(forward.address),
            Value::Number(forward.flows),
        ]);
    }
    Ok(Report::table(table))
}

pub(super) fn leases(invocation: &Invocation<'_>) -> Outcome {
    let columns = [
        ("address", "address"),
        ("mac", "MAC address"),
        ("machine", "machine"),
        ("host_name", "calls itself"),
        ("left_ns", "holds for"),
    ];
    let mut table = Table::new("leases", &columns);
    for lease in network(invocation)?.leases() {
        table.row([
            Value::text(lease.address),
            Value::text(lease.mac),
            Value::optional(lease.machine),
            Value::optional(Some(lease.host_name).filter(|name| !name.is_empty())),
            Value::Nanoseconds(u64::try_from(lease.left.as_nanos()).unwrap_or(u64::MAX)),
        ]);
    }
    Ok(Report::table(table))
}

pub(super) fn gateway(invocation: &Invocation<'_>) -> Outcome {
    let gateway = network(invocation)?.gateway();
    let mut report = Report::new();
    let (address, prefix) = gateway.address;
    report.push_fields(
        "",
        [
            ("address", "address", Value::Text(format!("{address}/{prefix}"))),
            ("first", "gives out from", Value::text(gateway.pool.0)),
            ("last", "to", Value::text(gateway.pool.1)),
            ("leases", "leases", Value::Number(gateway.leases)),
            ("flows", "flows", Value::Number(gateway.flows)),
            ("flows_max", "  at most", Value::Number(gateway.max_flows)),
            ("outward", "packets out", Value::Number(gateway.outward)),
            ("inward", "packets in", Value::Number(gateway.inward)),
        ],
    );
    let mut table = Table::new("dropped", &[("reason", "dropped"), ("packets", "packets")]);
    for (reason, count) in gateway.dropped {
        table.row([Value::text(reason), Value::Number(count)]);
    }
    report.push_table(table);
    Ok(report)
}
