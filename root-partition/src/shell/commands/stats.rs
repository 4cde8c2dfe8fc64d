//! `hv stats`: the statistics pages of the VPs.

use alloc::{boxed::Box, format, vec::Vec};

use hypercall_api::counter::{
    EXIT_BASE, EXIT_NAMES, HYPERCALLS, HYPERVISOR_RUN_TIME, LP_MIGRATIONS, TOTAL_RUN_TIME,
};

use super::{Invocation, Outcome, arguments::Flag};
use crate::shell::{
    output::{Report, Table, Value},
    status::Failure,
    system::{Statistics, System},
};

pub(super) const VP: Flag = Flag {
    name: "--vp",
    value: Some("N"),
    help: "Show one VP instead of all",
};

/// Run times count in units of 100 ns.
const TIME_UNIT: u64 = 100;

/// What the VPs have run, in nanoseconds.
pub(super) struct RunTime {
    /// In all.
    pub(super) root: u64,
    /// Of this, what the hypervisor did for them.
    pub(super) hypervisor: u64,
}

/// What all VPs have run so far.
pub(super) fn run_time(system: &dyn System) -> Result<RunTime, Failure> {
    let mut sum = RunTime {
        root: 0,
        hypervisor: 0,
    };
    for vp in 0..system.vp_count() {
        let page = system.statistics(vp)?;
        sum.root += page[TOTAL_RUN_TIME].saturating_mul(TIME_UNIT);
        sum.hypervisor += page[HYPERVISOR_RUN_TIME].saturating_mul(TIME_UNIT);
    }
    Ok(sum)
}

pub(super) fn run(invocation: &Invocation<'_>) -> Outcome {
    let pages = pages(invocation)?;
    let mut report = Report::table(vp_table(&pages));
    report.push_table(exit_table(&pages));
    Ok(report)
}

/// The statistics of the VPs that were asked for, with their indexes.
fn pages(invocation: &Invocation<'_>) -> Result<Vec<(u32, Box<Statistics>)>, Failure> {
    let count = invocation.system.vp_count();
    let read = |system: &dyn System, vp| Ok((vp, system.statistics(vp)?));
    match invocation.arguments.number(VP.name)? {
        None => (0..count).map(|vp| read(invocation.system, vp)).collect(),
        Some(wanted) => match u32::try_from(wanted) {
            Ok(vp) if vp < count => Ok(alloc::vec![read(invocation.system, vp)?]),
            _ => Err(Failure::Usage(format!(
                "hv stats: there is no VP {wanted}: the VPs are 0 to {}",
                count.saturating_sub(1)
            ))),
        },
    }
}

pub(super) fn vp_table(pages: &[(u32, Box<Statistics>)]) -> Table {
    let mut table = Table::new(
        "vps",
        &[
            ("vp", "VP"),
            ("run_time_ns", "run time"),
            ("hypervisor_time_ns", "in hypervisor"),
            ("exits", "exits"),
            ("hypercalls", "hypercalls"),
            ("lp_migrations", "LP migrations"),
        ],
    );
    for (vp, page) in pages {
        table.row([
            Value::Number((*vp).into()),
            Value::Nanoseconds(page[TOTAL_RUN_TIME].saturating_mul(TIME_UNIT)),
            Value::Nanoseconds(page[HYPERVISOR_RUN_TIME].saturating_mul(TIME_UNIT)),
            Value::Number(sum(page[EXIT_BASE..][..EXIT_NAMES.len()].iter())),
            Value::Number(page[HYPERCALLS]),
            Value::Number(page[LP_MIGRATIONS]),
        ]);
    }
    table
}

/// Exit reasons by VPs, with sums both ways.
pub(super) fn exit_table(pages: &[(u32, Box<Statistics>)]) -> Table {
    let mut table = Table::new("exits", &[("reason", "exit")]);
    for (vp, _) in pages {
        table.column(format!("vp{vp}"), format!("VP {vp}"));
    }
    table.column("total", "total");
    let mut sums = alloc::vec![0; pages.len() + 1];
    for (index, reason) in EXIT_NAMES.iter().enumerate() {
        let mut counts: Vec<u64> = pages.iter().map(|(_, page)| page[EXIT_BASE + index]).collect();
        counts.push(sum(counts.iter()));
        for (sum, count) in sums.iter_mut().zip(&counts) {
            *sum = count.saturating_add(*sum);
        }
        table.row(exit_row(reason, counts));
    }
    table.row(exit_row("total", sums));
    table
}

fn exit_row(name: &str, counts: Vec<u64>) -> impl Iterator<Item = Value> {
    core::iter::once(Value::text(name)).chain(counts.into_iter().map(Value::Number))
}

fn sum<'a>(counts: impl Iterator<Item = &'a u64>) -> u64 {
    counts.fold(0, |sum, count| sum.saturating_add(*count))
}
