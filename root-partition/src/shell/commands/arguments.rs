//! What a command takes, and the words of a line bound to it.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use super::{Command, dispatch::closest};
use crate::shell::{parser::Word, status::Failure, system::System};

/// An argument of a command.
#[derive(Clone, Copy, Debug)]
pub struct Argument {
    /// Its name in the help, in capitals.
    pub name: &'static str,
    /// One line, without a full stop.
    pub help: &'static str,
    /// The command needs it.
    pub required: bool,
    /// It takes all words that follow.
    pub repeated: bool,
    /// What it may be, for completion.
    pub values: Option<fn(&dyn System) -> Vec<String>>,
}

/// A flag of a command.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// With its dashes: `--follow`.
    pub name: &'static str,
    /// The name of its value in the help (`N` in `--vp N`), if it takes one.
    pub value: Option<&'static str>,
    /// One line, without a full stop.
    pub help: &'static str,
}

/// Taken by every command.
pub static HELP: Flag = Flag {
    name: "--help",
    value: None,
    help: "Show how the command is used",
};

/// Taken by every command that prints data.
pub static JSON: Flag = Flag {
    name: "--json",
    value: None,
    help: "Print one JSON document instead of text",
};

/// The words behind a command's name, checked against its row.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Arguments {
    words: Vec<String>,
    flags: Vec<(&'static str, Option<String>)>,
}

impl Arguments {
    /// Binds `words` to what `command` takes.
    pub fn bind(command: &Command, words: &[Word]) -> Result<Self, Failure> {
        let mut bound = Self::default();
        let mut words = words.iter();
        let mut only_words = false;
        while let Some(word) = words.next() {
            if only_words || !word.is_flag() {
                bound.words.push(word.text.clone());
            } else if word.text == "--" {
                only_words = true;
            } else {
                bound.bind_flag(command, &word.text, &mut words)?;
            }
        }
        if !bound.flag("--help") {
            bound.check_count(command)?;
        }
        Ok(bound)
    }

    fn bind_flag<'w>(
        &mut self,
        command: &Command,
        text: &str,
        words: &mut impl Iterator<Item = &'w Word>,
    ) -> Result<(), Failure> {
        let (name, attached) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_string())),
            None => (text, None),
        };
        let name = if name == "-h" { HELP.name } else { name };
        let flag = command
            .all_flags()
            .find(|flag| flag.name == name)
            .ok_or_else(|| unknown_flag(command, name))?;
        let value = match (flag.value, attached) {
            (None, None) => None,
            (None, Some(_)) => return Err(usage(command, format_args!("{} takes no value", flag.name))),
            (Some(_), Some(value)) => Some(value),
            (Some(meaning), None) => {
                let next = words.next().map(|word| word.text.clone());
                Some(next.ok_or_else(|| {
                    usage(
                        command,
                        format_args!("{} needs a value: {} {meaning}", flag.name, flag.name),
                    )
                })?)
            }
        };
        self.flags.push((flag.name, value));
        Ok(())
    }

    fn check_count(&self, command: &Command) -> Result<(), Failure> {
        if let Some(missing) = command
            .arguments
            .get(self.words.len())
            .filter(|next| next.required)
        {
            let what = format_args!("{} is missing: {}", missing.name, missing.help);
            return Err(usage(command, what));
        }
        let repeats = command.arguments.last().is_some_and(|last| last.repeated);
        match self.words.get(command.arguments.len()) {
            Some(extra) if !repeats => {
                Err(usage(command, format_args!("'{extra}' is one argument too many")))
            }
            _ => Ok(()),
        }
    }

    /// The argument at `index`.
    pub fn word(&self, index: usize) -> Option<&str> {
        self.words.get(index).map(String::as_str)
    }

    /// All arguments.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// Whether the flag `name` was given.
    pub fn flag(&self, name: &str) -> bool {
        self.flags.iter().any(|(given, _)| *given == name)
    }

    /// The value of the flag `name`; the last one where it was given twice.
    pub fn value(&self, name: &str) -> Option<&str> {
        let given = self.flags.iter().rev().find(|(given, _)| *given == name);
        given.and_then(|(_, value)| value.as_deref())
    }

    /// The value of the flag `name` as a number, decimal or `0x…`.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        let Some(text) = self.value(name) else {
            return Ok(None);
        };
        let number = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        number
            .map(Some)
            .map_err(|_| Failure::Usage(format!("{name} {text}: give a number, as in {name} 1")))
    }

    /// Whether programs read the output.
    pub fn json(&self) -> bool {
        self.flag(JSON.name)
    }
}

fn usage(command: &Command, what: core::fmt::Arguments<'_>) -> Failure {
    let name = command.name();
    Failure::Usage(format!("{name}: {what} ('{name} --help' tells more)"))
}

fn unknown_flag(command: &Command, name: &str) -> Failure {
    let known: Vec<&str> = command.all_flags().map(|flag| flag.name).collect();
    match closest(name, &known) {
        Some(near) => usage(
            command,
            format_args!("unknown flag '{name}': did you mean '{near}'?"),
        ),
        None => usage(
            command,
            format_args!(
                "unknown flag '{name}': it takes {}; put text that begins with a dash in quotes",
                known.join(", ")
            ),
        ),
    }
}
