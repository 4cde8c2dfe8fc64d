//! Caps of bandwidth: a bucket that fills with the allowed rate. A port that has emptied it waits; nothing is thrown away.

use super::TICKS_A_SECOND;

/// A cap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// Bits a second; at least 8.
    pub bits_per_second: u64,
}

/// The bucket holds what flows in so many ticks: a hundredth of a second.
const DEPTH: u64 = TICKS_A_SECOND / 100;

/// Parts of a tick that are counted: at high rates a small frame takes less than a tick.
const FRACTIONS: u128 = 1 << 20;

/// The state of a cap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// Bytes a second.
    rate: Option<u64>,
    /// When all that was taken has flowed in again ("theoretical arrival time"), in fractions of a tick.
    due: u128,
}

impl Bucket {
    pub(super) fn new(limit: Option<Limit>) -> Self {
        Self {
            rate: limit.map(|limit| (limit.bits_per_second / 8).max(1)),
            due: 0,
        }
    }

    /// Whether there is a cap at all.
    #[inline]
    pub(super) const fn is_capped(&self) -> bool {
        self.rate.is_some()
    }

    /// Takes `bytes`, or says from when on that can be done. A frame may be larger than the bucket: it makes a debt.
    #[inline]
    pub(super) fn take(&mut self, bytes: usize, now: u64) -> Result<(), u64> {
        let Some(rate) = self.rate else {
            return Ok(());
        };
        let now = u128::from(now) * FRACTIONS;
        let begin = self.due.max(now.saturating_sub(u128::from(DEPTH) * FRACTIONS));
        if begin > now {
            return Err(u64::try_from(begin.div_ceil(FRACTIONS)).unwrap_or(u64::MAX));
        }
        let cost = (bytes as u128).saturating_mul(u128::from(TICKS_A_SECOND) * FRACTIONS) / u128::from(rate);
        self.due = begin.saturating_add(cost);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends 100,000 frames of `size` as fast as the cap allows; returns bits a second.
    fn rate(limit: u64, size: usize) -> u64 {
        let mut bucket = Bucket::new(Some(Limit {
            bits_per_second: limit,
        }));
        let begin = 10 * TICKS_A_SECOND;
        let mut now = begin;
        for _ in 0..100_000 {
            while let Err(until) = bucket.take(size, now) {
                now = until;
            }
        }
        let bits = 100_000 * size as u128 * 8 * u128::from(TICKS_A_SECOND);
        (bits / u128::from(now - begin + DEPTH)) as u64
    }

    #[test]
    fn what_flows_is_within_a_hundredth_of_the_cap() {
        for limit in [1_000_000, 100_000_000, 10_000_000_000] {
            for size in [1514, 65_550] {
                let seen = rate(limit, size);
                assert!(seen.abs_diff(limit) <= limit / 100, "{limit} {size}: {seen}");
            }
        }
    }

    #[test]
    fn without_a_cap_there_is_no_waiting() {
        assert_eq!(Bucket::new(None).take(usize::MAX, 0), Ok(()));
    }
}
