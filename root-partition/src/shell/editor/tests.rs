//! The editor against a small model of an 80-column terminal.

use super::*;
use alloc::vec;
use proptest::prelude::*;

const PROMPT: &str = "partita> ";

/// One row of a terminal, and the rows that scrolled away.
#[derive(Default)]
struct Screen {
    row: Vec<char>,
    column: usize,
    above: Vec<String>,
    bells: usize,
    pending: Vec<u8>,
}

impl Screen {
    fn take(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        let text = String::from_utf8(core::mem::take(&mut self.pending)).expect("the editor writes UTF-8");
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            match character {
                '\r' => self.column = 0,
                '\n' => {
                    self.above.push(self.text());
                    self.row.clear();
                    self.column = 0;
                }
                '\u{7}' => self.bells += 1,
                '\u{1b}' => {
                    assert_eq!(rest.next(), Some('['));
                    self.sequence(&mut rest);
                }
                _ => {
                    assert!(self.column < COLUMNS - 1, "the last column stays empty");
                    self.row.resize(self.row.len().max(self.column + 1), ' ');
                    self.row[self.column] = character;
                    self.column += 1;
                }
            }
        }
    }

    fn sequence(&mut self, rest: &mut core::str::Chars<'_>) {
        let mut number = 0;
        for character in rest.by_ref() {
            match character {
                '0'..='9' => number = number * 10 + usize::from(character as u8 - b'0'),
                'C' => return self.column += number,
                'K' => return self.row.truncate(self.column),
                'J' => return self.row.clear(),
                'H' => return self.column = 0,
                other => panic!("the editor wrote ESC [ … {other}"),
            }
        }
    }

    fn text(&self) -> String {
        self.row.iter().collect()
    }
}

struct World {
    editor: Editor,
    screen: Screen,
    events: Vec<Event>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            editor: Editor::default(),
            screen: Screen::default(),
            events: Vec::new(),
        };
        world.start();
        world
    }

    fn typed(bytes: impl AsRef<[u8]>) -> Self {
        let mut world = Self::new();
        world.feed(bytes);
        world
    }

    fn start(&mut self) {
        let mut out = Vec::new();
        self.editor.start(PROMPT, &mut out);
        self.screen.take(&out);
    }

    fn feed(&mut self, bytes: impl AsRef<[u8]>) {
        for &byte in bytes.as_ref() {
            let mut out = Vec::new();
            let event = self.editor.feed(byte, &mut out);
            self.screen.take(&out);
            let ended = event.as_ref().is_some_and(|event| *event != Event::Complete);
            self.events.extend(event);
            if ended {
                self.start();
            }
            self.check();
        }
    }

    /// What stands on the row is what the editor would draw now, and the cursor is where it says.
    fn check(&mut self) {
        let (visible, column) =
            self.editor
                .view
                .place(&self.editor.prompt, &self.editor.line, self.editor.cursor);
        assert_eq!(
            self.screen.text().trim_end(),
            format!("{PROMPT}{visible}").trim_end()
        );
        assert_eq!(self.screen.column, column);
        assert!(self.editor.line.len() <= LINE_LIMIT);
    }

    fn complete(&mut self, start: usize, candidates: &[&str]) {
        self.feed("\t");
        let candidates: Vec<String> = candidates.iter().map(|text| text.to_string()).collect();
        let mut out = Vec::new();
        self.editor.complete(start, &candidates, &mut out);
        self.screen.take(&out);
        self.check();
    }

    fn lines(&self) -> Vec<&str> {
        let lines = self.events.iter();
        lines
            .filter_map(|event| match event {
                Event::Line(line) => Some(line.as_str()),
                _ => None,
            })
            .collect()
    }
}

#[test]
fn pasted_lines_come_one_by_one_whatever_ends_them() {
    assert_eq!(
        World::typed("hv info\rhv log\nhv stats\r\n\r\n").lines(),
        ["hv info", "hv log", "hv stats", ""]
    );
}

#[test]
fn typing_at_the_end_writes_no_escape_sequence() {
    let mut editor = Editor::default();
    let mut out = Vec::new();
    editor.start(PROMPT, &mut out);
    for byte in *b"hv info\r" {
        editor.feed(byte, &mut out);
    }
    assert_eq!(out, b"partita> hv info\n");
}

#[test]
fn each_editing_key_does_what_its_name_says() {
    for (typed, line) in [
        ("ab\x02x\r", "axb"),
        ("ab\x02\x02\x06x\r", "axb"),
        ("ab\x01x\x05y\r", "xaby"),
        ("ab\x1b[Dx\x1b[Cy\r", "axby"),
        ("ab\x1b[Hx\x1b[Fy\r", "xaby"),
        ("abc\x7f\x08x\r", "ax"),
        ("abc\x01\x1b[3~\x04x\r", "xc"),
        ("one two\x01\x1bf\x0b\r", "one"),
        ("one two\x1bb\x15\r", "two"),
        ("one two three\x17x\r", "one two x"),
        ("one two\x01\x1bd\r", " two"),
        ("one two\x17\x01\x19 \r", "two one "),
        ("ä€𝄞\x02\x7fx\r", "äx𝄞"),
        ("ab\x0cc\r", "abc"),
    ] {
        assert_eq!(World::typed(typed).lines(), [line], "{typed:?}");
    }
}

