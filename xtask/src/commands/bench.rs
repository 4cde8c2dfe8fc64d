//! `cargo xtask bench`: figures that do not depend on the host's speed, beside their targets.
//!
//! Machines count instructions here (`-icount`): a time stamp counter's difference is a number of instructions, the same
//! on every host. On the host, callgrind counts.

use std::process::ExitCode;

use anyhow::Result;

use super::bench_row::{Row, table};
use super::{
    bench_figures, bench_guest_io, bench_iommu, bench_linux, bench_net, bench_net_debian, bench_ring,
    bench_storage,
};
use crate::outcome::{ExitKind, Outcome};
use crate::{images, setup};

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
    /// Count the instructions of a frame on the host, and of TCP between two children on a machine: ours, and Debian's
    Net {
        /// Only this part
        part: Option<Part>,
    },
}

/// A part of a benchmark that has several.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Part {
    /// What is counted on the host
    Host,
    /// What is counted on a machine with children of ours
    Machine,
    /// What is counted on a machine with two children of Debian's kernel
    Debian,
}

impl What {
    /// Whether it starts machines.
    const fn takes_machines(&self) -> bool {
        !matches!(
            self,
            Self::Ring
                | Self::Storage
                | Self::Net {
                    part: Some(Part::Host)
                }
        )
    }
}

/// What was found: the rows, how the last machine ended if there was one, and more for a person to read.
type Found = (Vec<Row>, Option<Outcome>, String);

/// What measures on machines: the rows, how the last one ended, and more for a person to read.
type Measure = fn() -> Result<(Vec<Row>, Outcome, String)>;

/// Measures, prints the table, and fails when a figure is missing or beyond its target.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.what.takes_machines() {
        setup::qemu()?;
        images::build()?;
    }
    let alone = |rows| (rows, None, String::new());
    let of_machine = |(rows, outcome)| (rows, Some(outcome), String::new());
    let (rows, outcome, text): Found = match arguments.what {
        What::Boot => of_machine(bench_figures::measure_boot()?),
        What::Exits => of_machine(bench_figures::measure_exits()?),
        What::Vm => of_machine(bench_figures::measure_vm()?),
        What::Disk => of_machine(bench_figures::measure_disk()?),
        What::Iommu => of_machine(bench_iommu::measure()?),
        What::GuestIo => {
            let (rows, outcome, text) = bench_guest_io::measure()?;
            (rows, Some(outcome), text)
        }
        What::Linux => {
            let (rows, text) = bench_linux::measure()?;
            (rows, None, text)
        }
        What::Ring => alone(bench_ring::measure()?),
        What::Storage => alone(bench_storage::measure()?),
        What::Net { part } => net(part)?,
    };
    print!("{text}{}", table(&rows));
    if let Some(outcome) = outcome.filter(|outcome| outcome.status != ExitKind::Success) {
        eprintln!("error: {}", outcome.report());
        return Ok(ExitCode::FAILURE);
    }
    Ok(match rows.iter().all(Row::ok) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn net(part: Option<Part>) -> Result<Found> {
    let wants = |one: Part| part.is_none_or(|part| part == one);
    let mut found = Found::default();
    if wants(Part::Host) {
        found.0 = bench_net::measure_host()?;
    }
    let measures: [(Part, Measure); 2] = [
        (Part::Machine, bench_net::measure_machine),
        (Part::Debian, bench_net_debian::measure),
    ];
    for (_, measure) in measures.iter().filter(|(one, _)| wants(*one)) {
        let (rows, outcome, text) = measure()?;
        let failed = outcome.status != ExitKind::Success;
        found.0.extend(rows);
        found.1 = Some(outcome);
        found.2 += &text;
        if failed {
            break;
        }
    }
    Ok(found)
}
