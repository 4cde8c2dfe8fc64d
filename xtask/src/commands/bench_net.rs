//! `cargo xtask bench net`: what frames cost on the host, and what TCP costs between two children on a machine: two of ours here, two
//! of Debian in `bench_net_debian`.
//!
//! Instructions on the host are callgrind's; on the machine, all that it executes between two readings of the time stamp counter, the
//! hypervisor's, the root's and both children's.

use anyhow::{Result, bail};

use super::bench_reply::reply;
use super::bench_row::Row;
use super::callgrind::Program;
use super::cost::{Cost, Side};
use crate::images;
use crate::machine::Machine;
use crate::outcome::{ExitKind, Outcome};

/// Frames that are counted, beside as many again.
const ROUNDS: u64 = 4000;
/// Bytes that a stream between children has more in the longer run.
const BULK: u64 = 32 << 20;
/// What the machine's console is asked for.
const CONSOLE: &str = "vm console talks --dump --json";
/// The root's counters, and the guests'.
const ROOT: &str = "hv stats --json";
const GUESTS: [&str; 2] = ["vm stats talks --json", "vm stats listens --json"];

/// What is counted on the host, what that is called, and the target in instructions.
const COUNTED: [(&str, &str, Option<f64>); 4] = [
    ("there", "small frame, driver to switch", Some(900.0)),
    ("back", "small frame, switch to driver", Some(900.0)),
    ("across", "small frame, driver to driver", None),
    ("switch", "small frame, through the switch alone", Some(1500.0)),
];

/// Builds the benchmark and counts.
pub fn measure_host() -> Result<Vec<Row>> {
    let program = Program::build("bench-network")?;
    let row = |(what, name, at_most): (&str, &str, Option<f64>)| {
        let counted = program.instructions(&["count", what], ROUNDS);
        Row::instructions(name, counted.ok().map(f64::round), at_most)
    };
    Ok(COUNTED.map(row).into())
}

/// How much two children do with each other.
#[derive(Clone, Copy)]
pub(super) struct Load {
    /// Round trips of 64 bytes.
    pub rounds: u64,
    /// Bytes of a stream there, and of one back.
    pub bytes: u64,
}

/// Two children, `talks` and `listens`, that are measured.
pub(super) struct Pair<'a> {
    /// What they are called.
    pub name: &'a str,
    /// A machine on which they do a load, [`with_commands`].
    pub run: &'a dyn Fn(Load) -> Result<Outcome>,
    /// Most instructions of a round trip.
    pub round_trip: f64,
    /// Least MiB of a stream for 10^9 instructions.
    pub stream: f64,
}

/// The least that is done; what comes on top of it is what is shared out.
const BASE: Load = Load {
    rounds: 101,
    bytes: 8 << 20,
};
const MORE_ROUNDS: Load = Load { rounds: 501, ..BASE };
const MORE_BYTES: Load = Load {
    bytes: BASE.bytes + BULK,
    ..BASE
};

/// The rows of two children of ours that talk over a switch, the last machine's end, and where the instructions went.
pub fn measure_machine() -> Result<(Vec<Row>, Outcome, String)> {
    images::built()?;
    measure_pair(&Pair {
        name: "child - child",
        run: &run,
        round_trip: 60_000.0,
        stream: 600.0,
    })
}

/// The same of any two children. Each load has a machine of its own, which ends with it.
pub(super) fn measure_pair(pair: &Pair<'_>) -> Result<(Vec<Row>, Outcome, String)> {
    let mut done = Vec::new();
    for load in [BASE, MORE_ROUNDS, MORE_BYTES] {
        let outcome = (pair.run)(load)?;
        let said = console(&outcome.serial);
        if outcome.status != ExitKind::Success {
            return Ok((rows(pair, &said, &said), outcome, String::new()));
        }
        done.push((said, cost(&outcome.serial), outcome));
    }
    let [
        (_, base, _),
        (rounds, more_rounds, _),
        (bytes, more_bytes, outcome),
    ] = &done[..]
    else {
        bail!("nothing was measured");
    };
    let mut text = String::new();
    for (title, more, count) in [
        (
            "a round trip of 64 bytes",
            more_rounds,
            MORE_ROUNDS.rounds - BASE.rounds,
        ),
        (
            "a KiB of a stream, half of them each way",
            more_bytes,
            (2 * BULK) >> 10,
        ),
    ] {
        let (Some(base), Some(more)) = (base, more) else {
            bail!("a machine left no counters");
        };
        let each = more.since(base).each(count as f64);
        text.push_str(&each.text(&format!(
            "{}: {title}: {:.0} instructions, of which (both guests as one)",
            pair.name,
            each.spent()
        )));
    }
    Ok((rows(pair, rounds, bytes), outcome.clone(), text))
}

