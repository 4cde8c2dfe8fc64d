//! `cargo xtask bench guest-io`: what reading 4 KiB costs a child of ours, all in: its own instructions, the hypervisor's, the root's, and
//! the copy.
//!
//! The figure is what the guest `bench-io` measures. Where it goes is told by the statistics of two guests, one of which reads twice as
//! often as the other.

use anyhow::{Context, Result, bail};

use super::bench_reply::{number_of, reply_number};
use super::bench_row::Row;
use super::cost::{Cost, Side};
use crate::machine::Machine;
use crate::outcome::{ExitKind, Outcome};

/// Reads of the shorter run.
const READS: u64 = 1024;
/// The root's counters.
const ROOT: &str = "hv stats --json";

/// A disk and how many reads are under way.
struct Case {
    name: &'static str,
    source: &'static str,
    depth: u32,
}

const RAM: [Case; 2] = [
    Case {
        name: "RAM disk, one",
        source: "ram:16MiB",
        depth: 1,
    },
    Case {
        name: "RAM disk, one of 32",
        source: "ram:16MiB",
        depth: 32,
    },
];
const NVME: [Case; 2] = [
    Case {
        name: "NVMe, one",
        source: "nvme0",
        depth: 1,
    },
    Case {
        name: "NVMe, one of 32",
        source: "nvme0",
        depth: 32,
    },
];
/// Targets, in instructions a read.
const RAM_TARGETS: [f64; 2] = [25_000.0, 6_000.0];
/// What an NVMe disk may cost more than one of memory, with one read under way.
const NVME_MORE: f64 = 12_000.0;

/// The rows, the last machine's end, and where the instructions went. Each guest has a machine of its own, which ends with it.
pub fn measure() -> Result<(Vec<Row>, Outcome, String)> {
    let mut text = String::new();
    let mut measured = Vec::new();
    let mut last = None;
    for case in RAM.iter().chain(&NVME) {
        let shorter = run(case, READS)?;
        let longer = run(case, 2 * READS)?;
        for outcome in [&shorter, &longer] {
            if outcome.status != ExitKind::Success {
                return Ok((rows(&measured), outcome.clone(), text));
            }
        }
        let (ticks, cost) = read(&shorter.serial, &longer.serial, case)?;
        text.push_str(&cost.text(&format!("{}: {ticks} instructions a read, of which", case.name)));
        measured.push((ticks, cost.spent()));
        last = Some(longer);
    }
    let last = last.context("nothing was to be measured")?;
    Ok((rows(&measured), last, text))
}

/// A machine with a guest that makes so many reads.
fn run(case: &Case, reads: u64) -> Result<Outcome> {
    let guest = guest(case, reads);
    let commands = [
        ROOT.to_owned(),
        format!("vm start {guest}"),
        format!("vm wait {guest} --text ' ticks a read'"),
        ROOT.to_owned(),
        format!("vm stats {guest} --json"),
        format!("vm console {guest} --dump --json"),
    ];
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let machine = Machine::new().icount(true);
    let machine = machine.file(format!("vms/{guest}.toml"), description(case, reads));
    machine.exec(&commands).run()
}

/// Rows of what was measured: ticks, and what the counters say. While a device works nobody executes anything and the clock goes on, so
/// that only the counters tell what an NVMe disk costs.
fn rows(measured: &[(f64, f64)]) -> Vec<Row> {
    let at = |index: usize| measured.get(index).copied();
    let mut rows = Vec::new();
    for (index, (case, target)) in RAM.iter().zip(RAM_TARGETS).enumerate() {
        let ticks = at(index).map(|(ticks, _)| ticks);
        rows.push(Row::instructions(case.name, ticks, Some(target)));
    }
    let more = |index: usize| Some((at(RAM.len() + index)?.1 - at(index)?.1).round());
    rows.push(Row::instructions(
        "NVMe, one: more than RAM",
        more(0),
        Some(NVME_MORE),
    ));
    rows.push(Row::instructions("NVMe, one of 32: more than RAM", more(1), None));
    rows
}

fn guest(case: &Case, reads: u64) -> String {
    let disk = case.source.get(..3).unwrap_or_default();
    format!("io-{disk}-{}-{reads}", case.depth)
}

fn description(case: &Case, reads: u64) -> String {
    format!(
        "processors = 1\nmemory = \"32MiB\"\nkernel = \"kernels/bench-io\"\n\
         command_line = \"depth={} reads={reads} stay\"\n\n[[disk]]\nsource = \"{}\"\n",
        case.depth, case.source
    )
}

/// What the longer run measured, and what each of its reads cost whom.
fn read(shorter: &str, longer: &str, case: &Case) -> Result<(f64, Cost)> {
    let cost = |serial: &str, reads: u64| -> Result<Cost> {
        let guest = guest(case, reads);
        let command = format!("vm stats {guest} --json");
        let child = reply_number(serial, &command, 0).and_then(|json| Side::read(&json));
        let root = |number| reply_number(serial, ROOT, number).and_then(|json| Side::read(&json));
        let (Some(guest), Some(before), Some(after)) = (child, root(0), root(1)) else {
            bail!("{guest} left no counters");
        };
        let root = after.since(&before);
        Ok(Cost { guest, root })
    };
    let console = format!("vm console {} --dump --json", guest(case, 2 * READS));
    let console = reply_number(longer, &console, 0).context("a guest has no console")?;
    let text = console["text"].as_str().unwrap_or_default();
    let ticks = number_of(text, "bench-io: ", " ticks a read");
    let ticks = ticks.with_context(|| format!("{}: nothing was measured:\n{text}", case.name))?;
    let each = cost(longer, 2 * READS)?.since(&cost(shorter, READS)?);
    Ok((ticks, each.each(READS as f64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_named_for_what_it_does() {
        assert_eq!(guest(&NVME[1], 1024), "io-nvm-32-1024");
        assert!(description(&RAM[1], 2048).contains("depth=32 reads=2048 stay"));
    }

    #[test]
    fn an_nvme_disk_is_compared_with_one_of_memory() {
        let rows = rows(&[
            (20_000.0, 1_000.0),
            (6_001.0, 1.0),
            (9e9, 14_000.0),
            (9_000.0, 2.0),
        ]);
        let ok: Vec<bool> = rows.iter().map(Row::ok).collect();
        assert_eq!(ok, [true, false, false, true]);
        assert_eq!(rows[2].measured, Some(13_000.0));
    }
}
