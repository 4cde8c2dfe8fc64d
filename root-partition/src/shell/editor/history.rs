//! The lines that were typed before.

use alloc::{
    collections::VecDeque,
    string::{String, ToString},
};

/// Lines that are kept.
pub const HISTORY_LINES: usize = 100;

/// Lines typed before, oldest first, and where the user is among them.
#[derive(Debug, Default)]
pub struct History {
    lines: VecDeque<String>,
    /// The line that is shown; `None` while the user is on a line of their own.
    shown: Option<usize>,
    /// What the user had typed before going up.
    draft: String,
}

impl History {
    /// Remembers `line`, unless it is blank or repeats the last one, and goes back to the end.
    pub fn push(&mut self, line: &str) {
        self.shown = None;
        if line.trim().is_empty() || self.lines.back().is_some_and(|last| last == line) {
            return;
        }
        if self.lines.len() == HISTORY_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.to_string());
    }

    /// The line before the shown one; `current` is what stands in the editor.
    pub fn up(&mut self, current: &str) -> Option<&str> {
        let target = match self.shown {
            None => {
                self.draft = current.to_string();
                self.lines.len().checked_sub(1)?
            }
            Some(index) => index.checked_sub(1)?,
        };
        self.shown = Some(target);
        self.lines.get(target).map(String::as_str)
    }

    /// The line after the shown one; after the last one, what the user had typed.
    pub fn down(&mut self) -> Option<&str> {
        let target = self.shown? + 1;
        if let Some(line) = self.lines.get(target) {
            self.shown = Some(target);
            return Some(line);
        }
        self.shown = None;
        Some(&self.draft)
    }

    /// Forgets where the user was among the lines.
    pub fn leave(&mut self) {
        self.shown = None;
    }

    /// The lines, oldest first.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, vec::Vec};

    fn history(lines: &[&str]) -> History {
        let mut history = History::default();
        lines.iter().for_each(|line| history.push(line));
        history
    }

    #[test]
    fn blank_lines_and_repetitions_in_a_row_are_not_kept() {
        let history = history(&["a", "a", "", "  ", "b", "a"]);
        assert_eq!(history.lines().collect::<Vec<_>>(), ["a", "b", "a"]);
    }

    #[test]
    fn up_stops_at_the_oldest_and_down_ends_at_the_draft() {
        let mut history = history(&["a", "b"]);
        assert_eq!(history.up("draft"), Some("b"));
        assert_eq!(history.up("b"), Some("a"));
        assert_eq!(history.up("a"), None);
        assert_eq!(history.down(), Some("b"));
        assert_eq!(history.down(), Some("draft"));
        assert_eq!(history.down(), None);
    }

    #[test]
    fn the_oldest_line_goes_when_it_is_full() {
        let mut history = History::default();
        (0..=HISTORY_LINES).for_each(|n| history.push(&format!("{n}")));
        assert_eq!(history.lines().count(), HISTORY_LINES);
        assert_eq!(history.lines().next(), Some("1"));
    }
}
