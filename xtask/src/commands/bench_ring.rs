//! `cargo xtask bench ring`: the VMBus ring on the host, beside other rings in the same binary.
//!
//! Instructions are callgrind's, and the same on every host of a kind. Times are only compared with each other: ratios of medians of
//! rounds in which all took turns.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::bench::Row;
use crate::paths;

/// Round trips that are counted, beside as many again.
const ROUNDS: u64 = 10_000;

/// Who is counted, with the target in instructions.
const COUNTED: [(&str, Option<f64>); 3] = [("ours", Some(160.0)), ("virtio-queue", None), ("rtrb", None)];

/// Ratios of times: what is divided by what, within one of the groups that the benchmark prints, and the target.
const RATIOS: [(&str, &str, &str, &str, f64); 4] = [
    (
        "64 bytes, of virtio-queue's time",
        "alone 64",
        "ours",
        "virtio-queue",
        0.35,
    ),
    (
        "16 KiB, of two copies' time",
        "alone 16384",
        "ours",
        "copies",
        1.15,
    ),
    (
        "two threads, of virtio-queue's",
        "together 64",
        "ours",
        "virtio-queue",
        0.6,
    ),
    (
        "two threads by 8, of virtio-queue's",
        "together 64",
        "ours by 8",
        "virtio-queue",
        0.4,
    ),
];

/// Builds the benchmark and measures.
pub fn measure() -> Result<Vec<Row>> {
    let built = Command::new(paths::cargo())
        .args(["build", "--release", "--package", "bench"])
        .current_dir(paths::workspace())
        .status()
        .context("cannot start cargo")?;
    if !built.success() {
        bail!("the benchmark does not build");
    }
    let mut rows = Vec::new();
    if paths::in_path("valgrind").is_none() {
        eprintln!(
            "warning: no instructions are counted: valgrind is not in PATH (Debian: apt-get install valgrind)"
        );
    }
    for (who, at_most) in COUNTED {
        rows.push(Row {
            name: format!("64 bytes there and back, {who}"),
            measured: instructions(who).ok(),
            unit: "instructions".into(),
            at_most,
        });
    }
    let times = output(benchmark()?.arg("time"))?;
    let times: Value = serde_json::from_str(&times).context("the benchmark printed no JSON")?;
    for (name, group, who, of, at_most) in RATIOS {
        rows.push(Row {
            name: name.into(),
            measured: ratio(&times[group], who, of),
            unit: "x".into(),
            at_most: Some(at_most),
        });
    }
    Ok(rows)
}

/// Instructions of one round trip.
fn instructions(who: &str) -> Result<f64> {
    let count = |rounds: u64| -> Result<u64> {
        let mut valgrind = Command::new(paths::in_path("valgrind").context("no valgrind")?);
        valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
        valgrind
            .arg(binary()?)
            .args(["count", who, "64", &rounds.to_string()]);
        let done = valgrind.output()?;
        collected(&String::from_utf8_lossy(&done.stderr)).context("callgrind counted nothing")
    };
    let (once, twice) = (count(ROUNDS)?, count(2 * ROUNDS)?);
    Ok((twice.saturating_sub(once) as f64 / ROUNDS as f64).round())
}

/// The number in callgrind's line `==PID== Collected : N`.
pub(super) fn collected(report: &str) -> Option<u64> {
    let mut lines = report.lines().filter_map(|line| line.split_once("Collected : "));
    lines.next()?.1.trim().parse().ok()
}

/// How often `of` goes into `who`, to two digits.
fn ratio(times: &Value, who: &str, of: &str) -> Option<f64> {
    let ratio = times[who].as_f64()? / times[of].as_f64()?;
    Some((ratio * 100.0).round() / 100.0)
}

fn binary() -> Result<std::path::PathBuf> {
    Ok(paths::target()?.join("release/bench-ring"))
}

fn benchmark() -> Result<Command> {
    Ok(Command::new(binary()?))
}

fn output(command: &mut Command) -> Result<String> {
    let done = command.output().context("cannot start the benchmark")?;
    if !done.status.success() {
        bail!("the benchmark failed: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(String::from_utf8(done.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrinds_count_is_found() {
        let report = "==7== Events    : Ir\n==7== Collected : 4170927\n==7==\n";
        assert_eq!(collected(report), Some(4_170_927));
        assert_eq!(collected("valgrind: no such program"), None);
    }

    #[test]
    fn a_ratio_needs_both_times() {
        let times = serde_json::json!({"ours": 1.0, "virtio-queue": 3.0});
        assert_eq!(ratio(&times, "ours", "virtio-queue"), Some(0.33));
        assert_eq!(ratio(&times, "ours", "rtrb"), None);
    }
}
