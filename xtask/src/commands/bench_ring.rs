//! `cargo xtask bench ring`: the VMBus ring on the host, beside other rings in the same binary.
//!
//! Instructions are callgrind's, and the same on every host of a kind. Times are only compared with each other: ratios of medians of
//! rounds in which all took turns.

use anyhow::{Context, Result};
use serde_json::Value;

use super::bench_row::Row;
use super::callgrind::Program;

/// Round trips that are counted, beside as many again.
const ROUNDS: u64 = 10_000;

/// Who is counted, with the target in instructions.
const COUNTED: [(&str, Option<f64>); 3] = [("ours", Some(160.0)), ("virtio-queue", None), ("rtrb", None)];

/// Ratios of times: what is divided by what, within one of the groups that the benchmark prints, and the target.
const RATIOS: [(&str, &str, &str, &str, Option<f64>); 5] = [
    (
        "64 bytes, of virtio-queue's time",
        "alone 64",
        "ours",
        "virtio-queue",
        Some(0.35),
    ),
    (
        "16 KiB, of two copies' time",
        "alone 16384",
        "ours",
        "copies",
        Some(1.15),
    ),
    ("16 KiB, never cut by the end", "uncut", "ours", "copies", None),
    (
        "two threads, of virtio-queue's",
        "together 64",
        "ours",
        "virtio-queue",
        Some(0.6),
    ),
    (
        "two threads by 8, of virtio-queue's",
        "together 64",
        "ours by 8",
        "virtio-queue",
        Some(0.4),
    ),
];

/// Builds the benchmark and measures.
pub fn measure() -> Result<Vec<Row>> {
    let program = Program::build("bench-ring")?;
    let mut rows: Vec<Row> = Vec::new();
    for (who, at_most) in COUNTED {
        let counted = program.instructions(&["count", who, "64"], ROUNDS);
        let name = format!("64 bytes there and back, {who}");
        rows.push(Row::instructions(name, counted.ok().map(f64::round), at_most));
    }
    let times: Value =
        serde_json::from_str(&program.output(&["time"])?).context("the benchmark printed no JSON")?;
    for (name, group, who, of, at_most) in RATIOS {
        rows.push(Row {
            name: name.into(),
            measured: ratio(&times[group], who, of),
            unit: "x".into(),
            at_most,
        });
    }
    Ok(rows)
}

/// How often `of` goes into `who`, to two digits.
fn ratio(times: &Value, who: &str, of: &str) -> Option<f64> {
    let ratio = times[who].as_f64()? / times[of].as_f64()?;
    Some((ratio * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_needs_both_times() {
        let times = serde_json::json!({"ours": 1.0, "virtio-queue": 3.0});
        assert_eq!(ratio(&times, "ours", "virtio-queue"), Some(0.33));
        assert_eq!(ratio(&times, "ours", "rtrb"), None);
    }
}
