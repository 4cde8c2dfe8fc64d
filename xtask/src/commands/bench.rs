//! `cargo xtask bench`: figures that do not depend on the host's speed, beside their targets.
//!
//! Machines count instructions here (`-icount`): a time stamp counter's difference is a number of instructions, the same
//! on every host. Each figure is a row of one of the tables `BOOT`, `EXITS`, `VM` and `DISK`; a benchmark of the root's shell that has
//! no row is shown without a target.

use std::fs;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::Value;

use crate::console::PROMPT;
use crate::machine::Machine;
use crate::outcome::{ExitKind, Outcome};
use crate::{images, setup};

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

/// Options of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Count the instructions of the hypervisor's own paths, on a machine with the root partition only
    Boot,
    /// Count the instructions of a child's ways into the hypervisor and to its parent, from inside the child
    Exits,
    /// Count the instructions of making and starting a child
    Vm,
    /// Count the instructions of reading 4 KiB from an NVMe disk, in the root partition
    Disk,
    /// Count the instructions that the IOMMU costs: deposits, interrupts, and reading 4 KiB with it and without
    Iommu,
    /// Count the instructions of reading 4 KiB in a child, from the call to the data, whoever executes them
    GuestIo,
    /// Count the instructions of Debian's kernel as a guest, beside the same kernel on the bare machine: its start, and its disk
    Linux,
    /// Measure the VMBus ring on the host, beside other rings
    Ring,
    /// Count the instructions of reading 4 KiB on the host, from the storage consumer to the provider and back
    Storage,
    /// Count the instructions of a frame on the host, and of TCP between two children on a machine
    Net {
        /// Only this part
        part: Option<Part>,
    },
}

/// A part of a benchmark that has two.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Part {
    /// What is counted on the host
    Host,
    /// What is counted on a machine
    Machine,
}

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

/// The median in a line `bench: NAME MINIMUM MEDIAN`.
fn median(text: &str, name: &str) -> Option<f64> {
    let mut lines = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("bench: "));
    lines.find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        [found, _, median] if found == name => median.parse().ok(),
        _ => None,
    })
}

/// When the first event that begins with `text` happened, in ns.
pub(super) fn event(log: &Value, text: &str) -> Option<f64> {
    let is_it = |event: &&Value| {
        event["event"]
            .as_str()
            .is_some_and(|event| event.starts_with(text))
    };
    log["events"].as_array()?.iter().find(is_it)?["time_ns"].as_f64()
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

/// One line of the printed table.
#[derive(Debug, PartialEq)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// The figure; `None` where the machine did not give it.
    pub measured: Option<f64>,
    /// Its unit.
    pub unit: String,
    /// Its target.
    pub at_most: Option<f64>,
}

impl Row {
    /// Whether it was measured and is not beyond its target.
    pub fn ok(&self) -> bool {
        match (self.measured, self.at_most) {
            (Some(measured), Some(limit)) => measured <= limit,
            (measured, _) => measured.is_some(),
        }
    }
}

/// Measures, prints the table, and fails when a figure is missing or beyond its target.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let machine = match arguments.what {
        What::Boot => measure_boot,
        What::Exits => measure_exits,
        What::Vm => measure_vm,
        What::Disk => measure_disk,
        What::Iommu => super::bench_iommu::measure,
        What::Ring => return on_the_host(super::bench_ring::measure()?),
        What::Storage => return on_the_host(super::bench_storage::measure()?),
        What::Net { part } => {
            let mut rows = match part {
                Some(Part::Machine) => Vec::new(),
                _ => super::bench_net::measure_host()?,
            };
            if part == Some(Part::Host) {
                return on_the_host(rows);
            }
            setup::qemu()?;
            images::build()?;
            let (machine, outcome, text) = super::bench_net::measure_machine()?;
            print!("{text}");
            rows.extend(machine);
            return Ok(conclude(&rows, &outcome));
        }
        What::GuestIo => {
            setup::qemu()?;
            images::build()?;
            let (rows, outcome, text) = super::bench_guest_io::measure()?;
            print!("{text}");
            return Ok(conclude(&rows, &outcome));
        }
        What::Linux => {
            setup::qemu()?;
            images::build()?;
            let (rows, text) = super::bench_linux::measure()?;
            print!("{text}");
            return on_the_host(rows);
        }
    };
    setup::qemu()?;
    images::build()?;
    let (rows, outcome) = machine()?;
    Ok(conclude(&rows, &outcome))
}

/// Prints the table; the exit code says whether all is well.
fn conclude(rows: &[Row], outcome: &Outcome) -> ExitCode {
    print!("{}", table(rows));
    if outcome.status != ExitKind::Success {
        eprintln!("error: {}", outcome.report());
        return ExitCode::FAILURE;
    }
    verdict(rows)
}

#[allow(clippy::unnecessary_wraps, reason = "it is what a command returns")]
fn on_the_host(rows: Vec<Row>) -> Result<ExitCode> {
    print!("{}", table(&rows));
    Ok(verdict(&rows))
}

