//! `disk check`: reads a whole disk, or writes it first and looks whether it says the same.

use alloc::{boxed::Box, format, vec, vec::Vec};
use core::ops::Range;
use vsp::storage::disk::DiskError;

use super::{confirmed, disks, name, pattern, walk::Walk};
use crate::shell::{
    commands::{Invocation, Outcome, arguments::Flag},
    disks::{DiskInfo, OpenDisk, Purpose},
    output::{Report, Table, Value},
    status::Failure,
    system::{Pending, SystemError},
};
use vsc::checksum::Crc32;

pub(in super::super) const CHECKSUM: Flag = Flag {
    name: "--checksum",
    value: None,
    help: "Show the CRC-32 of all that is on it",
};

pub(in super::super) const WRITE: Flag = Flag {
    name: "--write",
    value: None,
    help: "Write a pattern over all of it first, and compare; needs --yes",
};

/// Ranges of bad sectors that are shown.
const MOST_RANGES: usize = 100;

pub(in super::super) fn run<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    Box::pin(async move {
        let writes = invocation.arguments.flag(WRITE.name);
        if writes {
            confirmed(invocation, "disk check --write")?;
        }
        let purpose = if writes { Purpose::Write } else { Purpose::Look };
        let disk = disks(invocation)?.open(name(invocation), purpose).await?;
        let info = disk.info();
        let mut findings = Findings::default();
        let mut walk = Walk::new(invocation, "disk check --write", &info);
        if writes {
            write(&mut walk, &*disk, &info, &mut findings).await?;
        }
        let mut walk = Walk::new(invocation, "disk check", &info);
        let mut checksum = invocation.arguments.flag(CHECKSUM.name).then(Crc32::new);
        let mut read = 0;
        let mut bytes = Vec::new();
        while let Some(piece) = walk.next() {
            let wants_bytes = writes || checksum.is_some();
            let into = wants_bytes.then_some(&mut bytes);
            match disk.read(piece.start, piece.end - piece.start, into).await {
                Ok(()) => {
                    read += piece.end - piece.start;
                    if let Some(checksum) = &mut checksum {
                        checksum.add(&bytes);
                    }
                    if writes {
                        compare(&info, piece.start, &bytes, &mut findings);
                    }
                }
                Err(DiskError::Unreadable(_)) => {
                    read += read_by_halves(&*disk, piece, &mut findings).await?;
                    // A sum of what could be read would be the sum of nothing.
                    checksum = None;
                }
                Err(error) => return Err(failure(&info, piece.start, error)),
            }
        }
        Ok(report(&info, read, &findings, checksum, &walk))
    })
}

/// What is wrong with which sectors.
#[derive(Default)]
struct Findings {
    ranges: Vec<(Range<u64>, &'static str)>,
    sectors: u64,
}

impl Findings {
    fn add(&mut self, sector: u64, what: &'static str) {
        self.sectors += 1;
        let has_room = self.ranges.len() < MOST_RANGES;
        match self.ranges.last_mut() {
            Some((range, before)) if range.end == sector && *before == what => range.end += 1,
            _ if has_room => self.ranges.push((sector..sector + 1, what)),
            _ => {}
        }
    }
}

fn failure(disk: &DiskInfo, sector: u64, error: DiskError) -> Failure {
    SystemError(format!("{} at sector {sector}: {error}", disk.name)).into()
}

/// Writes the pattern over the whole disk.
async fn write(
    walk: &mut Walk<'_>,
    disk: &dyn OpenDisk,
    info: &DiskInfo,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let sector_bytes = info.sector_size.bytes() as usize;
    let mut bytes = Vec::new();
    while let Some(piece) = walk.next() {
        bytes.resize((piece.end - piece.start) as usize * sector_bytes, 0);
        pattern::fill(piece.start, sector_bytes, &mut bytes);
        match disk.write(piece.start, &bytes).await {
            Ok(()) => {}
            Err(DiskError::Unwritable(_)) => {
                for (sector, part) in piece.zip(bytes.chunks(sector_bytes)) {
                    match disk.write(sector, part).await {
                        Ok(()) => {}
                        Err(DiskError::Unwritable(_)) => findings.add(sector, "cannot be written"),
                        Err(error) => return Err(failure(info, sector, error)),
                    }
                }
            }
            Err(error) => return Err(failure(info, piece.start, error)),
        }
    }
    disk.flush().await.map_err(|error| failure(info, 0, error))
}

fn compare(info: &DiskInfo, first: u64, bytes: &[u8], findings: &mut Findings) {
    let sector_bytes = info.sector_size.bytes() as usize;
    let mut wanted = vec![0; sector_bytes];
    for (sector, part) in (first..).zip(bytes.chunks(sector_bytes)) {
        pattern::fill(sector, sector_bytes, &mut wanted);
        if part != wanted {
            findings.add(sector, "reads other than was written");
        }
    }
}

/// Reads a piece that could not be read in one go, in halves and halves of these, so that the sectors that are bad are
/// found. Returns how many could be read.
async fn read_by_halves(
    disk: &dyn OpenDisk,
    piece: Range<u64>,
    findings: &mut Findings,
) -> Result<u64, Failure> {
    let info = disk.info();
    let mut read = 0;
    let mut left = vec![piece];
    while let Some(part) = left.pop() {
        match disk.read(part.start, part.end - part.start, None).await {
            Ok(()) => read += part.end - part.start,
            Err(DiskError::Unreadable(_)) if part.end - part.start == 1 => {
                findings.add(part.start, "cannot be read");
            }
            Err(DiskError::Unreadable(_)) => {
                let middle = part.start + (part.end - part.start) / 2;
                left.push(middle..part.end);
                left.push(part.start..middle);
            }
            Err(error) => return Err(failure(&info, part.start, error)),
        }
    }
    Ok(read)
}

fn report(
    disk: &DiskInfo,
    read: u64,
    findings: &Findings,
    checksum: Option<Crc32>,
    walk: &Walk<'_>,
) -> Report {
    let mut report = Report::new();
    let sector_bytes = u64::from(disk.sector_size.bytes());
    let nanoseconds = u64::try_from(walk.duration().as_nanos()).unwrap_or(u64::MAX);
    report.push_fields(
        "",
        [
            ("name", "name", Value::text(&disk.name)),
            (
                "bytes_read",
                "read",
                Value::Bytes(read.saturating_mul(sector_bytes)),
            ),
            ("bad_sectors", "bad sectors", Value::Number(findings.sectors)),
            ("time_ns", "took", Value::Nanoseconds(nanoseconds)),
        ],
    );
    if let Some(checksum) = checksum {
        let value = Value::Text(format!("{:08x}", checksum.value()));
        report.push_fields("", [("crc32", "CRC-32", value)]);
    }
    if findings.sectors > 0 {
        let mut table = Table::new(
            "bad",
            &[
                ("first_sector", "first sector"),
                ("sectors", "sectors"),
                ("what", "what is wrong"),
            ],
        );
        for (range, what) in &findings.ranges {
            table.row([
                Value::Number(range.start),
                Value::Number(range.end - range.start),
                Value::text(what),
            ]);
        }
        report.push_table(table);
        report.failed = true;
    }
    report
}
