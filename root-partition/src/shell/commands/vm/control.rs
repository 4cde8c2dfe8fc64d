//! What changes a machine's state.

use alloc::{
    boxed::Box,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::{future::poll_fn, time::Duration};

use embassy_futures::select::{Either, select};

use super::{console, machines, name};
use crate::shell::{
    commands::{Invocation, Outcome, arguments::Flag},
    machines::{MachineState, Order},
    output::{Report, Value},
    status::Failure,
    system::{Pending, SystemError},
};

pub(in super::super) const NAME: Flag = Flag {
    name: "--name",
    value: Some("NAME"),
    help: "Call it so, whatever the description says",
};

pub(in super::super) const WAIT: Flag = Flag {
    name: "--wait",
    value: None,
    help: "Wait until it is off; fail where it crashes",
};

pub(in super::super) const CONSOLE: Flag = Flag {
    name: "--console",
    value: None,
    help: "Attach to its console; Ctrl-] leaves",
};

pub(in super::super) const FORCE: Flag = Flag {
    name: "--force",
    value: None,
    help: "Kill it where it does not end in good order",
};

pub(in super::super) const TIMEOUT: Flag = Flag {
    name: "--timeout",
    value: Some("SECONDS"),
    help: "How long the guest may take; 60 where not given",
};

pub(in super::super) const PATIENCE: Flag = Flag {
    name: "--timeout",
    value: Some("SECONDS"),
    help: "How long at most; for good where not given",
};

/// How long a guest may take to end.
const STOP_SECONDS: u64 = 60;

pub(in super::super) const STATE: Flag = Flag {
    name: "--state",
    value: Some("STATE"),
    help: "Wait for this state: off, running, paused, crashed",
};

pub(in super::super) const TEXT: Flag = Flag {
    name: "--text",
    value: Some("TEXT"),
    help: "Wait until its console has shown this text; fail where it ends without",
};

/// Where a machine does nothing more by itself.
const ENDED: &[MachineState] = &[MachineState::Off, MachineState::Crashed];

pub(in super::super) fn create(invocation: &Invocation<'_>) -> Outcome {
    let name = machines(invocation)?.create(name(invocation), invocation.arguments.value(NAME.name))?;
    let mut report = Report::new();
    report.push_fields("", [("name", "created", Value::Text(name))]);
    Ok(report)
}

pub(in super::super) fn start<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    Box::pin(async move {
        let (waits, attaches) = (
            invocation.arguments.flag(WAIT.name),
            invocation.arguments.flag(CONSOLE.name),
        );
        if waits && attaches {
            return Err(Failure::Usage(String::from(
                "vm start: give --wait or --console, not both",
            )));
        }
        machines(invocation)?
            .order(name(invocation), Order::Start)
            .await?;
        match (waits, attaches) {
            (true, _) => wait_for(invocation, ENDED).await,
            (_, true) => console::attach(invocation).await,
            _ => Ok(Report::new()),
        }
    })
}

pub(in super::super) fn stop<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    Box::pin(async move {
        let machines = machines(invocation)?;
        let name = name(invocation);
        let seconds = invocation.arguments.number(TIMEOUT.name)?.unwrap_or(STOP_SECONDS);
        if machines.show(name)?.state == MachineState::Off {
            return Ok(Report::new());
        }
        let why = match machines.order(name, Order::Stop).await {
            Ok(()) => {
                let ended = machines.wait(name, ENDED);
                let patience = invocation.system.sleep(Duration::from_secs(seconds));
                match select(ended, patience).await {
                    Either::First(state) => match state? {
                        MachineState::Crashed => format!("'{name}' crashed when it was to end"),
                        _ => return Ok(Report::new()),
                    },
                    Either::Second(()) => {
                        format!("'{name}' has been asked, and has not ended within {seconds} s")
                    }
                }
            }
            Err(error) => error.to_string(),
        };
        if invocation.arguments.flag(FORCE.name) {
            machines.order(name, Order::Kill).await?;
            let mut report = Report::new();
            report.push_remark(format!("killed: {why}"));
            return Ok(report);
        }
        Err(SystemError::new(format!(
            "{why}; 'vm stop {name} --force' or 'vm kill {name}' ends it"
        ))
        .into())
    })
}

pub(in super::super) fn kill<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    order(invocation, Order::Kill)
}

pub(in super::super) fn reset<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    order(invocation, Order::Reset)
}

pub(in super::super) fn pause<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    order(invocation, Order::Pause)
}

pub(in super::super) fn resume<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    order(invocation, Order::Resume)
}

pub(in super::super) fn delete<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    order(invocation, Order::Delete)
}

fn order<'a>(invocation: &'a Invocation<'a>, order: Order) -> Pending<'a, Outcome> {
    Box::pin(async move {
        machines(invocation)?.order(name(invocation), order).await?;
        Ok(Report::new())
    })
}

