//! `cargo xtask bench net`: what frames cost on the host, and what TCP costs between two children on a machine.
//!
//! Instructions on the host are callgrind's; on the machine, all that it executes between two readings of the time stamp counter, the
//! hypervisor's, the root's and both children's.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::bench::{Row, reply};
use super::bench_ring::collected;
use crate::machine::Machine;
use crate::outcome::Outcome;
use crate::{images, paths};

/// Frames that are counted, beside as many again.
const ROUNDS: u64 = 4000;
/// Bytes of a stream between children.
const BULK: u64 = 64 << 20;
/// What the machine's console is asked for.
const CONSOLE: &str = "vm console talks --dump --json";

/// What is counted on the host, what that is called, and the target in instructions.
const COUNTED: [(&str, &str, Option<f64>); 4] = [
    ("there", "small frame, driver to switch", Some(900.0)),
    ("back", "small frame, switch to driver", Some(900.0)),
    ("across", "small frame, driver to driver", None),
    ("switch", "small frame, through the switch alone", Some(1500.0)),
];

/// Builds the benchmark and counts.
pub fn measure_host() -> Result<Vec<Row>> {
    let built = Command::new(paths::cargo())
        .args([
            "build",
            "--release",
            "--package",
            "bench",
            "--bin",
            "bench-network",
        ])
        .current_dir(paths::workspace())
        .status()
        .context("cannot start cargo")?;
    if !built.success() {
        bail!("the benchmark does not build");
    }
    if paths::in_path("valgrind").is_none() {
        eprintln!(
            "warning: no instructions are counted: valgrind is not in PATH (Debian: apt-get install valgrind)"
        );
    }
    let row = |(what, name, at_most): (&str, &str, Option<f64>)| Row {
        name: name.into(),
        measured: instructions(what).ok().map(f64::round),
        unit: "instructions".into(),
        at_most,
    };
    Ok(COUNTED.map(row).into())
}

/// Instructions of one frame.
fn instructions(what: &str) -> Result<f64> {
    let count = |rounds: u64| -> Result<u64> {
        let mut valgrind = Command::new(paths::in_path("valgrind").context("no valgrind")?);
        valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
        valgrind.arg(paths::target()?.join("release/bench-network"));
        let done = valgrind.args(["count", what, &rounds.to_string()]).output()?;
        collected(&String::from_utf8_lossy(&done.stderr)).context("callgrind counted nothing")
    };
    let (once, twice) = (count(ROUNDS)?, count(2 * ROUNDS)?);
    Ok(twice.saturating_sub(once) as f64 / ROUNDS as f64)
}

/// The rows of two children that talk over a switch, and the machine's end.
pub fn measure_machine() -> Result<(Vec<Row>, Outcome)> {
    images::built()?;
    let guest = |words: &str| {
        format!(
            "processors = 1\nmemory = \"64MiB\"\nkernel = \"kernels/chat\"\ncommand_line = \"chat bench {words}\"\n[[network]]\nswitch = \"bench\"\n"
        )
    };
    let talks = format!("ip=10.0.0.2/24 peer=10.0.0.1 bulk={BULK}");
    let commands = [
        "vm create listens",
        "vm start listens",
        "vm create talks",
        "vm start talks --wait",
        CONSOLE,
    ];
    let outcome = Machine::new()
        .icount(true)
        .file("vms/listens.toml", guest("listen ip=10.0.0.1/24").as_bytes())
        .file("vms/talks.toml", guest(&talks).as_bytes())
        .exec(&commands)
        .run()?;
    let said = reply(&outcome.serial, CONSOLE);
    let said = said.as_ref().and_then(|said| said["text"].as_str());
    Ok((rows(said.unwrap_or_default()), outcome))
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

fn rows(said: &str) -> Vec<Row> {
    let row = |name: &str, measured: Option<f64>, unit: &str, at_most| Row {
        name: name.into(),
        measured,
        unit: unit.into(),
        at_most,
    };
    let round_trip = line(said, "round-trip");
    let mut rows = vec![
        row(
            "TCP, 64 bytes there and back, child - child",
            round_trip.map(|(_, median)| median),
            "instructions",
            Some(60_000.0),
        ),
        row(
            "the same, at best",
            round_trip.map(|(least, _)| least),
            "instructions",
            None,
        ),
    ];
    for (name, what) in [
        ("bulk", "TCP stream, child - child"),
        ("bulk-back", "the same, the other way"),
    ] {
        let measured = line(said, name);
        rows.push(row(
            &format!("{what}, a KiB"),
            measured.map(|(bytes, ticks)| (ticks / (bytes / 1024.0)).round()),
            "instructions",
            // 600 MiB for 10^9 instructions.
            Some((1e9_f64 / (600.0 * 1024.0)).round()),
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
        let rows = rows("chat: x\r\nbench: round-trip 40000 41000\r\nbench: bulk 1048576 1000000\r\n");
        assert_eq!(rows[0].measured, Some(41_000.0));
        assert_eq!(rows[2].measured, Some(977.0));
        assert_eq!(rows[3].measured, Some(1000.0));
        assert!(rows[2].ok() && !rows[4].ok());
    }
}
