//! What may stand where the user pressed Tab.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};

use super::{COMMANDS, Command, dispatch};
use crate::shell::{
    parser::{self, Word},
    system::System,
};

/// The candidates for the word at the end of `before_cursor`, sorted, and where in it that word begins.
pub fn candidates(system: &dyn System, before_cursor: &str) -> (usize, Vec<String>) {
    let (words, last) = parser::words_before_cursor(before_cursor);
    let mut found = if last.quoted {
        Vec::new()
    } else {
        possible(system, &words, &last)
    };
    // What would have to be quoted is left to the user: half a quoted word is harder to read than to type.
    found.retain(|text| {
        text.starts_with(&last.text) && (last.text.starts_with('-') || parser::quote(text) == *text)
    });
    found.sort();
    found.dedup();
    (last.start, found)
}

/// Everything that may follow `words`.
fn possible(system: &dyn System, words: &[Word], last: &Word) -> Vec<String> {
    let is_flag = last.text.starts_with('-');
    let names: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    match names.as_slice() {
        ["help", about @ ..] if !is_flag => next_words(about),
        _ => match dispatch::find(COMMANDS, &names) {
            Ok(command) => parameters(system, command, &words[command.words().count()..], last),
            Err(_) => next_words(&names),
        },
    }
}

/// The words that go on from `names` to the name of a command.
fn next_words(names: &[&str]) -> Vec<String> {
    let rows = COMMANDS
        .iter()
        .filter(|row| row.match_words(names) == names.len());
    rows.filter_map(|row| row.words().nth(names.len()))
        .map(str::to_string)
        .collect()
}

fn parameters(system: &dyn System, command: &Command, given: &[Word], last: &Word) -> Vec<String> {
    if last.text.starts_with('-') {
        return command.all_flags().map(|flag| flag.name.to_string()).collect();
    }
    let takes_value = |word: &Word| {
        let mut flags = command.all_flags();
        word.is_flag() && flags.any(|flag| flag.name == word.text && flag.value.is_some())
    };
    if given.last().is_some_and(takes_value) {
        return Vec::new();
    }
    let mut place = 0;
    let mut given = given.iter();
    while let Some(word) = given.next() {
        if takes_value(word) {
            given.next();
        } else if !word.is_flag() {
            place += 1;
        }
    }
    let repeated = command.arguments.last().filter(|argument| argument.repeated);
    let argument = command.arguments.get(place).or(repeated);
    let values = argument.and_then(|argument| argument.values);
    values.map(|values| values(system)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::super::fake::FakeSystem;
    use super::*;

    fn complete(typed: &str) -> (usize, Vec<String>) {
        candidates(&FakeSystem::new(), typed)
    }

    #[test]
    fn nouns_verbs_flags_and_values_complete_from_the_table() {
        for (typed, start, expected) in [
            ("h", 0, &["help", "history", "hv"][..]),
            ("hv s", 3, &["selftest", "stats"]),
            ("  root ", 7, &["info", "log", "network", "ping"]),
            ("hv log --f", 7, &["--follow"]),
            ("hv log -", 7, &["--follow", "--help", "--json"]),
            ("hv selftest a", 12, &["apic-page"]),
            ("hv selftest --json iommu", 19, &["iommu-registers"]),
            ("hv selftest apic-page ", 22, &[]),
            ("hv stats --vp ", 14, &[]),
            ("help h", 5, &["help", "history", "hv"]),
            ("help hv be", 8, &["bench"]),
            ("help --", 5, &["--help", "--json"]),
            ("xyzzy ", 6, &[]),
            ("hv xyzzy ", 9, &[]),
            ("hv 'in", 3, &[]),
        ] {
            let found = complete(typed);
            assert_eq!(found.0, start, "{typed}");
            assert_eq!(found.1, expected, "{typed}");
        }
    }

    #[test]
    fn an_empty_line_offers_every_first_word() {
        assert_eq!(complete("").1.len(), 15);
    }
}
