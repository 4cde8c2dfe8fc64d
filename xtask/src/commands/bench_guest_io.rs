//! `cargo xtask bench guest-io`: what reading 4 KiB costs a child of ours, all in: its own instructions, the hypervisor's, the root's, and
//! the copy.
//!
//! The figure is what the guest `bench-io` measures. Where it goes is told by the statistics of two guests, one of which reads twice as
//! often as the other.

use anyhow::{Context, Result, bail};

use super::bench::{Row, number_of, reply_number};
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

/// The rows, the machine's end, and where the instructions went.
pub fn measure() -> Result<(Vec<Row>, Outcome, String)> {
    let cases: Vec<&Case> = RAM.iter().chain(&NVME).collect();
    let mut machine = Machine::new().icount(true);
    for case in &cases {
        for reads in [READS, 2 * READS] {
            let file = format!("vms/{}.toml", guest(case, reads));
            machine = machine.file(file, description(case, reads));
        }
    }
    let commands: Vec<String> = cases
        .iter()
        .flat_map(|case| [READS, 2 * READS].map(|reads| guest(case, reads)))
        .flat_map(|guest| {
            [
                ROOT.to_owned(),
                format!("vm start {guest}"),
                format!("vm wait {guest} --text ' ticks a read'"),
                ROOT.to_owned(),
                format!("vm stats {guest} --json"),
                format!("vm console {guest} --dump --json"),
                format!("vm kill {guest}"),
            ]
        })
        .collect();
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let outcome = machine.exec(&commands).run()?;
    if outcome.status != ExitKind::Success {
        return Ok((Vec::new(), outcome, String::new()));
    }
    let mut text = String::new();
    let mut measured = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let (ticks, cost) = read(&outcome.serial, index, case)?;
        text.push_str(&cost.text(&format!("{}: {ticks} instructions a read, of which", case.name)));
        measured.push(ticks);
    }
    Ok((rows(&measured), outcome, text))
}

fn rows(measured: &[f64]) -> Vec<Row> {
    let row = |name: String, measured, at_most| Row {
        name,
        measured,
        unit: "instructions".into(),
        at_most,
    };
    let at = |index: usize| measured.get(index).copied();
    let mut rows = Vec::new();
    for (index, (case, target)) in RAM.iter().zip(RAM_TARGETS).enumerate() {
        rows.push(row(case.name.into(), at(index), Some(target)));
    }
    let more = |index: usize| Some(at(RAM.len() + index)? - at(index)?);
    rows.push(row("NVMe, one: more than RAM".into(), more(0), Some(NVME_MORE)));
    rows.push(row("NVMe, one of 32: more than RAM".into(), more(1), None));
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

/// What the longer run of the case `index` measured, and what each of its reads cost whom.
fn read(serial: &str, index: usize, case: &Case) -> Result<(f64, Cost)> {
    let cost = |longer: usize| -> Result<Cost> {
        let guest = guest(case, READS << longer);
        let command = format!("vm stats {guest} --json");
        let child = reply_number(serial, &command, 0).and_then(|json| Side::read(&json));
        let number = 2 * (2 * index + longer);
        let root = |number| reply_number(serial, ROOT, number).and_then(|json| Side::read(&json));
        let (Some(guest), Some(before), Some(after)) = (child, root(number), root(number + 1)) else {
            bail!("{guest} left no counters");
        };
        let root = after.since(&before);
        Ok(Cost { guest, root })
    };
    let console = format!("vm console {} --dump --json", guest(case, 2 * READS));
    let console = reply_number(serial, &console, 0).context("a guest has no console")?;
    let text = console["text"].as_str().unwrap_or_default();
    let ticks = number_of(text, "bench-io: ", " ticks a read");
    let ticks = ticks.with_context(|| format!("{}: nothing was measured:\n{text}", case.name))?;
    Ok((ticks, cost(1)?.since(&cost(0)?).each(READS as f64)))
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
        let rows = rows(&[20_000.0, 6_001.0, 33_000.0, 9_000.0]);
        let ok: Vec<bool> = rows.iter().map(Row::ok).collect();
        assert_eq!(ok, [true, false, false, true]);
        assert_eq!(rows[2].measured, Some(13_000.0));
    }
}