pub(in super::super) fn wait<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    Box::pin(async move {
        let Some(seconds) = invocation.arguments.number(PATIENCE.name)? else {
            return wait_long(invocation).await;
        };
        let patience = invocation.system.sleep(Duration::from_secs(seconds));
        match select(wait_long(invocation), patience).await {
            Either::First(outcome) => outcome,
            Either::Second(()) => {
                let name = name(invocation);
                let state = machines(invocation)?.show(name)?.state;
                let what = format!("it has not come to pass within {seconds} s: '{name}' is {state}");
                Err(SystemError::new(what).into())
            }
        }
    })
}

fn wait_long<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    Box::pin(async move {
        let state = invocation.arguments.value(STATE.name);
        if let Some(text) = invocation.arguments.value(TEXT.name) {
            return match state {
                None => wait_for_text(invocation, text).await,
                Some(_) => Err(Failure::Usage(String::from(
                    "vm wait: give --state or --text, not both",
                ))),
            };
        }
        let Some(wanted) = state else {
            return wait_for(invocation, ENDED).await;
        };
        let state = MachineState::ALL.iter().find(|(name, _)| *name == wanted);
        match state {
            Some((_, state)) => wait_for(invocation, &[*state]).await,
            None => {
                let names: Vec<&str> = MachineState::ALL.iter().map(|(name, _)| *name).collect();
                Err(Failure::Usage(format!(
                    "vm wait: there is no state '{wanted}': the states are {}",
                    names.join(", ")
                )))
            }
        }
    })
}

/// Waits for one of `states`. A machine that crashed instead of ending, or was deleted, is a failure.
async fn wait_for(invocation: &Invocation<'_>, states: &[MachineState]) -> Outcome {
    let (machines, name) = (machines(invocation)?, name(invocation));
    let state = machines.wait(name, states).await?;
    let mut report = Report::new();
    report.push_fields(
        "",
        [
            ("name", "name", Value::text(name)),
            ("state", "state", Value::text(state)),
        ],
    );
    let wanted = states == [state];
    if state == MachineState::Crashed && !wanted {
        let why = machines.log(name)?.pop().map(|event| event.text);
        report.push_fields("", [("reason", "reason", Value::optional(why))]);
    }
    report.failed = !wanted && matches!(state, MachineState::Crashed | MachineState::Deleted);
    Ok(report)
}

/// Waits until the console has shown `text`. A machine that ends without is a failure.
async fn wait_for_text(invocation: &Invocation<'_>, text: &str) -> Outcome {
    let (machines, name) = (machines(invocation)?, name(invocation));
    let mut search = Search::new(text.as_bytes());
    let mut position = 0;
    let shown = async {
        loop {
            let (start, bytes) = machines.console(name, position)?;
            if search.take(&bytes) {
                return Ok::<_, SystemError>(());
            }
            position = start + bytes.len() as u64;
            if bytes.is_empty() {
                let ended = machines.show(name)?.state == MachineState::Off;
                match ended {
                    // What ends this is that it is off.
                    true => core::future::pending::<()>().await,
                    false => poll_fn(|context| machines.poll_console(name, position, context)).await,
                }
            }
        }
    };
    // What it said at its end is looked at first.
    let found = match select(shown, machines.wait(name, ENDED)).await {
        Either::First(result) => result.map(|()| true)?,
        Either::Second(state) => {
            state?;
            false
        }
    };
    let machine = machines.show(name)?;
    let mut report = Report::new();
    report.push_fields(
        "",
        [
            ("name", "name", Value::text(name)),
            ("state", "state", Value::text(machine.state)),
            (
                "since_ns",
                "for",
                Value::Nanoseconds(machine.since.as_nanos() as u64),
            ),
            ("shown", "shown", Value::Flag(found)),
        ],
    );
    report.failed = !found;
    Ok(report)
}

/// Looks for a text in what comes in pieces.
struct Search<'a> {
    text: &'a [u8],
    /// The end of what came, less than the text.
    tail: Vec<u8>,
}

impl<'a> Search<'a> {
    const fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            tail: Vec::new(),
        }
    }

    /// Takes one more piece, and says whether the text has been seen.
    fn take(&mut self, piece: &[u8]) -> bool {
        self.tail.extend_from_slice(piece);
        if self.text.is_empty()
            || self
                .tail
                .windows(self.text.len())
                .any(|window| window == self.text)
        {
            return true;
        }
        let kept = self.text.len() - 1;
        self.tail.drain(..self.tail.len().saturating_sub(kept));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::Search;

    #[test]
    fn a_text_is_found_across_pieces_and_nowhere_else() {
        let mut search = Search::new(b"ready");
        let taken: alloc::vec::Vec<bool> = ["re", "adx re", "ad", "", "y"]
            .map(|piece| search.take(piece.as_bytes()))
            .into();
        assert_eq!(taken, [false, false, false, false, true]);
        assert!(Search::new(b"").take(b""));
    }
}
