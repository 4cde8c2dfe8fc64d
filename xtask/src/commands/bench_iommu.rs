//! `cargo xtask bench iommu`: what the IOMMU costs, in instructions.
//!
//! When a disk answers is up to the host, and with it how many reads one interrupt ends: with 32 under way that alone makes a
//! difference of 4 % from run to run, with the IOMMU and without. So the disk is one of QEMU's that answers at once (`null-co`), and
//! of several runs the median counts. So it is with the network, where a ping is answered by QEMU itself. Where one thing is done at a
//! time, a slow host only makes it dearer (the longer it is waited for, the more the hypervisor has to do meanwhile): there the least of
//! the runs counts.

use anyhow::Result;
use serde_json::Value;

use super::bench_reply::{look_up, reply};
use super::bench_row::Row;
use crate::images;
use crate::machine::Machine;
use crate::outcome::{ExitKind, Outcome};

const DISK: &str = "disk bench nvme1 --json";
/// QEMU's own network answers it at once.
const PING: &str = "root ping 10.0.2.2 --count 200 --interval 0 --json";
const DEPOSIT: &str = "hv bench deposit --json";
const INTERRUPT: &str = "hv bench device-interrupt --json";

/// Most that a read may cost with translation, of what it costs without.
const MOST: f64 = 1.03;
/// Runs on each machine.
const RUNS: usize = 9;

/// A machine that counts instructions, with a disk that answers at once and an `edu` device.
fn machine(iommu: bool) -> Machine {
    let arguments = [
        "-blockdev",
        "driver=null-co,node-name=quick,size=67108864,read-zeroes=on",
        "-device",
        "nvme,drive=quick,serial=quick,addr=4",
        "-device",
        "edu",
    ];
    let machine = Machine::new().icount(true).iommu(iommu);
    arguments
        .into_iter()
        .fold(machine, |machine, argument| machine.qemu_arg(argument))
}

/// The median of the one benchmark that `command` has made.
fn median(outcome: &Outcome, command: &str) -> Option<f64> {
    let document = reply(&outcome.serial, command)?;
    document["benchmarks"].as_array()?.first()?["median_ticks"].as_f64()
}

/// Which of several runs counts.
#[derive(Clone, Copy)]
enum Run {
    Least,
    Median,
}

/// What `path` tells in the documents that have it, of the run that counts.
fn run_time(outcome: &Outcome, path: &str, which: Run) -> Option<f64> {
    let documents = outcome.serial.lines().filter_map(|line| {
        let line = line.trim();
        line.starts_with('{')
            .then(|| serde_json::from_str::<Value>(line).ok())?
    });
    let mut taken: Vec<f64> = documents
        .filter_map(|document| look_up(&document, path).and_then(Value::as_f64))
        .collect();
    taken.sort_by(f64::total_cmp);
    let index = match which {
        Run::Least => 0,
        Run::Median => taken.len() / 2,
    };
    taken.get(index).copied()
}

/// The rows, and the end of the last machine.
pub fn measure() -> Result<(Vec<Row>, Outcome)> {
    images::built()?;
    let runs = [[DISK; RUNS], [PING; RUNS]].concat();
    let without = machine(false).exec(&runs).run()?;
    if without.status != ExitKind::Success {
        return Ok((Vec::new(), without));
    }
    let with = machine(true).exec(&[DEPOSIT, INTERRUPT]).exec(&runs).run()?;
    let mut rows = vec![
        Row::instructions("deposit of 512 pages", median(&with, DEPOSIT), Some(60_000.0)),
        Row::instructions(
            "interrupt to the root's handler",
            median(&with, INTERRUPT),
            Some(1_200.0),
        ),
    ];
    // The hypervisor's part is in each.
    for (path, name, which) in [
        (
            "benchmarks/name=read-4k-qd1/run_time_ns",
            "NVMe read of 4 KiB, one",
            Run::Least,
        ),
        (
            "benchmarks/name=read-4k-qd32/run_time_ns",
            "NVMe read of 4 KiB, one of 32",
            Run::Median,
        ),
        (
            "run_time_ns",
            "e1000e: a ping, one frame out and one in",
            Run::Least,
        ),
    ] {
        let base = run_time(&without, path, which);
        rows.push(Row::instructions(format!("{name}; no IOMMU"), base, None));
        let most = base.map(|base| (base * MOST).floor());
        rows.push(Row::instructions(name, run_time(&with, path, which), most));
    }
    Ok((rows, with))
}
