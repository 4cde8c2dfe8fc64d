//! Bytes of a terminal to keys: control characters, escape sequences, UTF-8.

/// What the user pressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    /// A printable character.
    Char(char),
    /// Enter.
    Enter,
    /// Tab.
    Tab,
    /// Deletes the character before the cursor.
    Backspace,
    /// Deletes the character under the cursor.
    Delete,
    /// One character left.
    Left,
    /// One character right.
    Right,
    /// One word left.
    WordLeft,
    /// One word right.
    WordRight,
    /// To the start of the line.
    Home,
    /// To the end of the line.
    End,
    /// The line before in the history.
    Up,
    /// The line after in the history.
    Down,
    /// Cuts from the cursor to the end.
    KillToEnd,
    /// Cuts from the start to the cursor.
    KillToStart,
    /// Cuts the word before the cursor.
    KillWordLeft,
    /// Cuts the word after the cursor.
    KillWordRight,
    /// Inserts what was cut last.
    Yank,
    /// Clears the screen.
    ClearScreen,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-D: delete, or the end of input on an empty line.
    DeleteOrEnd,
}

/// Turns bytes into keys; keeps what a sequence needs between them. Unknown sequences vanish.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Ground,
    /// After CR: a LF belongs to it.
    CarriageReturn,
    Escape,
    /// After `ESC [`: the first two parameters, and the one that is being read.
    ControlSequence {
        parameters: [u16; 2],
        index: usize,
    },
    /// After `ESC O`.
    SingleShift,
    Utf8 {
        bytes: [u8; 4],
        length: usize,
        needed: usize,
    },
}

impl Decoder {
    /// Takes one byte; returns the keys that it completes. There are two when it ends a broken UTF-8 sequence.
    pub fn feed(&mut self, byte: u8) -> impl Iterator<Item = Key> + use<> {
        let (first, again) = self.step(byte);
        let second = if again { self.step(byte).0 } else { None };
        [first, second].into_iter().flatten()
    }

    /// Takes one byte. `true` asks for the byte once more, in the new state.
    fn step(&mut self, byte: u8) -> (Option<Key>, bool) {
        let state = core::mem::take(&mut self.state);
        match state {
            State::Ground => (self.ground(byte), false),
            State::CarriageReturn if byte == b'\n' => (None, false),
            State::CarriageReturn => (self.ground(byte), false),
            State::Escape => (self.escape(byte), false),
            State::SingleShift => (final_key(byte, [0, 0]), false),
            State::ControlSequence { parameters, index } => (self.sequence(byte, parameters, index), false),
            State::Utf8 {
                bytes,
                length,
                needed,
            } => self.continuation(byte, bytes, length, needed),
        }
    }

    fn ground(&mut self, byte: u8) -> Option<Key> {
        Some(match byte {
            0x01 => Key::Home,
            0x02 => Key::Left,
            0x03 => Key::Interrupt,
            0x04 => Key::DeleteOrEnd,
            0x05 => Key::End,
            0x06 => Key::Right,
            0x08 | 0x7f => Key::Backspace,
            b'\t' => Key::Tab,
            b'\n' => Key::Enter,
            0x0b => Key::KillToEnd,
            0x0c => Key::ClearScreen,
            b'\r' => {
                self.state = State::CarriageReturn;
                Key::Enter
            }
            0x0e => Key::Down,
            0x10 => Key::Up,
            0x15 => Key::KillToStart,
            0x17 => Key::KillWordLeft,
            0x19 => Key::Yank,
            0x1b => {
                self.state = State::Escape;
                return None;
            }
            0x20..=0x7e => Key::Char(char::from(byte)),
            0xc2..=0xf4 => {
                let needed = 2 + usize::from(byte >= 0xe0) + usize::from(byte >= 0xf0);
                self.state = State::Utf8 {
                    bytes: [byte, 0, 0, 0],
                    length: 1,
                    needed,
                };
                return None;
            }
            0x80.. => Key::Char(char::REPLACEMENT_CHARACTER),
            _ => return None,
        })
    }

    fn escape(&mut self, byte: u8) -> Option<Key> {
        match byte {
            b'[' => {
                self.state = State::ControlSequence {
                    parameters: [0; 2],
                    index: 0,
                }
            }
            b'O' => self.state = State::SingleShift,
            0x1b => self.state = State::Escape,
            b'b' => return Some(Key::WordLeft),
            b'f' => return Some(Key::WordRight),
            b'd' => return Some(Key::KillWordRight),
            0x08 | 0x7f => return Some(Key::KillWordLeft),
            // Whoever hits Escape and then Ctrl-C or Enter means the latter.
            0x00..=0x1f => return self.ground(byte),
            _ => {}
        }
        None
    }

    fn sequence(&mut self, byte: u8, mut parameters: [u16; 2], mut index: usize) -> Option<Key> {
        match byte {
            b'0'..=b'9' => {
                if let Some(parameter) = parameters.get_mut(index) {
                    *parameter = parameter
                        .saturating_mul(10)
                        .saturating_add(u16::from(byte - b'0'));
                }
            }
            b';' => index = index.saturating_add(1),
            0x20..=0x3f => {}
            0x40..=0x7e => return final_key(byte, parameters),
            0x00..=0x1f => return self.ground(byte),
            _ => return None,
        }
        self.state = State::ControlSequence { parameters, index };
        None
    }

