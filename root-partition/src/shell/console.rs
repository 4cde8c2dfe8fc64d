//! The terminal as session and commands share it: writes text, reads bytes, hears Ctrl-C while a command runs.

use alloc::{boxed::Box, collections::VecDeque, string::String, vec::Vec};
use core::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use spin::Mutex;

use super::{status::Status, terminal::Terminal};

/// Bytes typed ahead that are kept while a command runs. More are left in the terminal: a pasted script loses nothing.
const TYPED_AHEAD: usize = 64 << 10;

const INTERRUPT: u8 = 0x03;

/// The terminal, behind a lock that is never held across an await and never contended: the shell is one task.
pub struct Console {
    inner: Mutex<Inner>,
}

struct Inner {
    terminal: Box<dyn Terminal>,
    typed_ahead: VecDeque<u8>,
    ended: bool,
    captured: bool,
    interrupt_status: Status,
}

impl Console {
    /// A console on `terminal`.
    pub fn new(terminal: Box<dyn Terminal>) -> Self {
        Self {
            inner: Mutex::new(Inner {
                terminal,
                typed_ahead: VecDeque::new(),
                ended: false,
                captured: false,
                interrupt_status: Status::INTERRUPTED,
            }),
        }
    }

    /// Writes text that may come from anywhere (a log, a device, a guest). Control characters other than newline and
    /// tab are shown as `\x1b`, so that nobody drives the user's terminal but the shell.
    pub fn print(&self, text: &str) {
        let mut clean = String::with_capacity(text.len());
        for character in text.chars() {
            match character {
                '\n' | '\t' => clean.push(character),
                '\r' => {}
                _ if character.is_control() => clean.extend(character.escape_default()),
                _ => clean.push(character),
            }
        }
        self.control(clean.as_bytes());
    }

    /// Writes bytes that the shell made, escape sequences included. The one place where LF becomes CRLF.
    pub fn control(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 32);
        for &byte in bytes {
            if byte == b'\n' {
                out.push(b'\r');
            }
            out.push(byte);
        }
        self.inner.lock().terminal.write(&out);
    }

    /// The next byte from the user, typed ahead or new; `None` when no more will come.
    pub fn poll_read(&self, context: &mut Context<'_>) -> Poll<Option<u8>> {
        let inner = &mut *self.inner.lock();
        if let Some(byte) = inner.typed_ahead.pop_front() {
            return Poll::Ready(Some(byte));
        }
        inner.read_terminal(context)
    }

    /// [`Console::poll_read`] to await. Only for a command that has called [`Console::capture`].
    pub async fn read(&self) -> Option<u8> {
        poll_fn(|context| self.poll_read(context)).await
    }

    /// Gives the input, Ctrl-C included, to the running command (an attached guest console), until it ends.
    pub fn capture(&self) {
        self.inner.lock().captured = true;
    }

    /// Whether a command has the input: nothing else may write then.
    pub fn is_captured(&self) -> bool {
        self.inner.lock().captured
    }

    /// Makes Ctrl-C the ordinary end of the running command: its status will be `status`.
    pub fn interrupt_means(&self, status: Status) {
        self.inner.lock().interrupt_status = status;
    }

    /// Completes when the user presses Ctrl-C, with the status that the command gets. What was typed ahead before is
    /// dropped, as terminals do. Other bytes are kept for later.
    pub fn poll_interrupt(&self, context: &mut Context<'_>) -> Poll<Status> {
        let inner = &mut *self.inner.lock();
        while !inner.captured && inner.typed_ahead.len() < TYPED_AHEAD {
            match ready!(inner.read_terminal(context)) {
                Some(INTERRUPT) => {
                    inner.typed_ahead.clear();
                    return Poll::Ready(inner.interrupt_status);
                }
                Some(byte) => inner.typed_ahead.push_back(byte),
                // A pipe that has ended does not end the command that it started.
                None => return Poll::Pending,
            }
        }
        Poll::Pending
    }

    /// Back to what holds between commands.
    pub fn command_ended(&self) {
        let inner = &mut *self.inner.lock();
        inner.captured = false;
        inner.interrupt_status = Status::INTERRUPTED;
    }
}

impl Inner {
    fn read_terminal(&mut self, context: &mut Context<'_>) -> Poll<Option<u8>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let byte = ready!(self.terminal.poll_read(context));
        self.ended = byte.is_none();
        Poll::Ready(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeTerminal, now};
    use super::*;

    fn console(typed: &[u8]) -> (Console, FakeTerminal) {
        let terminal = FakeTerminal::typing(typed);
        (Console::new(Box::new(terminal.clone())), terminal)
    }

    #[test]
    fn newlines_become_crlf_and_foreign_escape_sequences_are_shown_not_obeyed() {
        let (console, terminal) = console(b"");
        console.print("a\nb\r\nä\t\u{1b}[2J\u{7}\u{9b}");
        console.control(b"\x1b[K\n");
        assert_eq!(
            terminal.output(),
            "a\r\nb\r\nä\t\\u{1b}[2J\\u{7}\\u{9b}\u{1b}[K\r\n"
        );
    }

    #[test]
    fn ctrl_c_is_heard_behind_typed_bytes_and_drops_them() {
        let (console, _) = console(b"abc\x03d");
        assert_eq!(
            now(|context| console.poll_interrupt(context)),
            Poll::Ready(Status::INTERRUPTED)
        );
        assert_eq!(now(|context| console.poll_read(context)), Poll::Ready(Some(b'd')));
    }

    #[test]
    fn bytes_typed_while_a_command_runs_are_kept() {
        let (console, _) = console(b"ab");
        assert_eq!(now(|context| console.poll_interrupt(context)), Poll::Pending);
        assert_eq!(now(|context| console.poll_read(context)), Poll::Ready(Some(b'a')));
    }

    #[test]
    fn a_command_that_captures_the_input_gets_ctrl_c_itself() {
        let (console, _) = console(b"\x03");
        console.capture();
        assert_eq!(now(|context| console.poll_interrupt(context)), Poll::Pending);
        assert_eq!(now(|context| console.poll_read(context)), Poll::Ready(Some(3)));
        console.command_ended();
        assert!(!console.is_captured());
    }
}
