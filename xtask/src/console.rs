//! What a machine printed on its serial line, and the search in it.

/// How many last lines of a console an error message carries.
pub const TAIL_LINES: usize = 200;

/// The prompt of the root partition's shell. After a command that failed, `[status] ` stands before it.
pub const PROMPT: &str = "partita> ";

/// What a command of the root partition's shell answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its status; 0 is success.
    pub status: u8,
    /// What it printed.
    pub text: String,
}

impl Reply {
    /// Reads what stands between a command's line and the next [`PROMPT`].
    pub(crate) fn parse(output: &str) -> Self {
        let (text, last) = output.rsplit_once('\n').unwrap_or(("", output));
        let status = last
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix("] "))
            .and_then(|n| n.parse().ok());
        match status {
            Some(status) => Self {
                status,
                text: text.to_owned(),
            },
            None => Self {
                status: 0,
                text: output.trim_end_matches('\n').to_owned(),
            },
        }
    }
}

/// A serial line's output as text: without carriage returns and terminal control sequences, and with a reading position
/// that moves over what [`Transcript::find`] has found.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    text: String,
    position: usize,
    escape: Escape,
    partial: Vec<u8>,
}

/// Where the cleaner stands in a terminal control sequence (ECMA-48).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// After ESC.
    Started,
    /// In a control sequence (`ESC [ …`), up to its final byte.
    Control,
}

impl Transcript {
    /// Adds what came over the line; sequences and characters may be cut anywhere.
    pub fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.escape = match (self.escape, byte) {
                (_, 0x1b) => Escape::Started,
                (Escape::Started, b'[') => Escape::Control,
                (Escape::Started, _) => Escape::None,
                (Escape::Control, 0x40..=0x7e) => Escape::None,
                (Escape::Control, _) => Escape::Control,
                (Escape::None, b'\r' | 0) => Escape::None,
                (Escape::None, _) => {
                    self.push_byte(byte);
                    Escape::None
                }
            };
        }
    }

    fn push_byte(&mut self, byte: u8) {
        if byte.is_ascii() && self.partial.is_empty() {
            self.text.push(char::from(byte));
            return;
        }
        self.partial.push(byte);
        match std::str::from_utf8(&self.partial) {
            Ok(text) => self.text.push_str(text),
            // The character goes on, in at most four bytes.
            Err(error) if error.error_len().is_none() && error.valid_up_to() == 0 => return,
            Err(_) => self.text.push_str(&String::from_utf8_lossy(&self.partial)),
        }
        self.partial.clear();
    }

    /// Searches the unread text for the pattern that stands first, moves the reading position behind it, and returns
    /// which pattern it was and the text read over, the pattern included.
    pub fn find(&mut self, patterns: &[&str]) -> Option<(usize, String)> {
        let unread = &self.text[self.position..];
        let found = patterns
            .iter()
            .enumerate()
            .filter_map(|(index, pattern)| Some((unread.find(pattern)?, index)));
        let (at, index) = found.min()?;
        let end = at + patterns[index].len();
        let read = unread[..end].to_owned();
        self.position += end;
        Some((index, read))
    }

    /// All text so far.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// The last lines of a console, for an error message.
pub fn tail(text: &str) -> &str {
    let text = text.trim_end();
    match text.rmatch_indices('\n').nth(TAIL_LINES - 1) {
        Some((at, _)) => &text[at + 1..],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript(chunks: &[&[u8]]) -> Transcript {
        let mut transcript = Transcript::default();
        for chunk in chunks {
            transcript.push(chunk);
        }
        transcript
    }

    #[test]
    fn a_pattern_is_found_across_chunks_and_only_once() {
        let mut console = transcript(&[b"boot\r\nro", b"ot> he", b"llo root> "]);
        assert_eq!(console.find(&["root> "]), Some((0, "boot\nroot> ".into())));
        assert_eq!(console.find(&["root> "]), Some((0, "hello root> ".into())));
        assert_eq!(console.find(&["root> "]), None);
        console.push(b"root> ");
        assert_eq!(console.find(&["root> "]), Some((0, "root> ".into())));
    }

    #[test]
    fn of_several_patterns_the_one_that_stands_first_wins() {
        let mut console = transcript(&[b"error: x\nroot> "]);
        assert_eq!(console.find(&["root> ", "error:"]), Some((1, "error:".into())));
        assert_eq!(console.find(&["nothing"]), None);
    }

    #[test]
    fn a_reply_has_the_status_that_stands_before_the_prompt() {
        let reply = |status, text: &str| Reply {
            status,
            text: text.into(),
        };
        assert_eq!(Reply::parse("a\nb\n"), reply(0, "a\nb"));
        assert_eq!(Reply::parse("unknown\n[2] "), reply(2, "unknown"));
        assert_eq!(Reply::parse("[130] "), reply(130, ""));
        assert_eq!(Reply::parse(""), reply(0, ""));
        assert_eq!(Reply::parse("[x] "), reply(0, "[x] "));
    }

    #[test]
    fn control_sequences_are_left_out_even_when_cut() {
        let console = transcript(&[b"\x1b[1;3", b"1mred\x1b", b"[0m \x1bcplain"]);
        assert_eq!(console.text(), "red plain");
    }

    #[test]
    fn where_the_stream_is_cut_changes_nothing() {
        let stream = b"a\r\n\x1b[2J\xc3\xa4\xe2\x82\xac\xf0\x9f\x92\xa9\xff root> \x1b[1;31mb";
        let whole = transcript(&[stream]);
        for cut in 0..stream.len() {
            assert_eq!(
                transcript(&[&stream[..cut], &stream[cut..]]).text(),
                whole.text(),
                "{cut}"
            );
        }
        assert_eq!(whole.text(), "a\n\u{e4}\u{20ac}\u{1f4a9}\u{fffd} root> b");
    }

    #[test]
    fn bytes_that_are_no_utf8_do_not_end_the_text() {
        let console = transcript(&[b"a\xffb\xc3", b"\xa4c\xe2\x28d"]);
        assert_eq!(console.text(), "a\u{fffd}b\u{e4}c\u{fffd}(d");
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        let text = (0..500).map(|line| format!("{line}\n")).collect::<String>();
        let tail = tail(&text);
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert!(tail.starts_with("300\n") && tail.ends_with("\n499"));
        assert_eq!(super::tail("one\ntwo\n"), "one\ntwo");
    }
}
