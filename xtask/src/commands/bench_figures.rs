//! Figures that the root's shell or the guest `bench` tells, on one machine that counts instructions: `cargo xtask bench boot`, `exits`,
//! `vm` and `disk`.
//!
//! Each is a row of one of the tables `BOOT`, `EXITS`, `VM` and `DISK`; a benchmark of the root's shell that has no row is shown without
//! a target.

use std::fs;

use anyhow::Result;
use serde_json::Value;

use super::bench_reply::{event, look_up, median, reply};
use super::bench_row::Row;
use crate::images;
use crate::machine::Machine;
use crate::outcome::{ExitKind, Outcome};

/// The command whose reply lists all benchmarks of the root's shell.
const BENCH: &str = "hv bench --json";

/// The command whose reply describes the hypervisor.
const INFO: &str = "hv info --json";

/// The commands that have the guest `bench` measure.
const MEASURE_IN_A_CHILD: [&str; 2] = ["vm create bench", "vm start bench --wait"];

/// The command whose reply has what the guest `bench` printed.
const CONSOLE: &str = "vm console bench --dump --json";

/// The command whose reply tells when what happened to the guest `bench`.
const LOG: &str = "vm log bench --json";

/// One figure: how it is called, where it comes from, and what it must not exceed.
#[derive(Debug)]
struct Figure {
    name: &'static str,
    source: Source,
    unit: &'static str,
    at_most: Option<f64>,
}

/// Where a figure comes from.
#[derive(Debug)]
enum Source {
    /// The size of the hypervisor's image on disk, in KiB.
    HypervisorImage,
    /// A number in the JSON that a shell command prints; the path is [`look_up`]'s.
    Reply {
        command: &'static str,
        path: &'static str,
    },
    /// The median in the line of that name on the console of the guest `bench`.
    Guest(&'static str),
    /// Time from one event in the log of the guest `bench` to another, each known by how it begins.
    Between(&'static str, &'static str),
}

impl Source {
    /// The shell command whose reply holds it.
    fn command(&self) -> Option<&'static str> {
        match self {
            Self::HypervisorImage => None,
            Self::Reply { command, .. } => Some(command),
            Self::Guest(_) => Some(CONSOLE),
            Self::Between(..) => Some(LOG),
        }
    }

    /// What the machine's console says of it.
    fn read(&self, serial: &str) -> Option<f64> {
        let json = |command| reply(serial, command);
        match self {
            Self::HypervisorImage => {
                let image = images::ready()?.hypervisor;
                Some(fs::metadata(image).ok()?.len() as f64 / 1024.0)
            }
            Self::Reply { command, path } => look_up(&json(command)?, path)?.as_f64(),
            Self::Guest(name) => median(json(CONSOLE)?["text"].as_str()?, name),
            Self::Between(from, to) => {
                let log = json(LOG)?;
                Some(event(&log, to)? - event(&log, from)?)
            }
        }
    }
}

/// The figures of `bench boot`. On a machine that counts instructions, a nanosecond is an instruction.
const BOOT: &[Figure] = &[
    Figure {
        name: "hypervisor image",
        source: Source::HypervisorImage,
        unit: "KiB",
        at_most: Some(1024.0),
    },
    Figure {
        name: "hypervisor memory (of 2 GiB)",
        source: Source::Reply {
            command: INFO,
            path: "memory/hypervisor_bytes",
        },
        unit: "bytes",
        at_most: Some((16 << 20) as f64),
    },
    Figure {
        name: "entry to root",
        source: Source::Reply {
            command: INFO,
            path: "boot/hypervisor_ns",
        },
        unit: "instructions",
        at_most: Some(40e6),
    },
    Figure {
        name: "entry to shell prompt",
        source: Source::Reply {
            command: INFO,
            path: "boot/shell_ns",
        },
        unit: "instructions",
        at_most: Some(400e6),
    },
    exit("cpuid", "benchmarks/name=cpuid/median_ticks"),
    exit("hypercall", "benchmarks/name=hypercall/median_ticks"),
    exit("msr", "benchmarks/name=msr/median_ticks"),
];

/// A round trip from the root into the hypervisor and back, named as the root's benchmark is.
const fn exit(name: &'static str, path: &'static str) -> Figure {
    Figure {
        name,
        source: Source::Reply { command: BENCH, path },
        unit: "instructions",
        at_most: Some(400.0),
    }
}

/// The figures of `bench exits`.
const EXITS: &[Figure] = &[
    child("cpuid", 400.0),
    child("hypercall", 400.0),
    child("vp-index", 400.0),
    child("reference-counter", 400.0),
    child("eom", 450.0),
    child("signal-event", 900.0),
    child("self-ipi", 700.0),
    child("timer", 3000.0),
    child("port", 6000.0),
];

/// A way out of a child, named as its guest `bench` does.
const fn child(name: &'static str, at_most: f64) -> Figure {
    Figure {
        name,
        source: Source::Guest(name),
        unit: "instructions",
        at_most: Some(at_most),
    }
}

/// A child that stays, of one VP and 16 MiB.
const KEPT: (&str, &str) = (
    "vms/kept.toml",
    "memory = \"16MiB\"\nkernel = \"kernels/hello\"\ncommand_line = \"forever\"\n",
);

