//! A line to a command and its arguments, or to an error that suggests the right one.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use core::cmp::Reverse;

use super::{COMMANDS, Command, arguments::Arguments};
use crate::shell::{parser, status::Failure};

/// Characters of a name that are compared; what is longer is no misspelling.
const LONGEST_NAME: usize = 64;

/// A line that was understood.
pub struct Call {
    /// The command.
    pub command: &'static Command,
    /// Its arguments.
    pub arguments: Arguments,
}

/// Finds the command of `line`; `None` for a line without one.
pub fn resolve(line: &str) -> Result<Option<Call>, Failure> {
    let words = parser::words(line)?;
    if words.is_empty() {
        return Ok(None);
    }
    let names: Vec<&str> = words
        .iter()
        .take_while(|word| !word.is_flag())
        .map(|word| word.text.as_str())
        .collect();
    let command = find(COMMANDS, &names)?;
    let arguments = Arguments::bind(command, &words[command.words().count()..])?;
    Ok(Some(Call { command, arguments }))
}

/// The row of `table` whose name `words` begin with.
pub fn find<'t>(table: &'t [Command], words: &[&str]) -> Result<&'t Command, Failure> {
    let named = table
        .iter()
        .filter(|row| row.match_words(words) == row.words().count());
    match named.max_by_key(|row| row.words().count()) {
        Some(command) => Ok(command),
        None => Err(Failure::Usage(explain(table, words))),
    }
}

/// Why no row has the name that `words` begin with, and which one was probably meant.
fn explain(table: &[Command], words: &[&str]) -> String {
    let known = table.iter().map(|row| row.match_words(words)).max().unwrap_or(0);
    let (right, rest) = words.split_at(known);
    let right = right.join(" ");
    let rows: Vec<&Command> = table
        .iter()
        .filter(|row| row.match_words(words) == known)
        .collect();
    let Some(wrong) = rest.first() else {
        return match right.is_empty() {
            // A flag alone.
            true => String::from("a command begins with its name: 'help' lists the commands"),
            false => format!(
                "'{right}' needs a verb: {} ('help {right}' tells what they do)",
                rows.iter().map(|row| row.name()).collect::<Vec<_>>().join(", ")
            ),
        };
    };
    let near = nearest(&rows, words).or_else(|| {
        let nouns: Vec<&str> = rows.iter().map(|row| row.noun).collect();
        let noun = closest(wrong, &nouns).filter(|_| known == 0)?;
        Some((wrong.to_string(), noun.to_string()))
    });
    match near {
        Some((typed, near)) => format!("unknown command '{typed}': did you mean '{near}'?"),
        None if known == 0 => format!("unknown command '{wrong}': 'help' lists the commands"),
        None => format!("unknown command '{right} {wrong}': 'help {right}' lists what '{right}' can do"),
    }
}

/// The name of a row that `words` may be a misspelling of, and the words that are. Of two that are as near, the longer.
fn nearest(rows: &[&Command], words: &[&str]) -> Option<(String, String)> {
    let rated = rows.iter().filter_map(|row| {
        let length = row.words().count();
        let typed = words.get(..length)?.join(" ");
        Some((
            misspelling(&typed, &row.name())?,
            Reverse(length),
            typed,
            row.name(),
        ))
    });
    let (_, _, typed, name) = rated.min()?;
    Some((typed, name))
}

/// The one of `candidates` that `typed` may be a misspelling of.
pub fn closest<'c>(typed: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let rated = candidates
        .iter()
        .filter_map(|&candidate| Some((misspelling(typed, candidate)?, candidate)));
    Some(rated.min_by_key(|(distance, _)| *distance)?.1)
}

/// The number of typing errors that lead from `meant` to `typed`, where they are few enough to explain it.
fn misspelling(typed: &str, meant: &str) -> Option<usize> {
    let typed: Vec<char> = typed.chars().take(LONGEST_NAME).collect();
    let meant: Vec<char> = meant.chars().take(LONGEST_NAME).collect();
    let distance = distance(&typed, &meant);
    (distance <= (typed.len() / 3).clamp(1, 3)).then_some(distance)
}

