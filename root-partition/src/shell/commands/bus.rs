//! `bus list`: the channels of virtual machines.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use super::{Invocation, Outcome, arguments::Argument, vm};
use crate::shell::{
    machines::{ChannelInfo, Fill, Machines},
    output::{Report, Table, Value},
};

/// A machine, or all that have a bus.
pub(super) const MACHINE: Argument = Argument {
    required: false,
    help: "The virtual machine, in place of all that are not off",
    ..vm::MACHINE
};

pub(super) fn list(invocation: &Invocation<'_>) -> Outcome {
    let machines = vm::machines(invocation)?;
    let names = match invocation.arguments.word(0) {
        Some(name) => alloc::vec![name.to_string()],
        None => with_bus(machines),
    };
    let mut channels = Table::new(
        "channels",
        &[
            ("machine", "machine"),
            ("relid", "channel"),
            ("device", "device"),
            ("instance", ""),
            ("backend", "backend"),
            ("sub_channel", "sub"),
            ("state", "state"),
            ("vp", "VP"),
            ("root_vp", "root VP"),
            ("to_host_used_bytes", ""),
            ("to_host_bytes", ""),
            ("to_guest_used_bytes", ""),
            ("to_guest_bytes", ""),
            ("", "to host"),
            ("", "to guest"),
        ],
    );
    let mut counters = Table::new(
        "counters",
        &[
            ("machine", "machine"),
            ("relid", "channel"),
            ("received", "received"),
            ("sent", "sent"),
            ("wakes", "wakes"),
            ("signals", "signals"),
        ],
    );
    for name in &names {
        for channel in machines.channels(name)? {
            if let Some(open) = &channel.open {
                counters.row([
                    Value::text(name),
                    number(channel.relid),
                    Value::Number(open.received),
                    Value::Number(open.sent),
                    Value::Number(open.wakes),
                    Value::Number(open.signals),
                ]);
            }
            channels.row(row(name, channel));
        }
    }
    let mut report = Report::table(channels);
    report.push_table(counters);
    Ok(report)
}

fn with_bus(machines: &dyn Machines) -> Vec<String> {
    let all = machines.list().into_iter();
    all.filter(|machine| machine.partition.is_some())
        .map(|machine| machine.name)
        .collect()
}

fn row(machine: &str, channel: ChannelInfo) -> [Value; 15] {
    let open = channel.open;
    let fill = |which: usize| open?.fill?.get(which).copied();
    let (to_host, to_guest) = (fill(0), fill(1));
    let used = |fill: Option<Fill>| number(fill.map(|fill| fill.used));
    let size = |fill: Option<Fill>| number(fill.map(|fill| fill.size));
    [
        Value::text(machine),
        number(channel.relid),
        Value::text(channel.device),
        Value::text(channel.instance),
        Value::optional((!channel.backend.is_empty()).then_some(channel.backend)),
        Value::Number(channel.sub_channel.into()),
        Value::text(channel.state),
        number(open.map(|open| open.vp)),
        number(open.map(|open| open.root_vp)),
        used(to_host),
        size(to_host),
        used(to_guest),
        size(to_guest),
        Value::optional(to_host.map(part)),
        Value::optional(to_guest.map(part)),
    ]
}

fn number(value: Option<u32>) -> Value {
    value.map_or(Value::None, |value| Value::Number(value.into()))
}

/// How much of a ring is used.
fn part(fill: Fill) -> String {
    format!("{} %", u64::from(fill.used) * 100 / u64::from(fill.size.max(1)))
}

#[cfg(test)]
mod tests {
    use crate::shell::fake::{FakeSystem, FakeTerminal, block_on};
    use crate::shell::session::Session;
    use alloc::{boxed::Box, string::String};

    fn run(line: &str) -> (u8, String) {
        let terminal = FakeTerminal::typing(b"");
        let system = FakeSystem::new();
        let mut session = Session::new(&system, Box::new(terminal.clone()));
        let status = block_on(session.run_line(line));
        (status.0, terminal.output().replace("\r\n", "\n"))
    }

    #[test]
    fn channels_are_listed_with_their_rings_and_counters() {
        assert_eq!(
            run("bus list web"),
            (
                0,
                String::from(
                    "MACHINE  CHANNEL  DEVICE  BACKEND  SUB  STATE    VP  ROOT VP  TO HOST  TO GUEST\n\
                     web            1  echo    -          0  open      1        0  25 %     0 %\n\
                     web      -        echo    -          0  waiting  -   -        -        -\n\
                     \n\
                     MACHINE  CHANNEL  RECEIVED  SENT  WAKES  SIGNALS\n\
                     web            1        12    11      5        4\n"
                )
            )
        );
    }

    #[test]
    fn without_a_name_all_machines_that_are_not_off_are_listed() {
        let (status, output) = run("bus list --json");
        assert_eq!(status, 0);
        assert!(
            output.contains(r#""machine":"web","relid":1,"device":"echo""#),
            "{output}"
        );
        assert!(
            output.contains(r#""to_host_used_bytes":4096,"to_host_bytes":16384"#),
            "{output}"
        );
        assert_ne!(run("bus list nobody").0, 0);
    }
}
