//! What a child's exits and its start cost, in instructions: the same on every host.

use anyhow::{Result, ensure};
use xtask::commands::bench_figures::{measure_exits, measure_vm};
use xtask::commands::bench_row::Row;
use xtask::{ExitKind, Outcome};

fn are_within_their_targets(measured: (Vec<Row>, Outcome)) -> Result<()> {
    let (rows, outcome) = measured;
    let outcome = outcome.expect(ExitKind::Success)?;
    let beyond: Vec<&Row> = rows.iter().filter(|row| !row.ok()).collect();
    ensure!(beyond.is_empty(), "{beyond:#?}\n{}", outcome.report());
    ensure!(rows.iter().all(|row| row.at_most.is_some()), "{rows:#?}");
    Ok(())
}

#[test]
fn no_exit_of_a_child_costs_more_than_its_target() -> Result<()> {
    are_within_their_targets(measure_exits()?)
}

#[test]
fn making_and_starting_a_child_costs_no_more_than_its_target() -> Result<()> {
    are_within_their_targets(measure_vm()?)
}
