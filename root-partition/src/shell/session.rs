//! One user at one terminal: reads lines, runs commands, shows what they say.

use alloc::{
    boxed::Box,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::{
    future::{self, poll_fn},
    task::{Context, Poll},
};

use embassy_futures::yield_now;

use super::{
    commands::{
        Invocation, Outcome, Run, complete,
        dispatch::{self, Call},
        help,
    },
    console::Console,
    editor::{Editor, Event},
    output::{Report, Value, json, table},
    parser,
    status::{Failure, Status},
    system::{Pending, System},
    terminal::Terminal,
};

/// Why a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The terminal has no more input.
    EndOfInput,
    /// A command powers the machine off or resets it.
    PowerOff,
}

/// A session.
pub struct Session<'s> {
    system: &'s dyn System,
    console: Console,
    editor: Editor,
    status: Status,
    /// The line stands on the screen, so that a notice must be written above it.
    editing: bool,
    leaving: bool,
}

/// What the session waits for.
enum Input {
    Byte(u8),
    End,
    Notice(String),
}

impl<'s> Session<'s> {
    /// A session with `system` on `terminal`.
    pub fn new(system: &'s dyn System, terminal: Box<dyn Terminal>) -> Self {
        Self {
            system,
            console: Console::new(terminal),
            editor: Editor::default(),
            status: Status::OK,
            editing: false,
            leaving: false,
        }
    }

    /// The status of the last command.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Shows prompts and runs what is typed, until the input or the system ends.
    pub async fn run(&mut self) -> End {
        while !self.leaving {
            match self.line().await {
                Some(Event::Line(line)) => {
                    self.run_line(&line).await;
                }
                Some(Event::TooLong) => {
                    self.console
                        .print("the line was too long and lost characters: nothing was run\n");
                    self.status = Status::USAGE;
                }
                Some(Event::EndOfInput) => {
                    self.console
                        .print("'poweroff' powers the machine off, 'reboot' resets it\n");
                }
                Some(Event::Interrupt) => self.status = Status::OK,
                Some(Event::Complete) => {}
                None => return End::EndOfInput,
            }
        }
        End::PowerOff
    }

