//! `cargo xtask bench iommu`: what the IOMMU costs, in instructions.
//!
//! When a disk answers is up to the host, and with it how many reads one interrupt ends: with 32 under way that alone makes a
//! difference of 4 % from run to run, with the IOMMU and without. So the disk is one of QEMU's that answers at once (`null-co`), and
//! of several runs the median counts. The network's other end is QEMU itself, which answers a ping within the instruction that sends it.

use anyhow::Result;
use serde_json::Value;

use super::bench::{Row, look_up, reply};
use crate::images;
use crate::machine::Machine;
use crate::outcome::{ExitKind, Outcome};

const DISK: &str = "disk bench nvme1 --json";
const NETWORK: &str = "root network --wait";
const PING: &str = "root ping 10.0.2.2 --count 300 --interval 0 --timeout 60 --json";
const DEPOSIT: &str = "hv bench deposit --json";
const INTERRUPT: &str = "hv bench device-interrupt --json";

/// Most that a read or a frame may cost with translation, of what it costs without.
const MOST: f64 = 1.03;
/// Runs of the disk's benchmark on each machine.
const RUNS: usize = 9;
/// Runs of the network's.
const PING_RUNS: usize = 5;

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

/// The median of what `figure` finds in the replies of a machine, in nanoseconds, which are instructions.
fn median_of(outcome: &Outcome, figure: impl Fn(&Value) -> Option<f64>) -> Option<f64> {
    let documents = outcome.serial.lines().filter_map(|line| {
        let line = line.trim();
        line.starts_with('{')
            .then(|| serde_json::from_str::<Value>(line).ok())?
    });
    let mut taken: Vec<f64> = documents.filter_map(|document| figure(&document)).collect();
    taken.sort_by(f64::total_cmp);
    taken.get(taken.len() / 2).copied()
}

/// What a read of 4 KiB takes of the processor, the hypervisor's part included, with so many under way.
fn disk_read(outcome: &Outcome, depth: u32) -> Option<f64> {
    let path = format!("benchmarks/name=read-4k-qd{depth}/run_time_ns");
    median_of(outcome, |document| look_up(document, &path)?.as_f64())
}

/// What a frame to the next router and its answer take of the processor, the root's stack and the hypervisor's part included.
fn frames(outcome: &Outcome) -> Option<f64> {
    median_of(outcome, |document| {
        let all = document["sent"].as_u64()? == document["answered"].as_u64()?;
        document["run_time_ns"].as_f64().filter(|_| all)
    })
}

/// The commands whose replies are compared.
fn compared(machine: &Machine) -> Result<Outcome> {
    machine
        .clone()
        .exec(&[DISK; RUNS])
        .exec(&[NETWORK])
        .exec(&[PING; PING_RUNS])
        .run()
}

/// The rows, and the end of the last machine.
pub fn measure() -> Result<(Vec<Row>, Outcome)> {
    images::built()?;
    let row = |name: &str, measured, at_most| Row {
        name: name.to_owned(),
        measured,
        unit: "instructions".to_owned(),
        at_most,
    };
    let without = compared(&machine(false))?;
    if without.status != ExitKind::Success {
        return Ok((Vec::new(), without));
    }
    let with = compared(&machine(true).exec(&[DEPOSIT, INTERRUPT]))?;
    let mut rows = vec![
        row("deposit of 512 pages", median(&with, DEPOSIT), Some(60_000.0)),
        row(
            "interrupt to the root's handler",
            median(&with, INTERRUPT),
            Some(1_200.0),
        ),
    ];
    let mut compare = |name: &str, figure: &dyn Fn(&Outcome) -> Option<f64>| {
        let base = figure(&without);
        rows.push(row(&format!("{name}; no IOMMU"), base, None));
        let most = base.map(|base| (base * MOST).floor());
        rows.push(row(name, figure(&with), most));
    };
    compare("NVMe read of 4 KiB, one", &|outcome| disk_read(outcome, 1));
    compare("NVMe read of 4 KiB, one of 32", &|outcome| disk_read(outcome, 32));
    compare("frame out by e1000e, and one in", &frames);
    Ok((rows, with))
}
