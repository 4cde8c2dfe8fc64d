//! `hv log`, `root log`.

use alloc::{boxed::Box, string::String, vec::Vec};
use core::time::Duration;

use super::{Invocation, Outcome, arguments::Flag};
use crate::shell::{
    output::{Report, Value},
    status::{Failure, Status},
    system::{LogText, Pending, System, SystemError},
};

pub(super) const FOLLOW: Flag = Flag {
    name: "--follow",
    value: None,
    help: "Go on with lines as they come, until Ctrl-C",
};

/// How often a log that is followed is asked for more.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);

type Read = fn(&dyn System, u64) -> Result<LogText, SystemError>;

pub(super) fn hypervisor<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    Box::pin(run(invocation, |system, position| {
        system.hypervisor_log(position)
    }))
}

pub(super) fn root<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    Box::pin(run(invocation, |system, position| Ok(system.root_log(position))))
}

async fn run(invocation: &Invocation<'_>, read: Read) -> Outcome {
    let follow = invocation.arguments.flag(FOLLOW.name);
    match (follow, invocation.arguments.json()) {
        (true, true) => Err(Failure::Usage(String::from(
            "--follow never ends and so is no JSON document: leave out --follow or --json",
        ))),
        (false, true) => document(invocation, read).await,
        (_, false) => text(invocation, read, follow).await,
    }
}

async fn text(invocation: &Invocation<'_>, read: Read, follow: bool) -> Outcome {
    if follow {
        invocation.console.interrupt_means(Status::OK);
    }
    let mut reader = Reader::new(read);
    loop {
        let more = reader.step(invocation.system)?;
        for line in reader.lines() {
            invocation.console.print(&line);
            invocation.console.print("\n");
        }
        match (more, follow) {
            // Lets Ctrl-C and other tasks in between two pieces.
            (true, _) => yield_now().await,
            (false, true) => invocation.system.sleep(FOLLOW_INTERVAL).await,
            (false, false) => break,
        }
    }
    if let Some(rest) = reader.rest() {
        invocation.console.print(&rest);
        invocation.console.print("\n");
    }
    Ok(Report::new())
}

async fn document(invocation: &Invocation<'_>, read: Read) -> Outcome {
    let mut reader = Reader::new(read);
    let mut lines = Vec::new();
    while reader.step(invocation.system)? {
        lines.extend(reader.lines());
        yield_now().await;
    }
    lines.extend(reader.lines());
    lines.extend(reader.rest());
    let mut report = Report::new();
    report.push_fields(
        "",
        [
            ("position", "position", Value::Number(reader.first.unwrap_or(0))),
            ("next", "next", Value::Number(reader.next)),
            ("lines", "lines", Value::texts(lines)),
        ],
    );
    Ok(report)
}

/// Reads a log piece by piece and cuts it into lines.
struct Reader {
    read: Read,
    /// Where the first piece began.
    first: Option<u64>,
    next: u64,
    /// Bytes that no newline follows yet.
    partial: Vec<u8>,
    lines: Vec<String>,
}

impl Reader {
    fn new(read: Read) -> Self {
        Self {
            read,
            first: None,
            next: 0,
            partial: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// Reads one piece; `false` at the log's end.
    fn step(&mut self, system: &dyn System) -> Result<bool, SystemError> {
        let piece = (self.read)(system, self.next)?;
        if piece.text.is_empty() || piece.next <= self.next {
            return Ok(false);
        }
        if self.first.is_some() && piece.position > self.next {
            let lost = piece.position - self.next;
            self.partial.clear();
            self.lines.push(alloc::format!(
                "[{lost} bytes were overwritten before they could be read]"
            ));
        }
        self.first.get_or_insert(piece.position);
        self.next = piece.next;
        for byte in piece.text {
            match byte {
                b'\n' => {
                    let line = core::mem::take(&mut self.partial);
                    self.lines.push(String::from_utf8_lossy(&line).into_owned());
                }
                _ => self.partial.push(byte),
            }
        }
        Ok(true)
    }

    /// The lines that are complete.
    fn lines(&mut self) -> Vec<String> {
        core::mem::take(&mut self.lines)
    }

    /// What stands behind the last newline.
    fn rest(&mut self) -> Option<String> {
        let rest = core::mem::take(&mut self.partial);
        (!rest.is_empty()).then(|| String::from_utf8_lossy(&rest).into_owned())
    }
}

/// Lets other tasks run, and comes back.
async fn yield_now() {
    let mut yielded = false;
    core::future::poll_fn(|context| {
        if yielded {
            return core::task::Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        core::task::Poll::Pending
    })
    .await;
}
