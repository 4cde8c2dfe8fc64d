//! `disk list`.

use alloc::boxed::Box;

use super::disks;
use crate::shell::{
    commands::{Invocation, Outcome},
    disks::DiskInfo,
    output::{Report, Table, Value},
    system::Pending,
};

pub(in super::super) fn list<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    Box::pin(async move {
        let mut table = Table::new(
            "disks",
            &[
                ("name", "name"),
                ("size_bytes", "size"),
                ("sectors", ""),
                ("sector_bytes", "sector"),
                ("kind", "kind"),
                ("read_only", ""),
                ("write_cache", ""),
                ("discard", ""),
                ("users", "used by"),
                ("reads", ""),
                ("bytes_read", ""),
                ("writes", ""),
                ("bytes_written", ""),
                ("flushes", ""),
                ("discards", ""),
                ("errors", ""),
                ("model", "model"),
            ],
        );
        // For people in a table of its own, as one would be too wide.
        let mut counters = Table::new(
            "",
            &[
                ("", "name"),
                ("", "reads"),
                ("", "read"),
                ("", "writes"),
                ("", "written"),
                ("", "flushes"),
                ("", "discards"),
                ("", "errors"),
            ],
        );
        for disk in disks(invocation)?.list().await {
            counters.row(counted(&disk));
            table.row(row(disk));
        }
        let mut report = Report::table(table);
        report.push_table(counters);
        Ok(report)
    })
}

fn row(disk: DiskInfo) -> [Value; 17] {
    let counters = disk.counters;
    [
        Value::text(&disk.name),
        Value::Bytes(disk.bytes()),
        Value::Number(disk.sectors),
        Value::Number(disk.sector_size.bytes().into()),
        Value::text(disk.kind),
        Value::Flag(disk.read_only),
        Value::Flag(disk.write_cache),
        Value::Flag(disk.discard),
        Value::texts(disk.users),
        Value::Number(counters.reads),
        Value::Number(counters.bytes_read),
        Value::Number(counters.writes),
        Value::Number(counters.bytes_written),
        Value::Number(counters.flushes),
        Value::Number(counters.discards),
        Value::Number(counters.errors),
        Value::optional(disk.model),
    ]
}

fn counted(disk: &DiskInfo) -> [Value; 8] {
    let counters = disk.counters;
    [
        Value::text(&disk.name),
        Value::Number(counters.reads),
        Value::Bytes(counters.bytes_read),
        Value::Number(counters.writes),
        Value::Bytes(counters.bytes_written),
        Value::Number(counters.flushes),
        Value::Number(counters.discards),
        Value::Number(counters.errors),
    ]
}
