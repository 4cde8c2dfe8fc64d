//! The line editor, without I/O: bytes of the user in, bytes for the terminal and [`Event`]s out.
//!
//! | module | holds |
//! |---|---|
//! | [`key`] | bytes to keys |
//! | [`history`] | the lines typed before |
//! | [`view`] | the part of the line that is shown, and column widths |
//!
//! The line occupies one row of an 80-column terminal and scrolls sideways when it is longer: nothing depends on how
//! a terminal wraps. A character typed at the end is simply echoed, so that a pipe or a dumb terminal sees no escape
//! sequence as long as nobody uses the arrow keys. Newlines are written as LF; the console makes CRLF of them.

pub mod history;
pub mod key;
pub mod view;

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use history::History;
use key::{Decoder, Key};
use view::View;

/// Longest line, in bytes.
pub const LINE_LIMIT: usize = 1024;
/// Columns that a terminal is taken to have; a serial line cannot be asked.
pub const COLUMNS: usize = 80;

const BELL: u8 = 0x07;
const ERASE_ROW: &[u8] = b"\r\x1b[K";

/// What the user did that the editor does not handle alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A line was entered.
    Line(String),
    /// A line was entered that lost characters, since it was longer than [`LINE_LIMIT`].
    TooLong,
    /// Ctrl-C: the line is gone.
    Interrupt,
    /// Ctrl-D on an empty line.
    EndOfInput,
    /// Tab: [`Editor::complete`] waits for candidates for [`Editor::before_cursor`].
    Complete,
}

/// The line that is being typed.
#[derive(Debug, Default)]
pub struct Editor {
    decoder: Decoder,
    history: History,
    prompt: String,
    line: String,
    /// Byte index into `line`, always between two characters.
    cursor: usize,
    view: View,
    killed: String,
    overflowed: bool,
    /// The last key was a Tab that got nowhere: the next one lists.
    tabbed: bool,
}

impl Editor {
    /// Begins a line: shows `prompt`.
    pub fn start(&mut self, prompt: &str, out: &mut Vec<u8>) {
        self.prompt = prompt.to_string();
        self.clear();
        self.show(out);
    }

    /// Takes one byte of the user. After any event but [`Event::Complete`] the line is empty and the cursor on a fresh
    /// row; [`Editor::start`] begins the next line.
    pub fn feed(&mut self, byte: u8, out: &mut Vec<u8>) -> Option<Event> {
        let mut event = None;
        for key in self.decoder.feed(byte) {
            event = event.or(self.press(key, out));
        }
        event
    }

    /// The text left of the cursor.
    pub fn before_cursor(&self) -> &str {
        &self.line[..self.cursor]
    }

    /// Whether nothing has been typed yet.
    pub fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// The lines typed before.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Takes prompt and line off the screen, so that something else may be written there.
    pub fn hide(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(ERASE_ROW);
    }

    /// Writes prompt and line on an empty row.
    pub fn show(&mut self, out: &mut Vec<u8>) {
        let (visible, cursor_column) = self.view.place(&self.prompt, &self.line, self.cursor);
        out.extend_from_slice(self.prompt.as_bytes());
        out.extend_from_slice(visible.as_bytes());
        let end_column = view::columns(&self.prompt) + view::columns(visible);
        if cursor_column != end_column {
            out.push(b'\r');
            if cursor_column > 0 {
                out.extend_from_slice(format!("\x1b[{cursor_column}C").as_bytes());
            }
        }
    }

    /// Replaces the text from byte `start` to the cursor by what all `candidates` have in common; lists them at the
    /// second Tab. `start` is a position in [`Editor::before_cursor`].
    pub fn complete(&mut self, start: usize, candidates: &[String], out: &mut Vec<u8>) {
        let Some(typed) = self.line.get(start..self.cursor) else {
            return;
        };
        let common = common_prefix(candidates);
        let mut replacement = common.to_string();
        if candidates.len() == 1 && !self.line[self.cursor..].starts_with(' ') {
            replacement.push(' ');
        }
        let grows = replacement.len() > typed.len() && replacement.starts_with(typed);
        if grows && self.line.len() + replacement.len() - typed.len() <= LINE_LIMIT {
            self.line.replace_range(start..self.cursor, &replacement);
            self.cursor = start + replacement.len();
            self.redraw(out);
        } else if self.tabbed && candidates.len() > 1 {
            out.push(b'\n');
            list(candidates, out);
            self.show(out);
        } else {
            self.tabbed = true;
            out.push(BELL);
        }
    }

