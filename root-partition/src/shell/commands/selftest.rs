//! `hv selftest`: lists the self-tests, or runs them.

use alloc::{
    boxed::Box,
    string::{String, ToString},
    vec::Vec,
};

use super::{
    Invocation, Outcome,
    arguments::{Argument, Flag},
    bench::unknown,
};
use crate::shell::{
    output::{Report, Table, Value},
    status::Failure,
    system::{Pending, Selftest},
};

pub(super) const NAME: Argument = Argument {
    name: "NAME",
    help: "The test to run; without it, the tests are listed",
    required: false,
    repeated: false,
    values: Some(|system| {
        system
            .selftests()
            .iter()
            .map(|known| known.name.to_string())
            .collect()
    }),
};

pub(super) const ALL: Flag = Flag {
    name: "--all",
    value: None,
    help: "Run all tests but those that end the system",
};

pub(super) fn run<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    Box::pin(async move {
        let known = invocation.system.selftests();
        match (invocation.arguments.word(0), invocation.arguments.flag(ALL.name)) {
            (Some(_), true) => Err(Failure::Usage(String::from(
                "hv selftest: give a NAME or --all, not both",
            ))),
            (None, false) => Ok(Report::table(list(&known))),
            (None, true) => {
                let surviving: Vec<Selftest> = known.into_iter().filter(|test| !test.ends_system).collect();
                results(invocation, &surviving).await
            }
            (Some(name), false) => match known.iter().find(|test| test.name == name) {
                Some(test) => results(invocation, &[*test]).await,
                None => {
                    let names: Vec<&str> = known.iter().map(|test| test.name).collect();
                    Err(unknown("hv selftest", "self-test", name, &names))
                }
            },
        }
    })
}

fn list(known: &[Selftest]) -> Table {
    let mut table = Table::new(
        "selftests",
        &[
            ("name", "self-test"),
            ("ends_system", "ends system"),
            ("description", "what is tried"),
        ],
    );
    for test in known {
        table.row([
            Value::text(test.name),
            Value::Flag(test.ends_system),
            Value::text(test.description),
        ]);
    }
    table
}

async fn results(invocation: &Invocation<'_>, tests: &[Selftest]) -> Outcome {
    let mut table = Table::new(
        "results",
        &[
            ("name", "self-test"),
            ("passed", ""),
            ("", "result"),
            ("detail", "what was seen"),
        ],
    );
    let mut failed = false;
    for test in tests {
        let (passed, detail) = match invocation.system.run_selftest(test.name).await {
            Ok(seen) => (true, seen),
            Err(error) => (false, error.to_string()),
        };
        failed |= !passed;
        for line in detail.lines() {
            table.row([
                Value::text(test.name),
                Value::Flag(passed),
                Value::text(if passed { "pass" } else { "FAIL" }),
                Value::text(line),
            ]);
        }
    }
    let mut report = Report::table(table);
    report.failed = failed;
    Ok(report)
}
