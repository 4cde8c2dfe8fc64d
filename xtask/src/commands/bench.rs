//! `cargo xtask bench`: figures that do not depend on the host's speed, beside their targets.
//!
//! Machines count instructions here (`-icount`): a time stamp counter's difference is a number of instructions, the same
//! on every host. Each figure is a row of the table `BOOT`; a benchmark of the root's shell that has no row is shown without a
//! target.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::console::PROMPT;
use crate::machine::Machine;
use crate::outcome::{ExitKind, Outcome};
use crate::{images, setup};

/// The command whose reply lists all benchmarks of the root's shell.
const BENCH: &str = "hv bench --json";

/// The command whose reply describes the hypervisor.
const INFO: &str = "hv info --json";

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
    match arguments.what {
        What::Boot => boot(),
    }
}

fn boot() -> Result<ExitCode> {
    setup::qemu()?;
    images::build()?;
    let (rows, outcome) = measure_boot()?;
    print!("{}", table(&rows));
    if outcome.status != ExitKind::Success {
        eprintln!("error: {}", outcome.report());
        return Ok(ExitCode::FAILURE);
    }
    Ok(if rows.iter().all(Row::ok) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The rows of `bench boot`, and the machine's end.
pub fn measure_boot() -> Result<(Vec<Row>, Outcome)> {
    let images = images::built()?;
    let mut commands = vec![BENCH];
    for figure in BOOT {
        if let Source::Reply { command, .. } = figure.source
            && !commands.contains(&command)
        {
            commands.push(command);
        }
    }
    let outcome = Machine::new().icount(true).exec(&commands).run()?;
    let mut rows = Vec::new();
    for figure in BOOT {
        let measured = match figure.source {
            Source::HypervisorImage => {
                Some(fs::metadata(&images.hypervisor).context("no hypervisor")?.len() as f64 / 1024.0)
            }
            Source::Reply { command, path } => {
                reply(&outcome.serial, command).and_then(|json| look_up(&json, path)?.as_f64())
            }
        };
        rows.push(Row {
            name: figure.name.into(),
            measured,
            unit: figure.unit.into(),
            at_most: figure.at_most,
        });
    }
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

/// The JSON document that `command` printed: the first line after the command's own that is one.
fn reply(serial: &str, command: &str) -> Option<Value> {
    let after = serial
        .lines()
        .skip_while(|line| !line.trim_end().ends_with(command))
        .skip(1);
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
fn look_up<'v>(document: &'v Value, path: &str) -> Option<&'v Value> {
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
