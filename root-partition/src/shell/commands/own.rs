//! The shell's own commands: `history`, `echo`, `clear`.

use super::{Invocation, Outcome, arguments::Argument};
use crate::shell::output::{Report, Table, Value};

pub(super) const TEXT: Argument = Argument {
    name: "TEXT",
    help: "What is printed, with one blank between two words",
    required: false,
    repeated: true,
    values: None,
};

pub(super) fn history(invocation: &Invocation<'_>) -> Outcome {
    let mut table = Table::new("lines", &[("number", "number"), ("line", "line")]);
    for (number, line) in (1..).zip(invocation.history.lines()) {
        table.row([Value::Number(number), Value::text(line)]);
    }
    Ok(Report::table(table))
}

pub(super) fn echo(invocation: &Invocation<'_>) -> Outcome {
    Ok(Report::remark(invocation.arguments.words().join(" ") + "\n"))
}

pub(super) fn clear(invocation: &Invocation<'_>) -> Outcome {
    invocation.console.control(b"\x1b[2J\x1b[H");
    Ok(Report::new())
}
