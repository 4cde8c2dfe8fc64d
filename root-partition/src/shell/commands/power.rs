//! `poweroff`, `reboot`.

use super::{Invocation, Outcome};
use crate::shell::output::Report;

pub(super) fn off(invocation: &Invocation<'_>) -> Outcome {
    invocation.system.power_off()?;
    Ok(Report::new())
}

pub(super) fn reboot(invocation: &Invocation<'_>) -> Outcome {
    invocation.system.reboot()?;
    Ok(Report::new())
}
