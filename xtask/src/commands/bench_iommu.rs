//! `cargo xtask bench iommu`: what the IOMMU costs, in instructions.
//!
//! The disk is one of QEMU's that answers at once (`null-co`): when a real one does is up to the host, and with it how many reads
//! one interrupt ends, which alone makes more of a difference than the IOMMU.

use anyhow::Result;
use serde_json::Value;

use super::bench::{Row, look_up, reply};
use crate::images;
use crate::machine::Machine;
use crate::outcome::{ExitKind, Outcome};

const DISK: &str = "disk bench nvme1 --json";
const DEPOSIT: &str = "hv bench deposit --json";
const INTERRUPT: &str = "hv bench device-interrupt --json";
const MEDIAN: &str = "benchmarks/0/median_ticks";

/// Most that a read may cost with translation, of what it costs without.
const MOST: f64 = 1.03;

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

/// A number in the reply to `command`.
fn read(outcome: &Outcome, command: &str, path: &str) -> Option<f64> {
    let document = reply(&outcome.serial, command)?;
    match path.strip_prefix("benchmarks/0/") {
        Some(key) => document["benchmarks"].as_array()?.first()?[key].as_f64(),
        None => look_up(&document, path).and_then(Value::as_f64),
    }
}

/// What a read of 4 KiB takes of the processor, with so many under way.
fn disk_read(outcome: &Outcome, depth: u32) -> Option<f64> {
    let figure = |key| read(outcome, DISK, &format!("benchmarks/name=read-4k-qd{depth}/{key}"));
    // What runs below the root is not in the root's own time.
    Some(figure("run_time_ns")? + figure("hypervisor_time_ns")?)
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
    let without = machine(false).exec(&[DISK]).run()?;
    if without.status != ExitKind::Success {
        return Ok((Vec::new(), without));
    }
    let with = machine(true).exec(&[DISK, DEPOSIT, INTERRUPT]).run()?;
    let mut rows = vec![
        row(
            "deposit of 512 pages",
            read(&with, DEPOSIT, MEDIAN),
            Some(60_000.0),
        ),
        row(
            "interrupt to the root's handler",
            read(&with, INTERRUPT, MEDIAN),
            Some(1_200.0),
        ),
    ];
    for (depth, name) in [
        (1, "NVMe read of 4 KiB, one"),
        (32, "NVMe read of 4 KiB, one of 32"),
    ] {
        let base = disk_read(&without, depth);
        rows.push(row(&format!("{name}; no IOMMU"), base, None));
        let most = base.map(|base| (base * MOST).floor());
        rows.push(row(name, disk_read(&with, depth), most));
    }
    Ok((rows, with))
}
