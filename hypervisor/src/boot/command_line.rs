//! The command line: words of the form `key` or `key=value`, separated by blanks.

use arrayvec::ArrayString;

/// Most bytes of a command line.
pub const CAPACITY: usize = 1024;

/// The command line, copied out of the boot loader's memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CommandLine {
    text: ArrayString<CAPACITY>,
}

/// Why a command line was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CommandLineError {
    /// More than [`CAPACITY`] bytes.
    #[error("the command line is longer than {CAPACITY} bytes")]
    TooLong,
    /// Not UTF-8.
    #[error("the command line is not UTF-8")]
    NotText,
}

/// A word whose value makes no sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("command line: {word}: {expected} is expected")]
pub struct WordError<'a> {
    /// The whole word.
    pub word: &'a str,
    /// What its value should have been.
    pub expected: &'static str,
}

/// One word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word<'a> {
    /// All of it.
    pub text: &'a str,
    /// What is before `=`, or all of it.
    pub key: &'a str,
    /// What is after `=`.
    pub value: Option<&'a str>,
}

impl CommandLine {
    /// Copies `bytes`, which end at the first zero or where the slice ends.
    pub fn new(bytes: &[u8]) -> Result<Self, CommandLineError> {
        let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        let text = core::str::from_utf8(bytes).map_err(|_| CommandLineError::NotText)?;
        Ok(Self {
            text: ArrayString::from(text).map_err(|_| CommandLineError::TooLong)?,
        })
    }

    /// All of it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The words in their order.
    pub fn words(&self) -> impl DoubleEndedIterator<Item = Word<'_>> {
        self.text
            .split_ascii_whitespace()
            .map(|text| match text.split_once('=') {
                Some((key, value)) => Word {
                    text,
                    key,
                    value: Some(value),
                },
                None => Word {
                    text,
                    key: text,
                    value: None,
                },
            })
    }

    /// The last word with this key: later words override earlier ones.
    fn word(&self, key: &str) -> Option<Word<'_>> {
        self.words().rev().find(|word| word.key == key)
    }

    /// The value of `key`, if it is given with one.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.word(key)?.value
    }

    /// Whether `key` is given alone or as `key=on`, and not as `key=off`.
    pub fn flag(&self, key: &str) -> Result<bool, WordError<'_>> {
        let Some(word) = self.word(key) else {
            return Ok(false);
        };
        match word.value {
            None | Some("on") => Ok(true),
            Some("off") => Ok(false),
            Some(_) => Err(WordError {
                word: word.text,
                expected: "on or off",
            }),
        }
    }

    /// The number given for `key`: decimal, or hexadecimal after `0x`.
    pub fn number(&self, key: &str) -> Result<Option<u64>, WordError<'_>> {
        let Some(word) = self.word(key) else {
            return Ok(None);
        };
        let value = word.value.unwrap_or_default();
        let number = match value.strip_prefix("0x") {
            Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16).ok(),
            None if !value.starts_with('+') => value.parse().ok(),
            _ => None,
        };
        number.map(Some).ok_or(WordError {
            word: word.text,
            expected: "a number",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(text: &str) -> CommandLine {
        CommandLine::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn words_have_keys_and_values() {
        let line = line("  log=debug\tquiet cpus=2=3 ");
        assert_eq!(line.get("log"), Some("debug"));
        assert_eq!(line.get("cpus"), Some("2=3"));
        assert_eq!(line.get("quiet"), None);
        assert_eq!(line.flag("quiet"), Ok(true));
        assert_eq!(line.flag("loud"), Ok(false));
    }

    #[test]
    fn the_last_word_wins() {
        let line = line("log=debug iommu log=info iommu=off");
        assert_eq!(line.get("log"), Some("info"));
        assert_eq!(line.flag("iommu"), Ok(false));
    }

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        let line = line("a=12 b=0x1f c= d=0x e=-1 f=0x+1 g=+1 h=18446744073709551616");
        assert_eq!(line.number("a"), Ok(Some(12)));
        assert_eq!(line.number("b"), Ok(Some(0x1f)));
        assert_eq!(line.number("absent"), Ok(None));
        for key in ["c", "d", "e", "f", "g", "h"] {
            assert!(line.number(key).is_err(), "{key}");
        }
    }

    #[test]
    fn an_error_names_the_word() {
        let line = line("quantum=fast");
        let error = line.number("quantum").unwrap_err();
        assert_eq!(
            error.to_string(),
            "command line: quantum=fast: a number is expected"
        );
    }

    #[test]
    fn it_ends_at_the_first_zero() {
        assert_eq!(CommandLine::new(b"quiet\0junk\xff").unwrap().text(), "quiet");
    }

    #[test]
    fn too_many_bytes_and_bytes_that_are_no_text_are_refused() {
        assert_eq!(
            CommandLine::new(&[b'a'; CAPACITY + 1]),
            Err(CommandLineError::TooLong)
        );
        assert_eq!(CommandLine::new(b"a\xff"), Err(CommandLineError::NotText));
        assert!(CommandLine::new(&[b'a'; CAPACITY]).is_ok());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), text in ".{0,200}", key in ".{0,3}") {
            let _ = CommandLine::new(&bytes);
            if let Ok(line) = CommandLine::new(text.as_bytes()) {
                let _ = (line.get(&key), line.flag(&key), line.number(&key));
            }
        }
    }
}
