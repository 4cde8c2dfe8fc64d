//! A line to a command and its arguments, or to an error that suggests the right one.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use super::{COMMANDS, Command, arguments::Arguments};
use crate::shell::{parser, status::Failure};

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
    let verb = words.get(1).filter(|word| !word.is_flag());
    let command = find(&words[0].text, verb.map(|word| word.text.as_str()))?;
    let arguments = Arguments::bind(command, &words[command.words()..])?;
    Ok(Some(Call { command, arguments }))
}

/// The command of these words; `verb` is what follows the first word, whether or not it is a verb.
pub fn find(noun: &str, verb: Option<&str>) -> Result<&'static Command, Failure> {
    let of_noun: Vec<&'static Command> = COMMANDS.iter().filter(|row| row.noun == noun).collect();
    let matching = of_noun
        .iter()
        .find(|row| row.verb.is_empty() || Some(row.verb) == verb);
    match (matching, verb) {
        (Some(command), _) => Ok(command),
        (None, None) if !of_noun.is_empty() => {
            let names: Vec<String> = of_noun.iter().map(|row| row.name()).collect();
            Err(Failure::Usage(format!(
                "'{noun}' needs a verb: {} ('help {noun}' tells what they do)",
                names.join(", ")
            )))
        }
        _ => Err(unknown(noun, verb)),
    }
}

/// The error for a command that does not exist, with the one that was probably meant.
fn unknown(noun: &str, verb: Option<&str>) -> Failure {
    let both = verb.map(|verb| format!("{noun} {verb}"));
    let nouns: Vec<&str> = COMMANDS.iter().map(|row| row.noun).collect();
    let is_noun = nouns.contains(&noun);
    // With a noun that exists, only the verb can be misspelt.
    let rows = COMMANDS
        .iter()
        .filter(|row| !row.verb.is_empty() && (!is_noun || row.noun == noun));
    let names: Vec<String> = rows.map(Command::name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let near = both.as_deref().and_then(|both| closest(both, &names));
    let (typed, advice) = match (both, near) {
        (Some(both), Some(near)) => (both, format!("did you mean '{near}'?")),
        (Some(both), None) if is_noun => (both, format!("'help {noun}' lists what '{noun}' can do")),
        _ => {
            let advice = match closest(noun, &nouns) {
                Some(near) => format!("did you mean '{near}'?"),
                None => String::from("'help' lists the commands"),
            };
            (noun.to_string(), advice)
        }
    };
    Failure::Usage(format!("unknown command '{typed}': {advice}"))
}

/// The one of `candidates` that differs from `typed` in so few characters that a typing error explains it.
pub fn closest<'c>(typed: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let typed: Vec<char> = typed.chars().take(64).collect();
    let allowed = (typed.len() / 3).clamp(1, 3);
    let rated = candidates.iter().map(|&candidate| {
        (
            distance(&typed, &candidate.chars().collect::<Vec<_>>()),
            candidate,
        )
    });
    let (best, candidate) = rated.min_by_key(|(distance, _)| *distance)?;
    (best <= allowed).then_some(candidate)
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
    use super::*;

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
            "'root' needs a verb: root info, root log ('help root' tells what they do)"
        );
        assert_eq!(error("root --json"), error("root"));
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
