//! `disk erase`.

use alloc::{boxed::Box, format, vec};
use vsp::storage::disk::DiskError;

use super::{confirmed, disks, name, walk::Walk};
use crate::shell::{
    commands::{Invocation, Outcome, arguments::Flag},
    disks::{DiskInfo, Purpose},
    output::{Report, Value},
    status::Failure,
    system::{Pending, SystemError},
};

pub(in super::super) const DISCARD: Flag = Flag {
    name: "--discard",
    value: None,
    help: "Give the sectors up instead of writing zeros; fast",
};

pub(in super::super) fn run<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    Box::pin(async move {
        confirmed(invocation, "disk erase")?;
        let disk = disks(invocation)?.open(name(invocation), Purpose::Write).await?;
        let info = disk.info();
        let failed = |error| failure(&info, error);
        if invocation.arguments.flag(DISCARD.name) {
            disk.discard(0, info.sectors).await.map_err(failed)?;
        } else {
            let zeros = vec![0; 1 << 20];
            let mut walk = Walk::new(invocation, "disk erase", &info);
            while let Some(piece) = walk.next() {
                let bytes = (piece.end - piece.start) as usize * info.sector_size.bytes() as usize;
                let part = zeros.get(..bytes).unwrap_or_default();
                disk.write(piece.start, part).await.map_err(failed)?;
            }
        }
        disk.flush().await.map_err(failed)?;
        let mut report = Report::new();
        report.push_fields(
            "",
            [
                ("name", "erased", Value::text(&info.name)),
                ("size_bytes", "size", Value::Bytes(info.bytes())),
            ],
        );
        Ok(report)
    })
}

fn failure(disk: &DiskInfo, error: DiskError) -> Failure {
    SystemError(format!("{}: {error}", disk.name)).into()
}
