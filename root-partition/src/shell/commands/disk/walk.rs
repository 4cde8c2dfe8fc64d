//! Going through a whole disk piece by piece, with a line now and then that tells how far it is.

use alloc::format;
use core::ops::Range;
use core::time::Duration;

use crate::shell::{commands::Invocation, disks::DiskInfo, output::units};

/// Bytes of a piece.
const PIECE: u64 = 1 << 20;
/// Time between two lines.
const INTERVAL: Duration = Duration::from_secs(5);

/// A walk through a disk.
pub(super) struct Walk<'a> {
    invocation: &'a Invocation<'a>,
    what: &'static str,
    sectors: u64,
    sector_bytes: u64,
    next: u64,
    started: Duration,
    told: Duration,
}

impl<'a> Walk<'a> {
    /// A walk through `disk`; `what` is done there.
    pub(super) fn new(invocation: &'a Invocation<'a>, what: &'static str, disk: &DiskInfo) -> Self {
        let now = invocation.system.root().uptime;
        Self {
            invocation,
            what,
            sectors: disk.sectors,
            sector_bytes: disk.sector_size.bytes().into(),
            next: 0,
            started: now,
            told: now,
        }
    }

    /// The next sectors, at most 1 MiB.
    pub(super) fn next(&mut self) -> Option<Range<u64>> {
        self.tell();
        if self.next == self.sectors {
            return None;
        }
        let end = (self.next + PIECE / self.sector_bytes).min(self.sectors);
        let piece = self.next..end;
        self.next = end;
        Some(piece)
    }

    /// Time since the walk began.
    pub(super) fn duration(&self) -> Duration {
        self.invocation.system.root().uptime.saturating_sub(self.started)
    }

    fn tell(&mut self) {
        let now = self.invocation.system.root().uptime;
        // Programs want one document and nothing else.
        if self.invocation.arguments.json() || now.saturating_sub(self.told) < INTERVAL {
            return;
        }
        self.told = now;
        let percent = u128::from(self.next) * 100 / u128::from(self.sectors.max(1));
        let done = self.next.saturating_mul(self.sector_bytes);
        self.invocation.console.print(&format!(
            "{}: {percent} %, {} (Ctrl-C ends it)\n",
            self.what,
            units::bytes(done)
        ));
    }
}
