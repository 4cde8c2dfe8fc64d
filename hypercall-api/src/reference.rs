//! The reference TSC page (TLFS, "Partition Reference Time Enlightenment").

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Reference time ticks a second: its unit is 100 ns.
pub const TICKS_PER_SECOND: u64 = 10_000_000;

/// The first bytes of the reference TSC page.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ReferenceTsc {
    /// Changes with every update; 0: the page is not valid, read the reference counter MSR.
    pub sequence: u32,
    /// Reserved.
    pub reserved: u32,
    /// Ticks of 100 ns for each TSC tick, as a fraction of 2⁶⁴.
    pub scale: u64,
    /// Added after scaling, in 100 ns.
    pub offset: i64,
}
const _: () = assert!(size_of::<ReferenceTsc>() == 24);

impl ReferenceTsc {
    /// The scale for a TSC of `frequency` Hz, which must be above 10 MHz; `None` otherwise.
    pub const fn scale_for(frequency: u64) -> Option<u64> {
        if frequency <= TICKS_PER_SECOND {
            return None;
        }
        Some((((TICKS_PER_SECOND as u128) << 64) / frequency as u128) as u64)
    }

    /// Reference time at `tsc`, in 100 ns.
    pub const fn time(&self, tsc: u64) -> u64 {
        (((tsc as u128 * self.scale as u128) >> 64) as u64).wrapping_add(self.offset as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_tsc_is_ten_million_ticks() {
        let page = ReferenceTsc {
            sequence: 1,
            reserved: 0,
            scale: ReferenceTsc::scale_for(2_000_000_000).unwrap(),
            offset: 0,
        };
        assert!(page.time(2_000_000_000).abs_diff(TICKS_PER_SECOND) <= 1);
    }

    #[test]
    fn a_tsc_slower_than_the_reference_has_no_scale() {
        assert_eq!(ReferenceTsc::scale_for(TICKS_PER_SECOND), None);
    }
}