    /// Runs `lines` as if they were typed, and says which failed. Stops early when one powers the machine off.
    /// Returns how many failed.
    pub async fn run_script<'l>(&mut self, lines: impl IntoIterator<Item = &'l str>) -> usize {
        let mut failures = 0;
        for line in lines {
            self.console.print(&format!("{PROMPT}{line}\n"));
            let status = self.run_line(line).await;
            if !status.is_ok() {
                failures += 1;
                self.console
                    .print(&format!("exec: '{line}' failed with status {status}\n"));
            }
            if self.leaving {
                break;
            }
        }
        failures
    }

    /// Runs one line and returns its status; a line without a command is fine and leaves the last command's status.
    pub async fn run_line(&mut self, line: &str) -> Status {
        self.status = match dispatch::resolve(line) {
            Ok(Some(call)) => self.run_call(&call).await,
            Ok(None) => return Status::OK,
            Err(failure) => self.show_failure(&failure, None, asks_for_json(line)).await,
        };
        self.status
    }

    /// Shows a line that came on its own, without harm to what the user types.
    pub fn notify(&mut self, line: &str) {
        let mut out = Vec::new();
        if self.editing {
            self.editor.hide(&mut out);
            self.console.control(&out);
            out.clear();
        }
        self.console.print(line);
        self.console.print("\n");
        if self.editing {
            self.editor.show(&mut out);
            self.console.control(&out);
        }
    }

    /// Edits one line; `None` at the end of the input. A last line without a newline counts.
    async fn line(&mut self) -> Option<Event> {
        let mut out = Vec::new();
        self.editor.start(&self.prompt(), &mut out);
        self.console.control(&out);
        self.editing = true;
        let event = loop {
            let byte = match poll_fn(|context| self.poll_input(context)).await {
                Input::Byte(byte) => byte,
                Input::Notice(line) => {
                    self.notify(&line);
                    continue;
                }
                Input::End if self.editor.is_empty() => break None,
                Input::End => b'\n',
            };
            out.clear();
            let event = self.editor.feed(byte, &mut out);
            if event == Some(Event::Complete) {
                let (start, candidates) = complete::candidates(self.system, self.editor.before_cursor());
                self.editor.complete(start, &candidates, &mut out);
            }
            self.console.control(&out);
            if event.is_some() && event != Some(Event::Complete) {
                break event;
            }
        };
        self.editing = false;
        event
    }

    /// A byte first: a flood of notices must not keep the user from typing.
    fn poll_input(&self, context: &mut Context<'_>) -> Poll<Input> {
        if let Poll::Ready(byte) = self.console.poll_read(context) {
            return Poll::Ready(byte.map_or(Input::End, Input::Byte));
        }
        self.system.poll_notice(context).map(Input::Notice)
    }

    fn prompt(&self) -> String {
        match self.status {
            Status::OK => PROMPT.to_string(),
            status => format!("[{status}] {PROMPT}"),
        }
    }

    async fn run_call(&mut self, call: &Call) -> Status {
        let json = call.arguments.json();
        if call.arguments.flag("--help") {
            return self.show(&help::usage(call.command), json).await;
        }
        let invocation = Invocation {
            system: self.system,
            arguments: &call.arguments,
            console: &self.console,
            history: self.editor.history(),
        };
        let running: Pending<'_, Outcome> = match call.command.run {
            Run::Now(run) => Box::pin(future::ready(run(&invocation))),
            Run::Later(run) => run(&invocation),
        };
        let ended = run_until_interrupt(self.system, &self.console, running).await;
        self.console.command_ended();
        match ended {
            Ok(Ok(report)) => {
                self.leaving = call.command.ends_session;
                self.show(&report, json).await
            }
            Ok(Err(failure)) => {
                self.show_failure(&failure, Some(&call.command.name()), json)
                    .await
            }
            Err(status) => {
                self.console.print("^C\n");
                status
            }
        }
    }

    async fn show(&self, report: &Report, json: bool) -> Status {
        let text = match json {
            true => json::render(report) + "\n",
            false => table::render(report),
        };
        // Output is slow, and guests that wait for this processor are not to wait for all of it.
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(rest.ceil_char_boundary(PIECE));
            self.console.print(piece);
            rest = more;
            yield_now().await;
        }
        if report.failed { Status::FAILED } else { Status::OK }
    }

    /// Shows why a command failed. What the system says does not name the command; what is wrong with a line does.
    async fn show_failure(&self, failure: &Failure, command: Option<&str>, json: bool) -> Status {
        let status = failure.status();
        let message = match (failure, command) {
            (Failure::System(error), Some(command)) => format!("{command}: {error}"),
            _ => failure.to_string(),
        };
        if json {
            let mut report = Report::new();
            report.push_fields(
                "",
                [
                    ("error", "error", Value::Text(message)),
                    ("status", "status", Value::Number(status.0.into())),
                ],
            );
            self.show(&report, true).await;
        } else {
            self.console.print(&(message + "\n"));
        }
        status
    }
}

const PROMPT: &str = "partita> ";
/// Bytes that are printed before other tasks have their turn.
const PIECE: usize = 64;

/// Runs a command until it ends or Ctrl-C does it; then its status. Notices appear between its lines, unless it has
/// taken the terminal for itself.
async fn run_until_interrupt(
    system: &dyn System,
    console: &Console,
    mut running: Pending<'_, Outcome>,
) -> Result<Outcome, Status> {
    poll_fn(|context| {
        if let Poll::Ready(outcome) = running.as_mut().poll(context) {
            return Poll::Ready(Ok(outcome));
        }
        if let Poll::Ready(status) = console.poll_interrupt(context) {
            return Poll::Ready(Err(status));
        }
        while !console.is_captured()
            && let Poll::Ready(notice) = system.poll_notice(context)
        {
            console.print(&notice);
            console.print("\n");
        }
        Poll::Pending
    })
    .await
}

/// Whether a line that was not understood would have liked its answer as JSON.
fn asks_for_json(line: &str) -> bool {
    let words = parser::words(line).unwrap_or_default();
    words.iter().any(|word| word.is_flag() && word.text == "--json")
}

#[cfg(test)]
mod tests;
