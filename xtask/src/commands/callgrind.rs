//! Benchmarks on the host: programs of the package `bench`, whose instructions callgrind counts.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{images, paths};

/// A program that makes as many rounds as its last argument says, and nothing else.
pub struct Program(PathBuf);

impl Program {
    /// Builds the program `name`, and tells where callgrind is missing: then every count is an error.
    pub fn build(name: &str) -> Result<Self> {
        let mut cargo = images::cargo();
        cargo.args(["build", "--release", "--package", "bench", "--bin", name]);
        if !cargo.status().context("cannot start cargo")?.success() {
            bail!("the benchmark {name} does not build");
        }
        if paths::in_path("valgrind").is_none() {
            eprintln!(
                "warning: no instructions are counted: valgrind is not in PATH (Debian: apt-get install valgrind)"
            );
        }
        Ok(Self(paths::target()?.join("release").join(name)))
    }

    /// Runs it with these arguments; what it prints.
    pub fn output(&self, arguments: &[&str]) -> Result<String> {
        let done = Command::new(&self.0).args(arguments).output();
        let done = done.context("cannot start the benchmark")?;
        if !done.status.success() {
            bail!("the benchmark failed: {}", String::from_utf8_lossy(&done.stderr));
        }
        Ok(String::from_utf8(done.stdout)?)
    }

    /// Instructions of a round, of so many beside as many again: what start and end cost is not in the difference.
    pub fn instructions(&self, arguments: &[&str], rounds: u64) -> Result<f64> {
        let count = |rounds: u64| -> Result<u64> {
            let mut valgrind = Command::new(paths::in_path("valgrind").context("no valgrind")?);
            valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
            valgrind.arg(&self.0).args(arguments).arg(rounds.to_string());
            let done = valgrind.output()?;
            collected(&String::from_utf8_lossy(&done.stderr)).context("callgrind counted nothing")
        };
        let (once, twice) = (count(rounds)?, count(2 * rounds)?);
        Ok(twice.saturating_sub(once) as f64 / rounds as f64)
    }
}

/// The number in callgrind's line `==PID== Collected : N`.
fn collected(report: &str) -> Option<u64> {
    let mut lines = report.lines().filter_map(|line| line.split_once("Collected : "));
    lines.next()?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrinds_count_is_found() {
        let report = "==7== Events    : Ir\n==7== Collected : 4170927\n==7==\n";
        assert_eq!(collected(report), Some(4_170_927));
        assert_eq!(collected("valgrind: no such program"), None);
    }
}
