//! `cargo xtask bench storage`: what a read of 4 KiB costs on the host, from the consumer over the ring to the provider and a disk of memory.
//!
//! Instructions are callgrind's. What is left out is the copy that the disk of memory makes.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::bench::Row;
use super::bench_ring::collected;
use crate::paths;

/// Reads that are counted, beside as many again.
const ROUNDS: u64 = 3200;

/// How reads are made, what that is called, and the target in instructions.
const COUNTED: [(&str, &str, Option<f64>); 2] = [
    ("reads", "4 KiB read, one at a time", Some(1500.0)),
    ("batches", "4 KiB read, 32 at once", None),
];

/// Builds the benchmark and counts.
pub fn measure() -> Result<Vec<Row>> {
    let built = Command::new(paths::cargo())
        .args([
            "build",
            "--release",
            "--package",
            "bench",
            "--bin",
            "bench-storage",
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
    let copy = instructions("copies").ok();
    let row = |(what, name, at_most): (&str, &str, Option<f64>)| Row {
        name: name.into(),
        measured: instructions(what)
            .ok()
            .zip(copy)
            .map(|(read, copy)| (read - copy).round()),
        unit: "instructions".into(),
        at_most,
    };
    Ok(COUNTED.map(row).into())
}

/// Instructions of one round.
fn instructions(what: &str) -> Result<f64> {
    let count = |rounds: u64| -> Result<u64> {
        let mut valgrind = Command::new(paths::in_path("valgrind").context("no valgrind")?);
        valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
        valgrind.arg(paths::target()?.join("release/bench-storage"));
        let done = valgrind.args(["count", what, &rounds.to_string()]).output()?;
        collected(&String::from_utf8_lossy(&done.stderr)).context("callgrind counted nothing")
    };
    let (once, twice) = (count(ROUNDS)?, count(2 * ROUNDS)?);
    Ok(twice.saturating_sub(once) as f64 / ROUNDS as f64)
}