/// Insertions, deletions, replacements and swaps of neighbours that lead from `a` to `b` (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = alloc::vec![i + 1; b.len() + 1];
        for (j, to) in b.iter().enumerate() {
            let replaced = last[j] + usize::from(from != to);
            row[j + 1] = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *from == b[j - 1] && a[i - 1] == *to {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        before = core::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::super::Run;
    use super::*;
    use crate::shell::output::Report;

    fn error(line: &str) -> String {
        match resolve(line) {
            Err(failure) => failure.to_string(),
            Ok(_) => panic!("'{line}' is understood"),
        }
    }

    fn call(line: &str) -> Call {
        resolve(line).expect("is understood").expect("has a command")
    }

    #[test]
    fn a_misspelt_command_gets_the_nearest_one() {
        for (line, near) in [
            ("hv inof", "unknown command 'hv inof': did you mean 'hv info'?"),
            ("vh info", "unknown command 'vh info': did you mean 'hv info'?"),
            (
                "hv stat --json",
                "unknown command 'hv stat': did you mean 'hv stats'?",
            ),
            ("pweroff", "unknown command 'pweroff': did you mean 'poweroff'?"),
            (
                "verison please",
                "unknown command 'verison': did you mean 'version'?",
            ),
            ("dve", "unknown command 'dve': did you mean 'dev'?"),
            ("dve list", "unknown command 'dve list': did you mean 'dev list'?"),
            (
                "hv frobnicate",
                "unknown command 'hv frobnicate': 'help hv' lists what 'hv' can do",
            ),
            (
                "xyzzy plugh",
                "unknown command 'xyzzy': 'help' lists the commands",
            ),
        ] {
            assert_eq!(error(line), near);
        }
    }

    #[test]
    fn a_noun_alone_lists_its_verbs() {
        assert_eq!(
            error("root"),
            "'root' needs a verb: root info, root log, root network, root ping ('help root' tells what they do)"
        );
        assert_eq!(error("root --json"), error("root"));
    }

    #[test]
    fn names_may_have_three_words() {
        let row = |noun, verb| super::super::command(noun, verb, "", Run::Now(|_| Ok(Report::new())));
        let table = [
            row("net", "list"),
            row("net", "forward add"),
            row("net", "forward list"),
        ];
        let find = |words: &[&str]| {
            find(&table, words)
                .map(Command::name)
                .map_err(|error| error.to_string())
        };
        assert_eq!(
            find(&["net", "forward", "list", "web"]),
            Ok("net forward list".into())
        );
        assert_eq!(
            find(&["net", "forward"]),
            Err("'net forward' needs a verb: net forward add, net forward list \
                 ('help net forward' tells what they do)"
                .into())
        );
        assert_eq!(
            find(&["net", "forward", "ad", "web"]),
            Err("unknown command 'net forward ad': did you mean 'net forward add'?".into())
        );
        assert_eq!(
            find(&["nte", "forwrad", "add"]),
            Err("unknown command 'nte forwrad add': did you mean 'net forward add'?".into())
        );
    }

    #[test]
    fn a_flag_is_no_command() {
        assert_eq!(
            error("--json hv info"),
            "a command begins with its name: 'help' lists the commands"
        );
    }

    #[test]
    fn flags_may_stand_anywhere_behind_the_name() {
        let found = call("hv selftest --json apic-page");
        assert_eq!(found.command.name(), "hv selftest");
        assert!(found.arguments.json());
        assert_eq!(found.arguments.word(0), Some("apic-page"));
    }

    #[test]
    fn a_flag_takes_its_value_from_the_same_word_or_the_next() {
        for line in [
            "hv stats --vp 1",
            "hv stats --vp=1",
            "hv stats --vp 0x1",
            "hv stats --vp 7 --vp 1",
        ] {
            assert_eq!(call(line).arguments.number("--vp"), Ok(Some(1)), "{line}");
        }
        let number = call("hv stats --vp one").arguments.number("--vp");
        assert_eq!(
            number.map_err(|failure| failure.to_string()),
            Err("--vp one: give a number, as in --vp 1".into())
        );
    }

    #[test]
    fn wrong_arguments_are_told_apart() {
        for (line, message) in [
            (
                "hv info now",
                "hv info: 'now' is one argument too many ('hv info --help' tells more)",
            ),
            (
                "hv log --folow",
                "hv log: unknown flag '--folow': did you mean '--follow'? ('hv log --help' tells more)",
            ),
            (
                "hv log --follow=x",
                "hv log: --follow takes no value ('hv log --help' tells more)",
            ),
            (
                "hv stats --vp",
                "hv stats: --vp needs a value: --vp N ('hv stats --help' tells more)",
            ),
            (
                "clear --json",
                "clear: unknown flag '--json': it takes --help; put text that begins with a dash in quotes \
                 ('clear --help' tells more)",
            ),
        ] {
            assert_eq!(error(line), message);
        }
    }

    #[test]
    fn quoted_words_and_words_behind_two_dashes_are_text() {
        assert_eq!(call("echo '--json' a").arguments.words(), ["--json", "a"]);
        assert_eq!(call("echo -- --json").arguments.words(), ["--json"]);
    }

    #[test]
    fn a_line_without_words_is_no_command() {
        assert!(resolve("  # nothing").expect("is understood").is_none());
    }

    #[test]
    fn the_distance_counts_a_swap_once() {
        let distance = |a: &str, b: &str| {
            super::distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>())
        };
        assert_eq!(distance("inof", "info"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