    fn press(&mut self, key: Key, out: &mut Vec<u8>) -> Option<Event> {
        if key != Key::Tab {
            self.tabbed = false;
        }
        match key {
            Key::Char(character) => self.insert(character, out),
            Key::Enter => return Some(self.enter(out)),
            Key::Tab => return Some(Event::Complete),
            Key::Backspace => self.delete(self.left_of(self.cursor), self.cursor, out),
            Key::Delete => self.delete(self.cursor, self.right_of(self.cursor), out),
            Key::Left => self.move_to(self.left_of(self.cursor), out),
            Key::Right => self.move_to(self.right_of(self.cursor), out),
            Key::WordLeft => self.move_to(self.word_left(), out),
            Key::WordRight => self.move_to(self.word_right(), out),
            Key::Home => self.move_to(0, out),
            Key::End => self.move_to(self.line.len(), out),
            Key::Up => self.recall(true, out),
            Key::Down => self.recall(false, out),
            Key::KillToEnd => self.kill(self.cursor, self.line.len(), out),
            Key::KillToStart => self.kill(0, self.cursor, out),
            Key::KillWordLeft => self.kill(self.word_left(), self.cursor, out),
            Key::KillWordRight => self.kill(self.cursor, self.word_right(), out),
            Key::Yank => self.yank(out),
            Key::ClearScreen => {
                out.extend_from_slice(b"\x1b[2J\x1b[H");
                self.show(out);
            }
            Key::Interrupt => {
                self.clear();
                out.extend_from_slice(b"^C\n");
                return Some(Event::Interrupt);
            }
            Key::DeleteOrEnd if self.line.is_empty() => {
                self.clear();
                out.push(b'\n');
                return Some(Event::EndOfInput);
            }
            Key::DeleteOrEnd => self.delete(self.cursor, self.right_of(self.cursor), out),
        }
        None
    }

    fn insert(&mut self, character: char, out: &mut Vec<u8>) {
        if self.line.len() + character.len_utf8() > LINE_LIMIT {
            self.overflowed = true;
            out.push(BELL);
            return;
        }
        let at_end = self.cursor == self.line.len();
        self.line.insert(self.cursor, character);
        self.cursor += character.len_utf8();
        if at_end && self.view.fits(&self.prompt, &self.line) {
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            self.redraw(out);
        }
    }

    fn enter(&mut self, out: &mut Vec<u8>) -> Event {
        out.push(b'\n');
        let line = core::mem::take(&mut self.line);
        let overflowed = self.overflowed;
        self.clear();
        if overflowed {
            return Event::TooLong;
        }
        self.history.push(&line);
        Event::Line(line)
    }

    fn delete(&mut self, from: usize, to: usize, out: &mut Vec<u8>) {
        if from == to {
            out.push(BELL);
            return;
        }
        self.line.replace_range(from..to, "");
        self.cursor = from;
        // The user has seen the bell and is mending the line.
        self.overflowed = false;
        self.redraw(out);
    }

    fn kill(&mut self, from: usize, to: usize, out: &mut Vec<u8>) {
        if from < to {
            self.killed = self.line[from..to].to_string();
        }
        self.delete(from, to, out);
    }

    fn yank(&mut self, out: &mut Vec<u8>) {
        if self.killed.is_empty() || self.line.len() + self.killed.len() > LINE_LIMIT {
            out.push(BELL);
            return;
        }
        self.line.insert_str(self.cursor, &self.killed);
        self.cursor += self.killed.len();
        self.redraw(out);
    }

    fn move_to(&mut self, target: usize, out: &mut Vec<u8>) {
        if target == self.cursor {
            return;
        }
        self.cursor = target;
        self.redraw(out);
    }

    fn recall(&mut self, up: bool, out: &mut Vec<u8>) {
        let found = if up {
            self.history.up(&self.line)
        } else {
            self.history.down()
        };
        match found {
            Some(line) => {
                self.line = line.to_string();
                self.cursor = self.line.len();
                self.overflowed = false;
                self.redraw(out);
            }
            None => out.push(BELL),
        }
    }

    fn redraw(&mut self, out: &mut Vec<u8>) {
        self.hide(out);
        self.show(out);
    }

    fn clear(&mut self) {
        self.line.clear();
        self.cursor = 0;
        self.view = View::default();
        self.overflowed = false;
        self.tabbed = false;
        self.history.leave();
    }

    fn left_of(&self, position: usize) -> usize {
        let before = self.line[..position].chars().next_back();
        position - before.map_or(0, char::len_utf8)
    }

    fn right_of(&self, position: usize) -> usize {
        let after = self.line[position..].chars().next();
        position + after.map_or(0, char::len_utf8)
    }

    fn word_left(&self) -> usize {
        let trimmed = self.line[..self.cursor].trim_end_matches(|c: char| !c.is_alphanumeric());
        trimmed.trim_end_matches(char::is_alphanumeric).len()
    }

    fn word_right(&self) -> usize {
        let rest = self.line[self.cursor..].trim_start_matches(|c: char| !c.is_alphanumeric());
        self.line.len() - rest.trim_start_matches(char::is_alphanumeric).len()
    }
}

/// What all of `texts` begin with.
fn common_prefix(texts: &[String]) -> &str {
    let Some((first, others)) = texts.split_first() else {
        return "";
    };
    let mut length = first.len();
    for other in others {
        let same = first
            .bytes()
            .zip(other.bytes())
            .take_while(|(a, b)| a == b)
            .count();
        length = length.min(same);
    }
    while !first.is_char_boundary(length) {
        length -= 1;
    }
    &first[..length]
}

/// Lists `candidates` in columns.
fn list(candidates: &[String], out: &mut Vec<u8>) {
    let width = 2 + candidates
        .iter()
        .map(|text| view::columns(text))
        .max()
        .unwrap_or(0);
    let in_a_row = (COLUMNS / width).max(1);
    for row in candidates.chunks(in_a_row) {
        for (index, text) in row.iter().enumerate() {
            out.extend_from_slice(text.as_bytes());
            if index + 1 < row.len() {
                out.resize(out.len() + width - view::columns(text), b' ');
            }
        }
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests;
