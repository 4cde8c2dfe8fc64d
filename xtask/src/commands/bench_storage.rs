//! `cargo xtask bench storage`: what a read of 4 KiB costs on the host, from the consumer over the ring to the provider and a disk of memory.
//!
//! Instructions are callgrind's. What is left out is the copy that the disk of memory makes.

use anyhow::Result;

use super::bench_row::Row;
use super::callgrind::Program;

/// Reads that are counted, beside as many again.
const ROUNDS: u64 = 3200;

/// How reads are made, what that is called, and the target in instructions.
const COUNTED: [(&str, &str, Option<f64>); 2] = [
    ("reads", "4 KiB read, one at a time", Some(1500.0)),
    ("batches", "4 KiB read, 32 at once", None),
];

/// Builds the benchmark and counts.
pub fn measure() -> Result<Vec<Row>> {
    let program = Program::build("bench-storage")?;
    let instructions = |what: &str| program.instructions(&["count", what], ROUNDS).ok();
    let copy = instructions("copies");
    let row = |(what, name, at_most): (&str, &str, Option<f64>)| {
        let read = instructions(what).zip(copy).map(|(read, copy)| read - copy);
        Row::instructions(name, read.map(f64::round), at_most)
    };
    Ok(COUNTED.map(row).into())
}
