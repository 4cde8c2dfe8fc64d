//! What exits and the boot cost, in instructions: the same on every host.

use anyhow::{Result, ensure};
use tests::Ended;
use xtask::commands::bench_figures::measure_boot;
use xtask::commands::bench_iommu::measure as measure_iommu;
use xtask::commands::bench_row::Row;
use xtask::{ExitKind, Machine};

#[test]
fn no_figure_of_the_boot_is_beyond_its_target() -> Result<()> {
    let (rows, outcome) = measure_boot()?;
    let outcome = outcome.expect(ExitKind::Success)?;
    let beyond: Vec<&Row> = rows.iter().filter(|row| !row.ok()).collect();
    ensure!(beyond.is_empty(), "{beyond:#?}\n{}", outcome.report());
    ensure!(
        rows.iter().filter(|row| row.at_most.is_some()).count() >= 7,
        "{rows:#?}"
    );
    Ok(())
}

#[test]
fn counted_instructions_are_the_same_in_two_runs() -> Result<()> {
    let exits = || -> Result<Vec<String>> {
        let machine = Machine::new().icount(true).exec(&["hv bench --json"]);
        let ended = Ended::run(&machine, ExitKind::Success)?;
        Ok(ended
            .lines_with("median_ticks")
            .iter()
            .map(|&line| line.to_owned())
            .collect())
    };
    let first = exits()?;
    assert_eq!(first.len(), 1);
    assert_eq!(first, exits()?);
    Ok(())
}

#[test]
fn no_figure_of_the_iommu_is_beyond_its_target() -> Result<()> {
    // A host may be slow in all runs of one machine and in none of the other's; then it is asked once more.
    iommu_is_within_its_targets().or_else(|beyond| {
        println!("{beyond}\nonce more:");
        iommu_is_within_its_targets()
    })
}

fn iommu_is_within_its_targets() -> Result<()> {
    let (rows, outcome) = measure_iommu()?;
    let outcome = outcome.expect(ExitKind::Success)?;
    println!("{rows:#?}");
    // With many reads under way, how many one interrupt ends is up to the host: that figure is for the benchmark's reader.
    let judged = rows.iter().filter(|row| !row.name.ends_with("one of 32"));
    let beyond: Vec<&Row> = judged.filter(|row| !row.ok()).collect();
    ensure!(beyond.is_empty(), "{beyond:#?}\n{}", outcome.report());
    ensure!(
        rows.iter().filter(|row| row.at_most.is_some()).count() == 5,
        "{rows:#?}"
    );
    Ok(())
}
