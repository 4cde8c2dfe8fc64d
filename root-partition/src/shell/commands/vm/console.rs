//! `vm console`: attached to a guest's serial port, or what that has kept.

use alloc::{boxed::Box, format, string::String, vec::Vec};
use core::{future::poll_fn, task::Poll};

use super::{machines, name};
use crate::shell::{
    commands::{Invocation, Outcome, arguments::Flag},
    machines::MachineState,
    output::{Report, Value},
    status::Failure,
    system::Pending,
};

pub(in super::super) const DUMP: Flag = Flag {
    name: "--dump",
    value: None,
    help: "Print what it has kept, and return",
};

/// Ctrl-].
const LEAVE: u8 = 0x1d;

pub(in super::super) fn run<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    Box::pin(async move {
        match (invocation.arguments.flag(DUMP.name), invocation.arguments.json()) {
            (true, json) => dump(invocation, json),
            (false, false) => attach(invocation).await,
            (false, true) => Err(Failure::Usage(String::from(
                "vm console: an attached console is no JSON document: --dump prints one",
            ))),
        }
    })
}

fn dump(invocation: &Invocation<'_>, json: bool) -> Outcome {
    let (machines, name) = (machines(invocation)?, name(invocation));
    let (first, mut text) = machines.console(name, 0)?;
    loop {
        let (position, more) = machines.console(name, first + text.len() as u64)?;
        // A guest that writes faster than this reads must not keep it here: what is overwritten ends the reading.
        if more.is_empty() || position != first + text.len() as u64 {
            break;
        }
        text.extend(more);
    }
    let shown = String::from_utf8_lossy(&text).into_owned();
    let mut report = Report::new();
    match json {
        true => report.push_fields(
            "",
            [
                ("position", "position", Value::Number(first)),
                ("next", "next", Value::Number(first + text.len() as u64)),
                ("text", "text", Value::Text(shown)),
            ],
        ),
        false => {
            invocation.console.print(&shown);
            if !shown.is_empty() && !shown.ends_with('\n') {
                invocation.console.print("\n");
            }
        }
    }
    Ok(report)
}

/// What the user or the guest has to say.
enum Said {
    User(Option<u8>),
    Guest,
}

/// Connects terminal and console until Ctrl-], or until the machine is off and has nothing more to say.
pub(super) async fn attach(invocation: &Invocation<'_>) -> Outcome {
    let (machines, name) = (machines(invocation)?, name(invocation));
    let console = invocation.console;
    machines.show(name)?;
    console.print(&format!("attached to '{name}': Ctrl-] leaves\n"));
    console.capture();
    let mut position = 0;
    loop {
        let said = poll_fn(|context| {
            // The user first: a flood from the guest must not keep him from leaving.
            if let Poll::Ready(byte) = console.poll_read(context) {
                return Poll::Ready(Said::User(byte));
            }
            machines
                .poll_console(name, position, context)
                .map(|()| Said::Guest)
        })
        .await;
        match said {
            Said::User(Some(LEAVE) | None) => return Ok(Report::remark(format!("\nleft '{name}'"))),
            Said::User(Some(byte)) => machines.type_in(name, &[byte])?,
            Said::Guest => {
                let (start, bytes) = machines.console(name, position)?;
                if bytes.is_empty() {
                    let state = machines
                        .show(name)
                        .map_or(MachineState::Deleted, |machine| machine.state);
                    return Ok(Report::remark(format!("\n'{name}' is {state}")));
                }
                position = start + bytes.len() as u64;
                console.control(&without_returns(&bytes));
            }
        }
    }
}

/// The console makes CRLF of LF itself; a guest that writes both must not have its lines end twice.
fn without_returns(bytes: &[u8]) -> Vec<u8> {
    let kept = bytes.iter().enumerate().filter(|&(index, &byte)| {
        let doubled = byte == b'\r' && bytes.get(index + 1) == Some(&b'\n');
        !doubled
    });
    kept.map(|(_, &byte)| byte).collect()
}
