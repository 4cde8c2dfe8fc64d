//! Limits on what a guest can make the log say: a burst, then so many lines a second, and a count of what was left out.

use crate::platform::clock;
use crate::platform::registers::tsc;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Lines that may come at once.
const BURST: u32 = 10;

/// The limit of one place that logs: [`BURST`] lines a second.
pub struct RateLimit {
    second: AtomicU64,
    lines: AtomicU32,
    dropped: AtomicU32,
}

impl RateLimit {
    /// A limit that nothing has used.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self {
            second: AtomicU64::new(0),
            lines: AtomicU32::new(0),
            dropped: AtomicU32::new(0),
        }
    }

    /// Whether a line may be written now, and how many have been left out before it.
    pub fn admit(&self) -> Option<u32> {
        self.admit_at(tsc() / clock::tsc_frequency().max(1))
    }

    fn admit_at(&self, second: u64) -> Option<u32> {
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.lines.store(0, Ordering::Relaxed);
        }
        if self.lines.fetch_add(1, Ordering::Relaxed) < BURST {
            return Some(self.dropped.swap(0, Ordering::Relaxed));
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// Logs a line, unless this place has logged too many in this second.
#[macro_export]
macro_rules! rate_limited {
    ($level:expr, $($argument:tt)+) => {{
        static LIMIT: $crate::rate::RateLimit = $crate::rate::RateLimit::new();
        match LIMIT.admit() {
            Some(0) => log::log!($level, $($argument)+),
            Some(dropped) => {
                log::log!($level, $($argument)+);
                log::log!($level, "({dropped} lines like this one were left out)");
            }
            None => {}
        }
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_cut_and_told_of_in_the_next_second() {
        let limit = RateLimit::new();
        for _ in 0..BURST {
            assert_eq!(limit.admit_at(1), Some(0));
        }
        assert_eq!(limit.admit_at(1), None);
        assert_eq!(limit.admit_at(1), None);
        assert_eq!(limit.admit_at(2), Some(2));
    }
}