    fn continuation(
        &mut self,
        byte: u8,
        mut bytes: [u8; 4],
        length: usize,
        needed: usize,
    ) -> (Option<Key>, bool) {
        if !(0x80..0xc0).contains(&byte) {
            return (Some(Key::Char(char::REPLACEMENT_CHARACTER)), true);
        }
        bytes[length] = byte;
        let length = length + 1;
        if length < needed {
            self.state = State::Utf8 {
                bytes,
                length,
                needed,
            };
            return (None, false);
        }
        let character = core::str::from_utf8(&bytes[..length])
            .ok()
            .and_then(|text| text.chars().next())
            .unwrap_or(char::REPLACEMENT_CHARACTER);
        // C1 controls would reach the terminal as commands.
        let key = (!character.is_control()).then_some(Key::Char(character));
        (key, false)
    }
}

/// The key that a sequence with the final byte `byte` means. `ESC [ 1 ; 5 C` is Ctrl-Right, `ESC [ 1 ; 3 C` Alt-Right.
fn final_key(byte: u8, parameters: [u16; 2]) -> Option<Key> {
    let by_word = matches!(parameters[1], 3 | 5);
    Some(match (byte, parameters[0]) {
        (b'A', _) => Key::Up,
        (b'B', _) => Key::Down,
        (b'C', _) if by_word => Key::WordRight,
        (b'D', _) if by_word => Key::WordLeft,
        (b'C', _) => Key::Right,
        (b'D', _) => Key::Left,
        (b'H', _) | (b'~', 1 | 7) => Key::Home,
        (b'F', _) | (b'~', 4 | 8) => Key::End,
        (b'~', 3) => Key::Delete,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{vec, vec::Vec};

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut decoder = Decoder::default();
        bytes.iter().flat_map(|&byte| decoder.feed(byte)).collect()
    }

    #[test]
    fn each_form_of_an_arrow_home_end_and_delete_is_known() {
        assert_eq!(
            keys(b"\x1b[A\x1b[B\x1b[C\x1b[D"),
            [Key::Up, Key::Down, Key::Right, Key::Left]
        );
        assert_eq!(
            keys(b"\x1bOA\x1bOB\x1bOC\x1bOD"),
            [Key::Up, Key::Down, Key::Right, Key::Left]
        );
        assert_eq!(keys(b"\x1b[H\x1b[1~\x1b[7~\x1bOH\x01"), [Key::Home; 5]);
        assert_eq!(keys(b"\x1b[F\x1b[4~\x1b[8~\x1bOF\x05"), [Key::End; 5]);
        assert_eq!(keys(b"\x1b[3~"), [Key::Delete]);
        assert_eq!(
            keys(b"\x1b[1;5C\x1b[1;3D\x1bf\x1bb"),
            [Key::WordRight, Key::WordLeft, Key::WordRight, Key::WordLeft]
        );
        assert_eq!(keys(b"\x7f\x08"), [Key::Backspace; 2]);
    }

    #[test]
    fn cr_lf_and_crlf_are_one_enter_each() {
        assert_eq!(keys(b"\r"), [Key::Enter]);
        assert_eq!(keys(b"\n"), [Key::Enter]);
        assert_eq!(keys(b"\r\n"), [Key::Enter]);
        assert_eq!(keys(b"\r\n\r\n\n"), [Key::Enter; 3]);
        assert_eq!(keys(b"\r\r"), [Key::Enter; 2]);
    }

    #[test]
    fn unknown_sequences_vanish_whole() {
        assert_eq!(keys(b"\x1b[200~a\x1b[201~"), [Key::Char('a')]);
        assert_eq!(
            keys(b"\x1b[?25;99999999999;1;1hx\x1b[<0;1;1Mx"),
            [Key::Char('x'); 2]
        );
    }

    #[test]
    fn ctrl_c_gets_through_a_sequence_that_was_cut_off() {
        assert_eq!(keys(b"\x1b[12\x03"), [Key::Interrupt]);
        assert_eq!(keys(b"\x1b\x03"), [Key::Interrupt]);
    }

    #[test]
    fn utf8_becomes_one_key_a_character() {
        assert_eq!(keys("äß€𝄞".as_bytes()), ['ä', 'ß', '€', '𝄞'].map(Key::Char));
    }

    #[test]
    fn broken_utf8_becomes_a_replacement_character_and_swallows_nothing() {
        let bad = Key::Char(char::REPLACEMENT_CHARACTER);
        assert_eq!(keys(b"\xc3x"), [bad, Key::Char('x')]);
        assert_eq!(keys(b"\xe2\x82\r"), [bad, Key::Enter]);
        assert_eq!(keys(b"\xff\x80"), vec![bad; 2]);
        assert_eq!(keys(b"\xed\xa0\x80"), [bad], "a surrogate");
    }

    #[test]
    fn c1_controls_never_reach_the_line() {
        assert_eq!(keys("\u{9b}2J".as_bytes()), ['2', 'J'].map(Key::Char));
    }
}
