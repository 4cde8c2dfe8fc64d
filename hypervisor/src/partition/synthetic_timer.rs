//! A synthetic timer, and when a periodic one expires next (TLFS, "Timers").

use hypercall_api::msr::StimerConfig;

/// Most missed periods that a timer makes up for; where it has missed more they are skipped.
const MOST_MADE_UP: u64 = 16;

/// A synthetic timer.
#[derive(Clone, Copy, Default)]
pub(super) struct Timer {
    pub(super) config: StimerConfig,
    pub(super) count: u64,
    /// Reference time of the next expiry, while enabled.
    pub(super) expires: u64,
    /// TSC at which the next expiry is to be signalled, which is later where one is made up for; meaningless while disabled.
    pub(super) deadline: u64,
    /// An expired timer whose message has found no free slot: when it expired.
    pub(super) undelivered: Option<u64>,
}

/// The next expiry of a periodic timer. All times are reference times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Next {
    /// When it is due.
    pub(super) expires: u64,
    /// When it is to be signalled.
    pub(super) at: u64,
    /// Whether the expiry before it, which is now, is signalled.
    pub(super) signals: bool,
}

impl Next {
    /// Of a timer that was due at `expired`, each `period`, which is not 0, and that the VP hears of at `now`. The VP may not
    /// have run for several periods. A timer then has half of its period until it has caught up, unless it has missed a great
    /// many. A lazy one has missed them, and where its next expiry is near, this one too (TLFS, "Periodic Timers").
    pub(super) const fn of(expired: u64, period: u64, now: u64, lazy: bool) -> Self {
        let missed = now.saturating_sub(expired) / period;
        if missed != 0 && missed <= MOST_MADE_UP && !lazy {
            return Self {
                expires: expired.saturating_add(period),
                at: now.saturating_add(period / 2),
                signals: true,
            };
        }
        let expires = expired.saturating_add(period.saturating_mul(missed.saturating_add(1)));
        let is_near = expires.saturating_sub(now) < period / 4;
        Self {
            expires,
            at: expires,
            signals: !(lazy && missed != 0 && is_near),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// Expiries that are signalled from `first` until `end` where the VP does not run between `gone` and `back`: when each was due,
    /// and when it is signalled.
    fn signalled(first: u64, end: u64, (gone, back): (u64, u64), lazy: bool) -> Vec<(u64, u64)> {
        let (mut expires, mut at) = (first, first);
        let mut signals = Vec::new();
        while at < end {
            let now = if (gone..back).contains(&at) { back } else { at };
            let next = Next::of(expires, 100, now, lazy);
            if next.signals {
                signals.push((expires, now));
            }
            (expires, at) = (next.expires, next.at);
        }
        signals
    }

    #[test]
    fn a_timer_on_time_expires_each_period_lazy_or_not() {
        for lazy in [false, true] {
            let times = signalled(1000, 1400, (0, 0), lazy);
            assert_eq!(times, [(1000, 1000), (1100, 1100), (1200, 1200), (1300, 1300)]);
        }
    }

    #[test]
    fn a_timer_that_is_late_by_less_than_a_period_keeps_its_times() {
        for lazy in [false, true] {
            let times = signalled(1000, 1300, (1050, 1199), lazy);
            assert_eq!(times, [(1000, 1000), (1100, 1199), (1200, 1200)]);
        }
    }

    #[test]
    fn missed_periods_are_made_up_for_in_half_the_time() {
        let times = signalled(1000, 1700, (1000, 1310), false);
        let expected = [
            (1000, 1310),
            (1100, 1360),
            (1200, 1410),
            (1300, 1460),
            (1400, 1510),
            (1500, 1560),
            (1600, 1600),
        ];
        assert_eq!(times, expected);
    }

    #[test]
    fn too_many_missed_periods_are_skipped() {
        let times = signalled(1000, 5000, (1000, 4850), false);
        assert_eq!(times, [(1000, 4850), (4900, 4900)]);
    }

    #[test]
    fn a_lazy_timer_makes_up_for_nothing() {
        let times = signalled(1000, 1500, (1000, 1310), true);
        assert_eq!(times, [(1000, 1310), (1400, 1400)]);
    }

    #[test]
    fn a_lazy_timer_that_is_late_until_shortly_before_the_next_time_is_skipped() {
        let times = signalled(1000, 1500, (1000, 1390), true);
        assert_eq!(times, [(1400, 1400)]);
    }

    #[test]
    fn no_times_overflow() {
        let next = Next::of(u64::MAX - 10, u64::MAX, u64::MAX, false);
        assert_eq!(next.expires, u64::MAX);
        assert_eq!(Next::of(0, 1, u64::MAX, true).expires, u64::MAX);
    }
}
