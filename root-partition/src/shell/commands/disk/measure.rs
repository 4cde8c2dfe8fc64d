//! `disk bench`: what reading 4 KiB costs.

use alloc::{boxed::Box, format};

use super::{disks, name};
use crate::shell::{
    commands::{Invocation, Outcome},
    output::{Report, Table, Value},
    system::Pending,
};

/// Requests under way, in turn.
const DEPTHS: [usize; 2] = [1, 32];

pub(in super::super) fn run<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    Box::pin(async move {
        let disks = disks(invocation)?;
        let mut table = Table::new(
            "benchmarks",
            &[
                ("name", ""),
                ("depth", "depth"),
                ("rounds", "reads"),
                ("run_time_ns", "run time a read"),
                ("hypervisor_time_ns", "in hypervisor"),
                ("elapsed_ns", "elapsed a read"),
            ],
        );
        for depth in DEPTHS {
            let figure = disks.measure(name(invocation), depth).await?;
            table.row([
                Value::Text(format!("read-4k-qd{depth}")),
                Value::Number(figure.depth),
                Value::Number(figure.rounds),
                Value::Nanoseconds(figure.run_time),
                Value::Nanoseconds(figure.hypervisor_time),
                Value::Nanoseconds(figure.elapsed),
            ]);
        }
        Ok(Report::table(table))
    })
}