/// The figures of `bench vm`, for one VP and 16 MiB: from the order to the moment before the first instruction; and what the
/// hypervisor keeps of a child that runs, its page tables included.
const VM: &[Figure] = &[
    Figure {
        name: "create and start a child",
        source: Source::Between("starting", "running as partition"),
        unit: "instructions",
        at_most: Some(10e6),
    },
    Figure {
        name: "kept in the hypervisor for it",
        source: Source::Reply {
            command: "vm show kept --json",
            path: "hypervisor_bytes",
        },
        unit: "bytes",
        at_most: Some((256 << 10) as f64),
    },
];

/// The command whose reply has the figures of the NVMe disk.
const DISK_BENCH: &str = "disk bench nvme0 --json";

/// The figures of `bench disk`: what runs in the root and below it for a read, the interrupt included, with one read under way
/// and with 32.
const DISK: &[Figure] = &[
    disk(
        "NVMe read of 4 KiB, one",
        "benchmarks/name=read-4k-qd1/run_time_ns",
        12_000.0,
    ),
    disk(
        "NVMe read of 4 KiB, one of 32",
        "benchmarks/name=read-4k-qd32/run_time_ns",
        6_000.0,
    ),
    disk(
        "in the hypervisor, one",
        "benchmarks/name=read-4k-qd1/hypervisor_time_ns",
        1_200.0,
    ),
    disk(
        "in the hypervisor, one of 32",
        "benchmarks/name=read-4k-qd32/hypervisor_time_ns",
        600.0,
    ),
];

/// What a read costs, at most.
const fn disk(name: &'static str, path: &'static str, at_most: f64) -> Figure {
    Figure {
        name,
        source: Source::Reply {
            command: DISK_BENCH,
            path,
        },
        unit: "instructions",
        at_most: Some(at_most),
    }
}

/// The rows of `bench boot`, and the machine's end.
pub fn measure_boot() -> Result<(Vec<Row>, Outcome)> {
    let (mut rows, outcome) = measure(BOOT, &[BENCH])?;
    match reply(&outcome.serial, BENCH) {
        Some(json) => rows.extend(without_target(&json)),
        None => rows.push(Row::instructions(BENCH, None, None)),
    }
    Ok((rows, outcome))
}

/// The rows of `bench exits`, and the machine's end.
pub fn measure_exits() -> Result<(Vec<Row>, Outcome)> {
    measure(EXITS, &MEASURE_IN_A_CHILD)
}

/// The rows of `bench vm`, and the machine's end.
pub fn measure_vm() -> Result<(Vec<Row>, Outcome)> {
    let [create, start] = MEASURE_IN_A_CHILD;
    let first = [create, start, "vm create kept", "vm start kept"];
    let (name, text) = KEPT;
    measure_on(&Machine::new().file(name, text), VM, &first)
}

/// The rows of `bench disk`, and the machine's end: on a machine whose IOMMU translates, and then on one without, if the
/// first ended well.
pub fn measure_disk() -> Result<(Vec<Row>, Outcome)> {
    let (mut rows, outcome) = measure(DISK, &[])?;
    if outcome.status != ExitKind::Success {
        return Ok((rows, outcome));
    }
    let (without, outcome) = measure_on(&Machine::new().iommu(false), DISK, &[])?;
    rows.extend(without.into_iter().map(|row| Row {
        name: format!("{}; no IOMMU", row.name),
        ..row
    }));
    Ok((rows, outcome))
}

/// Runs `first` and then the commands whose replies hold `figures`, on a machine that counts instructions.
fn measure(figures: &[Figure], first: &[&'static str]) -> Result<(Vec<Row>, Outcome)> {
    measure_on(&Machine::new(), figures, first)
}

/// The same, on a machine like this one that counts instructions.
fn measure_on(machine: &Machine, figures: &[Figure], first: &[&'static str]) -> Result<(Vec<Row>, Outcome)> {
    images::built()?;
    let mut commands = first.to_vec();
    for command in figures.iter().filter_map(|figure| figure.source.command()) {
        if !commands.contains(&command) {
            commands.push(command);
        }
    }
    let outcome = machine.clone().icount(true).exec(&commands).run()?;
    let rows = figures.iter().map(|figure| Row {
        name: figure.name.into(),
        measured: figure.source.read(&outcome.serial),
        unit: figure.unit.into(),
        at_most: figure.at_most,
    });
    Ok((rows.collect(), outcome))
}

/// A row for each measurement in the reply of [`BENCH`] that no figure names: an object with a name and a median.
fn without_target(document: &Value) -> Vec<Row> {
    let tables = document
        .as_object()
        .into_iter()
        .flat_map(|object| object.values());
    let elements = tables.filter_map(Value::as_array).flatten();
    elements
        .filter_map(|element| {
            let name = element["name"].as_str()?;
            let measured = Some(element["median_ticks"].as_f64()?);
            Some(Row::instructions(name, measured, None))
        })
        .filter(|row| BOOT.iter().all(|figure| figure.name != row.name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_benchmark_without_a_target_is_shown() {
        let reply = serde_json::json!({"benchmarks": [
            {"name": "cpuid", "rounds": 9, "median_ticks": 57},
            {"name": "flush", "median_ticks": 80},
        ]});
        assert_eq!(
            without_target(&reply),
            [Row::instructions("flush", Some(80.0), None)]
        );
    }
}
