//! `help` and `--help`, from the table.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use super::{COMMANDS, Command, Invocation, NOUNS, Outcome, arguments::Argument, dispatch};
use crate::shell::output::{Report, Table, Value};

pub(super) const COMMAND: Argument = Argument {
    name: "COMMAND",
    help: "The command, or only its first words",
    required: false,
    repeated: true,
    values: None,
};

pub(super) fn run(invocation: &Invocation<'_>) -> Outcome {
    let words: Vec<&str> = invocation.arguments.words().iter().map(String::as_str).collect();
    // Those that begin with all the words: `help net`, `help net forward`.
    let below = COMMANDS
        .iter()
        .filter(|row| row.match_words(&words) == words.len() && row.words().count() > words.len());
    let below: Vec<&Command> = below.collect();
    let is_command = COMMANDS
        .iter()
        .any(|row| row.match_words(&words) == words.len() && row.words().count() == words.len());
    match words.first() {
        None => Ok(all()),
        Some(noun) if !below.is_empty() && !is_command => Ok(of_noun(noun, &below)),
        Some(_) => dispatch::find(COMMANDS, &words).map(usage),
    }
}

fn all() -> Report {
    let mut report = Report::table(list(COMMANDS.iter()));
    report.push_remark(
        "'help hv' tells of the commands of 'hv', 'hv log --help' how one is used.\n\
         --json prints data for programs. Tab completes, the arrow keys recall and edit,\n\
         Ctrl-C ends a command.",
    );
    report
}

fn of_noun(noun: &str, commands: &[&Command]) -> Report {
    let mut report = Report::new();
    let about = NOUNS
        .iter()
        .find(|(name, _)| *name == noun)
        .map(|(_, about)| *about);
    report.push_fields(
        "",
        [
            ("noun", "noun", Value::text(noun)),
            ("about", "about", Value::optional(about)),
        ],
    );
    report.push_table(list(commands.iter().copied()));
    report
}

fn list<'c>(commands: impl Iterator<Item = &'c Command>) -> Table {
    let mut table = Table::new("commands", &[("usage", "command"), ("help", "what it does")]);
    for command in commands {
        table.row([Value::Text(arguments(command)), Value::text(command.help)]);
    }
    table
}

/// The name and the arguments: `hv bench [NAME]`. Flags would make lists too wide.
fn arguments(command: &Command) -> String {
    let mut text = command.name();
    for argument in command.arguments {
        let name = match argument.repeated {
            true => format!("{}…", argument.name),
            false => argument.name.to_string(),
        };
        match argument.required {
            true => text.push_str(&format!(" {name}")),
            false => text.push_str(&format!(" [{name}]")),
        }
    }
    text
}

/// The name, the arguments, and the flags that are its own: `hv log [--follow]`.
fn synopsis(command: &Command) -> String {
    let mut text = arguments(command);
    for flag in command.flags {
        match flag.value {
            Some(value) => text.push_str(&format!(" [{} {value}]", flag.name)),
            None => text.push_str(&format!(" [{}]", flag.name)),
        }
    }
    text
}

/// How `command` is used.
pub(crate) fn usage(command: &Command) -> Report {
    let mut report = Report::new();
    let json = if command.prints_data { " [--json]" } else { "" };
    report.push_fields(
        "",
        [
            ("usage", "usage", Value::Text(synopsis(command) + json)),
            ("help", "does", Value::text(command.help)),
        ],
    );
    let mut table = Table::new("parameters", &[("name", "parameter"), ("help", "what it does")]);
    for argument in command.arguments {
        table.row([Value::text(argument.name), Value::text(argument.help)]);
    }
    for flag in command.all_flags() {
        let name = match flag.value {
            Some(value) => format!("{} {value}", flag.name),
            None => flag.name.to_string(),
        };
        table.row([Value::Text(name), Value::text(flag.help)]);
    }
    report.push_table(table);
    report
}
