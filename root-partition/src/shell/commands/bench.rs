//! `hv bench`.

use alloc::{
    boxed::Box,
    format,
    string::{String, ToString},
    vec::Vec,
};

use super::{Invocation, Outcome, arguments::Argument, dispatch::closest};
use crate::shell::{
    output::{Report, Table, Value},
    status::Failure,
    system::{Named, Pending},
};

pub(super) const NAME: Argument = Argument {
    name: "NAME",
    help: "Make only this measurement",
    required: false,
    repeated: false,
    values: Some(|system| {
        system
            .benchmarks()
            .iter()
            .map(|known| known.name.to_string())
            .collect()
    }),
};

pub(super) fn run<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    Box::pin(async move {
        let known = invocation.system.benchmarks();
        let wanted = match invocation.arguments.word(0) {
            None => known,
            Some(name) => alloc::vec![find(&known, name)?],
        };
        let mut table = Table::new(
            "benchmarks",
            &[
                ("name", "benchmark"),
                ("minimum_ticks", "minimum"),
                ("median_ticks", "median"),
                ("rounds", "rounds"),
                ("description", "what is measured"),
            ],
        );
        for Named { name, description } in wanted {
            let measured = invocation.system.run_benchmark(name).await?;
            table.row([
                Value::text(name),
                Value::Number(measured.minimum),
                Value::Number(measured.median),
                Value::Number(measured.rounds),
                Value::text(description),
            ]);
        }
        Ok(Report::table(table))
    })
}

fn find(known: &[Named], name: &str) -> Result<Named, Failure> {
    let found = known.iter().find(|candidate| candidate.name == name);
    found.copied().ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|known| known.name).collect();
        unknown("hv bench", "benchmark", name, &names)
    })
}

/// The error for a `name` that is none of `names`.
pub(super) fn unknown(command: &str, kind: &str, name: &str, names: &[&str]) -> Failure {
    let advice = match closest(name, names) {
        Some(near) => format!("did you mean '{near}'?"),
        None if names.is_empty() => String::from("there are none"),
        None => format!("there are {}", names.join(", ")),
    };
    Failure::Usage(format!("{command}: unknown {kind} '{name}': {advice}"))
}
