//! `vm list`, `vm show`, `vm log`.

use alloc::format;
use core::time::Duration;

use super::{machines, name};
use crate::shell::{
    commands::{Invocation, Outcome},
    machines::{MachineInfo, MachineState},
    output::{Report, Table, Value},
};

pub(in super::super) fn list(invocation: &Invocation<'_>) -> Outcome {
    let machines = machines(invocation)?;
    let mut table = Table::new(
        "machines",
        &[
            ("name", "name"),
            ("state", "state"),
            ("since_ns", "for"),
            ("processors", "VPs"),
            ("memory_bytes", "memory"),
            ("partition", "partition"),
            ("starts", "starts"),
        ],
    );
    for machine in machines.list() {
        table.row([
            Value::text(&machine.name),
            Value::text(machine.state),
            nanoseconds(machine.since),
            Value::Number(machine.processors.into()),
            Value::Bytes(machine.memory),
            partition(&machine),
            Value::Number(machine.starts),
        ]);
    }
    let mut report = Report::table(table);
    report.push_fields(
        "",
        [(
            "descriptions",
            "descriptions",
            Value::texts(machines.descriptions()),
        )],
    );
    Ok(report)
}

pub(in super::super) fn run(invocation: &Invocation<'_>) -> Outcome {
    let machine = machines(invocation)?.show(name(invocation))?;
    let mut report = Report::new();
    let share = |percent: u64| Value::Text(format!("{percent} %"));
    report.push_fields(
        "",
        [
            ("name", "name", Value::text(&machine.name)),
            ("state", "state", Value::text(machine.state)),
            ("since_ns", "for", nanoseconds(machine.since)),
            ("partition", "partition", partition(&machine)),
            ("starts", "starts", Value::Number(machine.starts)),
            (
                "processors",
                "processors",
                Value::Number(machine.processors.into()),
            ),
            ("memory_bytes", "memory", Value::Bytes(machine.memory)),
            (
                "hypervisor_bytes",
                "  hypervisor",
                machine.kept.map_or(Value::None, Value::Bytes),
            ),
            ("kernel", "kernel", Value::text(&machine.kernel)),
            ("modules", "modules", Value::texts(&machine.modules)),
            ("command_line", "command line", Value::text(&machine.command_line)),
            ("console", "console", Value::text(machine.console)),
            ("weight", "weight", Value::Number(machine.weight)),
            ("cap", "cap", machine.cap.map_or(Value::None, share)),
            ("reserve", "reserve", share(machine.reserve)),
            (
                "heartbeat",
                "heartbeat",
                Value::optional(machine.heartbeat.clone()),
            ),
        ],
    );
    if !machine.disks.is_empty() {
        report.push_table(disks(&machine));
    }
    if !machine.guest.is_empty() {
        let mut told = Table::new("guest", &[("name", "guest"), ("value", "value")]);
        for (name, value) in &machine.guest {
            told.row([Value::text(name), Value::text(value)]);
        }
        report.push_table(told);
    }
    if machine.state == MachineState::Crashed {
        report.push_remark("'vm log' tells why it crashed, 'vm regs' where");
    }
    Ok(report)
}

fn disks(machine: &MachineInfo) -> Table {
    let columns = [
        ("lun", "LUN"),
        ("kind", "kind"),
        ("source", "source"),
        ("read_only", "read-only"),
    ];
    let mut table = Table::new("disks", &columns);
    for disk in &machine.disks {
        table.row([
            Value::Number(disk.lun.into()),
            Value::text(disk.kind),
            Value::optional(disk.source.clone()),
            Value::Flag(disk.read_only),
        ]);
    }
    table
}

pub(in super::super) fn log(invocation: &Invocation<'_>) -> Outcome {
    let mut table = Table::new("events", &[("time_ns", "time"), ("event", "event")]);
    for event in machines(invocation)?.log(name(invocation))? {
        table.row([nanoseconds(event.time), Value::text(event.text)]);
    }
    Ok(Report::table(table))
}

fn partition(machine: &MachineInfo) -> Value {
    machine.partition.map_or(Value::None, Value::Hex)
}

fn nanoseconds(time: Duration) -> Value {
    Value::Nanoseconds(time.as_nanos().try_into().unwrap_or(u64::MAX))
}
