//! `disk …`: disks and partitions.
//!
//! | module | holds |
//! |---|---|
//! | [`check`] | `disk check` |
//! | [`control`] | `disk create`, `disk delete`, `disk scan`, `disk reset` |
//! | [`erase`] | `disk erase` |
//! | [`machine`] | `disk attach`, `disk detach`, `disk insert`, `disk eject` |
//! | [`measure`] | `disk bench` |
//! | [`pattern`] | what a writing check writes |
//! | [`show`] | `disk list` |
//! | [`walk`] | going through a whole disk, with progress |

pub(super) mod check;
pub(super) mod control;
pub(super) mod erase;
pub(super) mod machine;
pub(super) mod measure;
mod pattern;
pub(super) mod show;
mod walk;

#[cfg(test)]
mod tests;

use alloc::format;

use super::{
    Invocation,
    arguments::{Argument, Flag},
};
use crate::shell::{disks::Disks, status::Failure, system::SystemError};

/// A disk.
pub(super) const DISK: Argument = Argument {
    name: "NAME",
    help: "The disk or partition: nvme0, nvme0p1, archive:FILE",
    required: true,
    repeated: false,
    values: Some(|system| system.disks().map(|disks| disks.names()).unwrap_or_default()),
};

/// Needed by all that destroys data.
pub(super) const YES: Flag = Flag {
    name: "--yes",
    value: None,
    help: "All data on the disk is lost, and that is meant",
};

/// The disks.
fn disks<'a>(invocation: &'a Invocation<'a>) -> Result<&'a dyn Disks, Failure> {
    let disks = invocation.system.disks();
    disks.ok_or_else(|| SystemError::new("there can be no disks on this system").into())
}

/// The disk that was named. Its row requires it.
fn name<'a>(invocation: &'a Invocation<'a>) -> &'a str {
    invocation.arguments.word(0).unwrap_or_default()
}

/// Fails unless the user has confirmed that data may be lost.
fn confirmed(invocation: &Invocation<'_>, command: &str) -> Result<(), Failure> {
    match invocation.arguments.flag(YES.name) {
        true => Ok(()),
        false => Err(Failure::Usage(format!(
            "{command}: all data on {} would be lost: add --yes if that is meant",
            name(invocation)
        ))),
    }
}
