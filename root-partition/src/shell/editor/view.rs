//! The part of the line that fits on the row, and the columns that text takes.

use super::COLUMNS;

/// Fewest columns for the line, however long the prompt is.
const LEAST_COLUMNS: usize = 16;

/// The window through which a long line is seen.
#[derive(Debug, Default)]
pub struct View {
    /// Byte index of the first character that is shown.
    first: usize,
}

impl View {
    /// The visible part of `line`, scrolled so that it holds `cursor`, and the cursor's column on the row.
    pub fn place<'l>(&mut self, prompt: &str, line: &'l str, cursor: usize) -> (&'l str, usize) {
        let room = room(prompt);
        if columns(line) <= room {
            self.first = 0;
        } else if (self.first > 0 && self.first >= cursor) || !line.is_char_boundary(self.first) {
            // To the left: the cursor lands a quarter into the window, so that what precedes it is seen.
            self.first = backwards(line, cursor, room / 4);
        } else if columns(&line[self.first..cursor]) > room {
            // To the right: likewise, with a quarter left to type in.
            self.first = backwards(line, cursor, room - room / 4);
        }
        let visible = prefix(&line[self.first..], room);
        (visible, columns(prompt) + columns(&line[self.first..cursor]))
    }

    /// Whether the end of `line` is visible without scrolling further.
    pub fn fits(&self, prompt: &str, line: &str) -> bool {
        line.get(self.first..)
            .is_some_and(|shown| columns(shown) <= room(prompt))
    }
}

/// Columns at the end of the row that stay empty: two for the `^C` of an interrupt, and the last one, since terminals
/// differ in what happens after it is written.
const MARGIN: usize = 3;

/// Columns for the line.
fn room(prompt: &str) -> usize {
    (COLUMNS - MARGIN)
        .saturating_sub(columns(prompt))
        .max(LEAST_COLUMNS)
}

/// The longest start of `text` that takes at most `limit` columns.
fn prefix(text: &str, limit: usize) -> &str {
    let mut taken = 0;
    for (index, character) in text.char_indices() {
        taken += width(character);
        if taken > limit {
            return &text[..index];
        }
    }
    text
}

/// The position at most `limit` columns before `position`.
fn backwards(text: &str, position: usize, limit: usize) -> usize {
    let mut taken = 0;
    let mut start = position;
    for (index, character) in text[..position].char_indices().rev() {
        taken += width(character);
        if taken > limit {
            break;
        }
        start = index;
    }
    start
}

/// Columns that `text` takes.
pub fn columns(text: &str) -> usize {
    text.chars().map(width).sum()
}

/// Columns that `character` takes: 0 for what joins the one before, 2 for East Asian wide characters and emoji. The
/// blocks that matter, not all of Unicode: being wrong costs a misplaced cursor.
fn width(character: char) -> usize {
    match u32::from(character) {
        0x0300..=0x036f | 0x200b..=0x200f | 0x20d0..=0x20ff | 0xfe00..=0xfe0f | 0xfe20..=0xfe2f => 0,
        0x1100..=0x115f
        | 0x2e80..=0x303e
        | 0x3041..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1f64f
        | 0x1f900..=0x1f9ff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_line_is_shown_whole() {
        assert_eq!(View::default().place("> ", "abc", 1), ("abc", 3));
    }

    #[test]
    fn a_long_line_shows_the_part_around_the_cursor() {
        let line = "0123456789".repeat(20);
        let mut view = View::default();
        let (visible, column) = view.place("> ", &line, line.len());
        assert!(line.ends_with(visible));
        assert!(column < COLUMNS);
        let (visible, column) = view.place("> ", &line, 0);
        assert!(line.starts_with(visible));
        assert_eq!((columns(visible), column), (COLUMNS - MARGIN - 2, 2));
    }

    #[test]
    fn wide_and_joining_characters_are_counted() {
        assert_eq!(columns("a漢e\u{301}"), 4);
    }
}
