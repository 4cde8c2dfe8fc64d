//! `disk create`, `disk delete`, `disk scan`, `disk reset`.

use alloc::{boxed::Box, format};

use super::{disks, name};
use crate::disk::registry::size;
use crate::shell::{
    commands::{
        Invocation, Outcome,
        arguments::{Argument, Flag},
    },
    output::{Report, Value},
    status::Failure,
    system::Pending,
};

pub(in super::super) const NEW: Argument = Argument {
    name: "NAME",
    help: "What the disk is to be called",
    required: true,
    repeated: false,
    values: None,
};

pub(in super::super) const SIZE: Flag = Flag {
    name: "--size",
    value: Some("SIZE"),
    help: "Its size, as in 64MiB; it takes that much of the root's memory",
};

pub(in super::super) fn create(invocation: &Invocation<'_>) -> Outcome {
    let Some(text) = invocation.arguments.value(SIZE.name) else {
        return Err(Failure::Usage(format!(
            "disk create: give a size, as in 'disk create {} --size 64MiB'",
            name(invocation)
        )));
    };
    let bytes = size(text).ok_or_else(|| {
        Failure::Usage(format!(
            "disk create: --size {text}: give a size in KiB, MiB or GiB, as in 64MiB"
        ))
    })?;
    disks(invocation)?.create(name(invocation), bytes)?;
    let mut report = Report::new();
    report.push_fields(
        "",
        [
            ("name", "created", Value::text(name(invocation))),
            ("size_bytes", "size", Value::Bytes(bytes)),
        ],
    );
    Ok(report)
}

pub(in super::super) fn delete(invocation: &Invocation<'_>) -> Outcome {
    disks(invocation)?.delete(name(invocation))?;
    Ok(Report::new())
}

pub(in super::super) fn scan<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    Box::pin(async move {
        let partitions = disks(invocation)?.scan(name(invocation)).await?;
        let mut report = Report::new();
        let partitions = Value::Number(partitions as u64);
        report.push_fields("", [("partitions", "partitions", partitions)]);
        Ok(report)
    })
}

pub(in super::super) fn reset<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    Box::pin(async move {
        disks(invocation)?.reset(name(invocation)).await?;
        Ok(Report::new())
    })
}