fn verdict(rows: &[Row]) -> ExitCode {
    if rows.iter().all(Row::ok) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The rows of `bench boot`, and the machine's end.
pub fn measure_boot() -> Result<(Vec<Row>, Outcome)> {
    let (mut rows, outcome) = measure(BOOT, &[BENCH])?;
    match reply(&outcome.serial, BENCH) {
        Some(json) => rows.extend(without_target(&json)),
        None => rows.push(Row {
            name: BENCH.into(),
            measured: None,
            unit: String::new(),
            at_most: None,
        }),
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

/// The JSON document that `command` printed: the first line after the command's own that is one.
pub fn reply(serial: &str, command: &str) -> Option<Value> {
    reply_number(serial, command, 0)
}

/// The number between two texts, the first time that it stands there.
pub(super) fn number_of(text: &str, before: &str, behind: &str) -> Option<f64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(before));
    lines.find_map(|(_, rest)| rest.split_once(behind)?.0.parse().ok())
}

/// As [`reply`], of the time `number` that the command was given, counted from zero.
pub(super) fn reply_number(serial: &str, command: &str, number: usize) -> Option<Value> {
    let mut lines = serial.lines();
    for _ in 0..=number {
        lines.find(|line| line.trim_end().ends_with(command))?;
    }
    let after = lines;
    after
        .map_while(|line| (!line.contains(PROMPT)).then_some(line))
        .find_map(|line| {
            let line = line.trim();
            if line.starts_with('{') {
                serde_json::from_str(line).ok()
            } else {
                None
            }
        })
}

/// Walks into a document along `a/b/name=cpuid/median_ticks`: a step is a key, or picks an array's element by one of its keys.
pub(super) fn look_up<'v>(document: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('/')
        .try_fold(document, |value, step| match (value, step.split_once('=')) {
            (Value::Array(elements), Some((key, wanted))) => elements
                .iter()
                .find(|element| element[key].as_str() == Some(wanted)),
            _ => value.get(step),
        })
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
            Some(Row {
                name: name.to_owned(),
                measured,
                unit: "instructions".into(),
                at_most: None,
            })
        })
        .filter(|row| BOOT.iter().all(|figure| figure.name != row.name))
        .collect()
}

fn table(rows: &[Row]) -> String {
    let number = |value: Option<f64>, missing: &str| match value {
        Some(value) if value.fract() == 0.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.1}"),
        None => missing.to_owned(),
    };
    let mut text = format!(
        "{:32} {:>14} {:>10}  {:12} {}\n",
        "figure", "measured", "target", "unit", "ok"
    );
    for row in rows {
        text.push_str(&format!(
            "{:32} {:>14} {:>10}  {:12} {}\n",
            row.name,
            number(row.measured, "not measured"),
            number(row.at_most, "-"),
            row.unit,
            if row.ok() { "yes" } else { "NO" }
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERIAL: &str = "boot\npartita> hv bench --json\n{\"benchmarks\":[{\"name\":\"cpuid\",\"rounds\":9,\"median_ticks\":57},\
                          {\"name\":\"flush\",\"median_ticks\":80}]}\n\
                          partita> hv info --json\n{\"exits\":{\"total\":3}}\npartita> vm list\n";

    #[test]
    fn a_reply_is_the_document_between_a_command_and_the_next_prompt() {
        assert_eq!(reply(SERIAL, "hv info --json").unwrap()["exits"]["total"], 3);
        assert_eq!(reply(SERIAL, "vm list"), None);
        assert_eq!(reply(SERIAL, "hv stats"), None);
    }

    #[test]
    fn a_path_picks_an_element_by_its_name() {
        let document = reply(SERIAL, BENCH).unwrap();
        assert_eq!(
            look_up(&document, "benchmarks/name=cpuid/median_ticks").unwrap(),
            57
        );
        assert_eq!(look_up(&document, "benchmarks/name=hlt/median_ticks"), None);
    }

    #[test]
    fn a_guests_line_gives_its_median_and_a_log_the_time_between_two_events() {
        let text = "bench: first instruction at 7 ticks\r\nbench: eom 300 310\r\nbench: done\r\n";
        assert_eq!(median(text, "eom"), Some(310.0));
        assert_eq!(median(text, "first"), None);
        let log = serde_json::json!({"events": [
            {"time_ns": 100, "event": "starting"},
            {"time_ns": 900, "event": "running as partition 0x2"},
        ]});
        let time = |text| event(&log, text);
        assert_eq!(
            (time("starting"), time("running"), time("off")),
            (Some(100.0), Some(900.0), None)
        );
    }

    #[test]
    fn a_benchmark_without_a_target_is_shown() {
        let rows = without_target(&reply(SERIAL, BENCH).unwrap());
        assert_eq!(
            rows,
            [Row {
                name: "flush".into(),
                measured: Some(80.0),
                unit: "instructions".into(),
                at_most: None
            }]
        );
        assert!(table(&rows).contains("80"));
    }

    #[test]
    fn a_figure_beyond_its_target_or_without_a_measurement_is_not_ok() {
        let row = |measured, at_most| Row {
            name: String::new(),
            measured,
            unit: String::new(),
            at_most,
        };
        assert!(row(Some(1.0), Some(1.0)).ok() && row(Some(1.0), None).ok());
        assert!(!row(Some(1.1), Some(1.0)).ok() && !row(None, Some(1.0)).ok() && !row(None, None).ok());
    }
}
