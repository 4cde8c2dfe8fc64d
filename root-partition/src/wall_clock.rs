//! The wall clock: the reference time, and what the real-time clock told at the start.

use crate::drivers::real_time_clock;
use crate::hypervisor::time;
use spin::Once;
use vmbus::protocol::integration::time_sync::UNIX_EPOCH;

/// Ticks of 100 ns a second.
const TICKS_PER_SECOND: u64 = 10_000_000;

/// Wall clock minus reference time, in 100 ns since 1601; `None` where the machine has no clock.
static OFFSET: Once<Option<u64>> = Once::new();

/// Reads the real-time clock.
pub fn init() {
    OFFSET.call_once(|| {
        let seconds = real_time_clock::unix_time();
        if seconds.is_none() {
            log::warn!("the real-time clock tells no time; guests are not told the time");
        }
        Some(seconds? * TICKS_PER_SECOND + UNIX_EPOCH - time::now())
    });
}

/// The time in 100 ns since 1601, UTC, as guests are told it.
pub fn now() -> Option<u64> {
    OFFSET.get().copied().flatten().map(|offset| offset + time::now())
}

/// The time in seconds since 1970, UTC.
pub fn unix_time() -> Option<u64> {
    now().map(|ticks| (ticks - UNIX_EPOCH) / TICKS_PER_SECOND)
}