/// A machine with two children, of which one asks and the other answers.
fn run(load: Load) -> Result<Outcome> {
    let guest = |words: &str| {
        format!(
            "processors = 1\nmemory = \"64MiB\"\nkernel = \"kernels/chat\"\ncommand_line = \"chat bench stay {words}\"\n[[network]]\nswitch = \"bench\"\n"
        )
    };
    let talks = format!(
        "ip=10.0.0.2/24 peer=10.0.0.1 rounds={} bulk={}",
        load.rounds, load.bytes
    );
    let machine = Machine::new()
        .icount(true)
        .file("vms/listens.toml", guest("listen ip=10.0.0.1/24").as_bytes())
        .file("vms/talks.toml", guest(&talks).as_bytes());
    with_commands(machine, "chat: listening", "chat: staying").run()
}

/// Has the machine's two children do their load on a switch, and ends with what their console and the counters say. Each says when it is
/// ready, or done.
pub(super) fn with_commands(machine: Machine, listening: &str, done: &str) -> Machine {
    let [listening, done] = [("listens", listening), ("talks", done)]
        .map(|(name, text)| format!("vm wait {name} --text '{text}'"));
    machine
        .exec(&["switch create bench", "vm start listens", &listening])
        .exec(&["vm start talks", &done])
        .exec(&[ROOT, GUESTS[0], GUESTS[1], CONSOLE])
}

/// What the guest that asks has printed.
fn console(serial: &str) -> String {
    let said = reply(serial, CONSOLE);
    let said = said.as_ref().and_then(|said| said["text"].as_str());
    said.unwrap_or_default().to_owned()
}

/// What a machine has cost, both guests as one.
fn cost(serial: &str) -> Option<Cost> {
    let side = |command| Side::read(&reply(serial, command)?);
    Some(Cost {
        guest: side(GUESTS[0])?.and(&side(GUESTS[1])?),
        root: side(ROOT)?,
    })
}

/// What a guest has measured: the last two numbers of its line `bench: NAME A B`.
fn line(said: &str, name: &str) -> Option<(f64, f64)> {
    let mut lines = said
        .lines()
        .filter_map(|line| line.trim().strip_prefix("bench: "));
    lines.find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        [found, first, second] if found == name => Some((first.parse().ok()?, second.parse().ok()?)),
        _ => None,
    })
}

/// The rows of what was said by the guest with round trips, and the one with streams.
fn rows(pair: &Pair<'_>, rounds: &str, streams: &str) -> Vec<Row> {
    let row = |name: &str, measured: Option<f64>, unit: &str, at_most| Row {
        name: name.into(),
        measured,
        unit: unit.into(),
        at_most,
    };
    let round_trip = line(rounds, "round-trip");
    let mut rows = vec![
        row(
            &format!("TCP, 64 bytes there and back, {}", pair.name),
            round_trip.map(|(_, median)| median),
            "instructions",
            Some(pair.round_trip),
        ),
        row(
            "the same, at best",
            round_trip.map(|(least, _)| least),
            "instructions",
            None,
        ),
    ];
    let stream = format!("TCP stream, {}", pair.name);
    for (name, what) in [
        ("bulk", stream.as_str()),
        ("bulk-back", "the same, the other way"),
    ] {
        let measured = line(streams, name);
        rows.push(row(
            &format!("{what}, a KiB"),
            measured.map(|(bytes, ticks)| (ticks / (bytes / 1024.0)).round()),
            "instructions",
            Some((1e9 / (pair.stream * 1024.0)).round()),
        ));
        rows.push(row(
            &format!("{what}, for 10^9 instructions"),
            measured.map(|(bytes, ticks)| (bytes / f64::from(1 << 20) / (ticks / 1e9)).round()),
            "MiB",
            None,
        ));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_says_becomes_rows() {
        let pair = Pair {
            name: "one - other",
            run: &|_| bail!("it is not run"),
            round_trip: 60_000.0,
            stream: 600.0,
        };
        let rows = rows(
            &pair,
            "chat: x\r\nbench: round-trip 40000 41000\r\n",
            "bench: bulk 1048576 1000000\r\n",
        );
        assert_eq!(rows[0].measured, Some(41_000.0));
        assert_eq!(rows[2].measured, Some(977.0));
        assert_eq!(rows[3].measured, Some(1000.0));
        assert!(rows[2].ok() && !rows[4].ok());
    }
}
