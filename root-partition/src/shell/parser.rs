//! A line to words: blanks part them, `'…'` and `"…"` hold them together, `#` begins a comment.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};

/// A word of a command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Word {
    /// The text, without its quotes.
    pub text: String,
    /// Some of it was quoted: it is text, even where it begins with `--`.
    pub quoted: bool,
    /// Where it begins in the line, in bytes.
    pub start: usize,
}

impl Word {
    /// Whether it is a flag: `--json`, `-h`.
    pub fn is_flag(&self) -> bool {
        !self.quoted && self.text.len() > 1 && self.text.starts_with('-')
    }
}

/// Why a line cannot be split.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseError {
    /// A quote has no partner.
    #[error(
        "the quote {quote} in column {column} is never closed: add another {quote}, or put it inside {other}…{other}"
    )]
    Unterminated {
        /// The quote.
        quote: char,
        /// The other kind of quote.
        other: char,
        /// Its column in the line, from 1.
        column: usize,
    },
}

/// Splits `line` into words. Inside `"…"`, `\"` and `\\` stand for `"` and `\`; elsewhere `\` is an ordinary character.
pub fn words(line: &str) -> Result<Vec<Word>, ParseError> {
    let (words, open) = split(line);
    match open {
        Some((quote, index)) => Err(ParseError::Unterminated {
            quote,
            other: if quote == '"' { '\'' } else { '"' },
            column: line[..index].chars().count() + 1,
        }),
        None => Ok(words),
    }
}

/// Splits the start of a line, for completion: the words before the last one, and that one, which may be empty and
/// whose quotes may be open.
pub fn words_before_cursor(line: &str) -> (Vec<Word>, Word) {
    let (mut words, open) = split(line);
    let ends_in_word = open.is_some() || !line.ends_with(char::is_whitespace);
    let last = if ends_in_word { words.pop() } else { None };
    let empty = Word {
        text: String::new(),
        quoted: false,
        start: line.len(),
    };
    (words, last.unwrap_or(empty))
}

/// The words, and the quote that is still open at the end with its position.
fn split(line: &str) -> (Vec<Word>, Option<(char, usize)>) {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut open: Option<(char, usize)> = None;
    let mut characters = line.char_indices().peekable();
    while let Some((index, character)) = characters.next() {
        if open.is_none() && character.is_whitespace() {
            words.extend(word.take());
            continue;
        }
        if open.is_none() && character == '#' && word.is_none() {
            break;
        }
        let word = word.get_or_insert_with(|| Word {
            text: String::new(),
            quoted: false,
            start: index,
        });
        match (open, character) {
            (Some((quote, _)), _) if character == quote => open = None,
            (Some(('"', _)), '\\') => {
                let escaped = characters.next_if(|(_, next)| matches!(next, '"' | '\\'));
                word.text.push(escaped.map_or('\\', |(_, next)| next));
            }
            (None, '"' | '\'') => {
                word.quoted = true;
                open = Some((character, index));
            }
            _ => word.text.push(character),
        }
    }
    words.extend(word);
    (words, open)
}

/// `text` as a word of a command line, quoted where it must be.
pub fn quote(text: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && !matches!(c, '"' | '\'' | '#');
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(plain) {
        return text.to_string();
    }
    alloc::format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(line: &str) -> Vec<String> {
        let words = words(line).expect("splits");
        words.into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn blanks_part_words_and_quotes_hold_them_together() {
        assert_eq!(texts("  hv \t info "), ["hv", "info"]);
        assert_eq!(
            texts(r#"echo 'a  b' "c 'd'" e"f g"h"#),
            ["echo", "a  b", "c 'd'", "ef gh"]
        );
        assert_eq!(texts(r#"'' """#), ["", ""]);
        assert_eq!(texts(r#""\"\\\n" '\' \"#), [r#""\\n"#, "\\", "\\"]);
        assert!(texts("   ").is_empty());
    }

    #[test]
    fn a_comment_ends_the_line_but_only_at_the_start_of_a_word() {
        assert_eq!(texts("hv info # all of it"), ["hv", "info"]);
        assert_eq!(texts("echo a#b '#c'"), ["echo", "a#b", "#c"]);
    }

    #[test]
    fn an_open_quote_is_an_error_that_says_where_it_began() {
        let error = words("echo ä 'b").expect_err("is open");
        assert_eq!(
            alloc::format!("{error}"),
            "the quote ' in column 8 is never closed: add another ', or put it inside \"…\""
        );
    }

    #[test]
    fn a_quoted_word_is_no_flag() {
        let words = words("--json '--json' - -h").expect("splits");
        let flags: Vec<bool> = words.iter().map(Word::is_flag).collect();
        assert_eq!(flags, [true, false, false, true]);
    }

    #[test]
    fn completion_sees_the_word_at_the_cursor() {
        let (before, last) = words_before_cursor("hv in");
        assert_eq!((before.len(), last.text.as_str(), last.start), (1, "in", 3));
        let (before, last) = words_before_cursor("hv ");
        assert_eq!((before.len(), last.text.as_str(), last.start), (1, "", 3));
        let (before, last) = words_before_cursor("vm start 'my v");
        assert_eq!((before.len(), last.text.as_str(), last.start), (2, "my v", 9));
    }

    proptest! {
        #[test]
        fn any_line_splits_or_is_refused(line in ".*") {
            let _ = words(&line);
            let (_, last) = words_before_cursor(&line);
            prop_assert!(line.is_char_boundary(last.start));
        }

        #[test]
        fn a_quoted_text_comes_back_as_one_word(text in ".*") {
            let back = words(&quote(&text)).expect("splits");
            prop_assert_eq!(back.len(), 1);
            prop_assert_eq!(&back[0].text, &text);
            prop_assert!(!back[0].is_flag());
        }
    }
}