#[test]
fn up_and_down_walk_the_history_and_come_back_to_the_draft() {
    assert_eq!(
        World::typed("one\rtwo\r\x1b[A\x1b[A\r").lines(),
        ["one", "two", "one"]
    );
    assert_eq!(World::typed("one\rdra\x1b[A\x1b[Bft\r").lines(), ["one", "draft"]);
}

#[test]
fn ctrl_c_drops_the_line_and_ctrl_d_ends_an_empty_one() {
    let world = World::typed("hv inf\x03\x04");
    assert_eq!(world.events, [Event::Interrupt, Event::EndOfInput]);
    assert_eq!(world.screen.above, ["partita> hv inf^C", "partita> "]);
}

#[test]
fn a_line_that_is_too_long_is_refused_instead_of_cut() {
    let mut world = World::typed(vec![b'a'; LINE_LIMIT + 1]);
    assert_eq!(world.screen.bells, 1);
    world.feed("\rb\r");
    assert_eq!(world.events, [Event::TooLong, Event::Line("b".into())]);
}

#[test]
fn a_line_that_was_too_long_and_was_mended_is_taken() {
    let mut world = World::typed(vec![b'a'; LINE_LIMIT + 1]);
    world.feed("\x15b\r");
    assert_eq!(world.lines(), ["b"]);
}

#[test]
fn a_line_longer_than_the_row_scrolls_and_is_entered_whole() {
    let long = "0123456789".repeat(30);
    let mut world = World::typed(&long);
    world.feed("\x1b[H<\x1b[F>\x1b[D\x1b[D\r");
    assert_eq!(world.lines(), [format!("<{long}>")]);
}

#[test]
fn ctrl_c_at_the_end_of_a_full_row_does_not_wrap() {
    let world = World::typed(format!("{}\x03", "a".repeat(COLUMNS - 3 - PROMPT.len())));
    assert_eq!(world.events, [Event::Interrupt]);
}

#[test]
fn a_single_candidate_is_put_in_with_a_blank() {
    let mut world = World::typed("hv in");
    world.complete(3, &["info"]);
    assert_eq!(world.editor.line, "hv info ");
}

#[test]
fn several_candidates_grow_to_what_they_share_and_are_listed_at_the_second_tab() {
    let mut world = World::typed("hv s");
    world.complete(3, &["stats", "stall"]);
    assert_eq!(world.editor.line, "hv sta");
    world.complete(3, &["stats", "stall"]);
    assert_eq!((world.screen.bells, world.screen.above.len()), (1, 0));
    world.complete(3, &["stats", "stall"]);
    assert_eq!(world.screen.above, ["partita> hv sta", "stats  stall"]);
    assert_eq!(world.editor.line, "hv sta");
}

#[test]
fn no_candidate_rings_the_bell() {
    let mut world = World::typed("xyz");
    world.complete(0, &[]);
    world.complete(0, &[]);
    assert_eq!((world.screen.bells, world.editor.line.as_str()), (2, "xyz"));
}

#[test]
fn hide_and_show_leave_room_for_a_line_above() {
    let mut world = World::typed("hv inf\x1b[D");
    let mut out = Vec::new();
    world.editor.hide(&mut out);
    out.extend_from_slice(b"warning\n");
    world.editor.show(&mut out);
    world.screen.take(&out);
    world.check();
    assert_eq!(world.screen.above, ["warning"]);
}

/// Bytes with all that matters made likely. Wide characters are left out: the model of the terminal has none.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => "[a-z \"'-]{1,12}".prop_map(String::into_bytes),
        2 => "[äöü€]{1,3}".prop_map(String::into_bytes),
        4 => (0u8..0x20).prop_map(|byte| vec![byte]),
        4 => "[A-DFH]".prop_map(|letter| format!("\x1b[{letter}").into_bytes()),
        2 => (0u8..10).prop_map(|number| format!("\x1b[{number}~").into_bytes()),
        2 => any::<u8>().prop_map(|byte| vec![0x1b, byte]),
        2 => proptest::collection::vec(0u8..0xc0, 0..4),
    ];
    proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn the_row_always_shows_the_line(bytes in input()) {
        World::new().feed(bytes);
    }

    #[test]
    fn any_bytes_leave_a_bounded_line_and_valid_output(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let mut editor = Editor::default();
        let mut out = Vec::new();
        editor.start(PROMPT, &mut out);
        for byte in bytes {
            if let Some(event) = editor.feed(byte, &mut out) {
                match event {
                    Event::Complete => editor.complete(0, &["one".into(), "once".into()], &mut out),
                    Event::Line(line) => {
                        prop_assert!(line.len() <= LINE_LIMIT && !line.contains(char::is_control));
                        editor.start(PROMPT, &mut out);
                    }
                    _ => editor.start(PROMPT, &mut out),
                }
            }
            prop_assert!(editor.line.len() <= LINE_LIMIT && editor.line.is_char_boundary(editor.cursor));
        }
        prop_assert!(core::str::from_utf8(&out).is_ok());
    }
}
