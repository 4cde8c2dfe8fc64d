//! `disk attach`, `disk detach`, `disk insert`, `disk eject`: disks of virtual machines that run, and media in their drives.

use alloc::{boxed::Box, format, string::ToString};

use crate::shell::{
    commands::{
        Invocation, Outcome,
        arguments::{Argument, Flag},
        vm::{machines, name},
    },
    output::{Report, Value},
    status::Failure,
    system::Pending,
};
use crate::vm::description::DiskDescription;

pub(in super::super) const SOURCE: Argument = Argument {
    name: "SOURCE",
    help: "What is behind it: nvme0p1, archive:FILE, ram:64MiB",
    required: true,
    repeated: false,
    values: Some(|system| system.disks().map(|disks| disks.names()).unwrap_or_default()),
};

pub(in super::super) const MEDIUM: Argument = Argument {
    name: "DISK",
    help: "The medium, read-only: archive:FILE, nvme0p1",
    ..SOURCE
};

pub(in super::super) const UNIT: Argument = Argument {
    name: "LUN",
    help: "The disk's number, as 'vm show' tells it",
    required: true,
    repeated: false,
    values: None,
};

pub(in super::super) const LUN: Flag = Flag {
    name: "--lun",
    value: Some("NUMBER"),
    help: "Its number, 0 to 63; the first that is free where not given",
};

pub(in super::super) const READ_ONLY: Flag = Flag {
    name: "--read-only",
    value: None,
    help: "The guest cannot write it",
};

pub(in super::super) const DVD: Flag = Flag {
    name: "--dvd",
    value: None,
    help: "It is a medium in a DVD drive",
};

pub(in super::super) fn attach<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    Box::pin(async move {
        let arguments = invocation.arguments;
        let lun = match arguments.number(LUN.name)? {
            Some(number) => Some(unit(&number.to_string())?),
            None => None,
        };
        let disk = DiskDescription {
            source: arguments.word(1).map(ToString::to_string),
            read_only: arguments.flag(READ_ONLY.name) || arguments.flag(DVD.name),
            dvd: arguments.flag(DVD.name),
        };
        let lun = machines(invocation)?.attach(name(invocation), &disk, lun).await?;
        let mut report = Report::new();
        report.push_fields("", [("lun", "LUN", Value::Number(lun.into()))]);
        Ok(report)
    })
}

pub(in super::super) fn detach(invocation: &Invocation<'_>) -> Outcome {
    let lun = unit(invocation.arguments.word(1).unwrap_or_default())?;
    machines(invocation)?.detach(name(invocation), lun)?;
    Ok(Report::new())
}

pub(in super::super) fn insert<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    Box::pin(async move {
        let arguments = invocation.arguments;
        let lun = unit(arguments.word(1).unwrap_or_default())?;
        let source = arguments.word(2).unwrap_or_default();
        machines(invocation)?
            .insert(name(invocation), lun, source)
            .await?;
        Ok(Report::new())
    })
}

pub(in super::super) fn eject(invocation: &Invocation<'_>) -> Outcome {
    let lun = unit(invocation.arguments.word(1).unwrap_or_default())?;
    machines(invocation)?.eject(name(invocation), lun)?;
    Ok(Report::new())
}

fn unit(text: &str) -> Result<u8, Failure> {
    text.parse()
        .map_err(|_| Failure::Usage(format!("'{text}' is no number of a disk: give one from 0 to 63")))
}
