//! System physical addresses, frames and ranges of them.

use core::fmt;

/// Bytes in a frame.
pub const FRAME_SIZE: u64 = 4096;

/// One past the highest address that x86-64 can have (APM 2, 5.1: 52 bits).
pub const ADDRESS_LIMIT: u64 = 1 << 52;

/// System physical address, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Spa(pub u64);

impl Spa {
    /// The address `bytes` further on, or `None` past the end of the address space.
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// Whether the address is a multiple of `alignment`, a power of two.
    pub const fn is_aligned(self, alignment: u64) -> bool {
        self.0 & (alignment - 1) == 0
    }

    /// The nearest multiple of `alignment`, a power of two, at or below.
    pub const fn align_down(self, alignment: u64) -> Self {
        Self(self.0 & !(alignment - 1))
    }

    /// The nearest multiple of `alignment`, a power of two, at or above, if there is one.
    pub const fn align_up(self, alignment: u64) -> Option<Self> {
        match self.0.checked_add(alignment - 1) {
            Some(sum) => Some(Self(sum).align_down(alignment)),
            None => None,
        }
    }
}

impl fmt::Debug for Spa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for Spa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A 4 KiB frame of system physical memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Frame(Spa);

impl Frame {
    /// The frame that starts at `address`, if one does.
    pub const fn starting_at(address: Spa) -> Option<Self> {
        if address.is_aligned(FRAME_SIZE) {
            Some(Self(address))
        } else {
            None
        }
    }

    /// The frame that holds `address`.
    pub const fn containing(address: Spa) -> Self {
        Self(address.align_down(FRAME_SIZE))
    }

    /// Address of its first byte.
    pub const fn start(self) -> Spa {
        self.0
    }

    /// Its number: the address in units of [`FRAME_SIZE`].
    pub const fn number(self) -> u64 {
        self.0.0 / FRAME_SIZE
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame {}", self.0)
    }
}

/// The sizes of x86-64 pages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PageSize {
    /// 4 KiB.
    Small4K,
    /// 2 MiB.
    Large2M,
    /// 1 GiB.
    Huge1G,
}

impl PageSize {
    /// Every size, smallest first.
    pub const ALL: [Self; 3] = [Self::Small4K, Self::Large2M, Self::Huge1G];

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        FRAME_SIZE << (9 * self as u32)
    }
}

/// Addresses from `start` up to, not including, `end`; never reversed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SpaRange {
    start: Spa,
    end: Spa,
}

impl SpaRange {
    /// No addresses.
    pub const EMPTY: Self = Self {
        start: Spa(0),
        end: Spa(0),
    };

    /// From `start` up to `end`, unless `end` comes first.
    pub const fn new(start: Spa, end: Spa) -> Option<Self> {
        if start.0 <= end.0 {
            Some(Self { start, end })
        } else {
            None
        }
    }

    /// `size` bytes from `start`, unless they pass the end of the address space.
    pub const fn sized(start: Spa, size: u64) -> Option<Self> {
        match start.checked_add(size) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// First address.
    pub const fn start(self) -> Spa {
        self.start
    }

    /// First address after it.
    pub const fn end(self) -> Spa {
        self.end
    }

    /// Bytes.
    pub const fn size(self) -> u64 {
        self.end.0 - self.start.0
    }

    /// Whether it holds no byte.
    pub const fn is_empty(self) -> bool {
        self.start.0 == self.end.0
    }

    /// Whether `address` lies in it.
    pub const fn contains(self, address: Spa) -> bool {
        self.start.0 <= address.0 && address.0 < self.end.0
    }

    /// Whether all of `other` lies in it; an empty range at its end does.
    pub const fn contains_range(self, other: Self) -> bool {
        self.start.0 <= other.start.0 && other.end.0 <= self.end.0
    }

    /// Whether a byte lies in both.
    pub const fn overlaps(self, other: Self) -> bool {
        !self.is_empty() && !other.is_empty() && self.start.0 < other.end.0 && other.start.0 < self.end.0
    }

    /// The frames that lie in it whole.
    pub const fn shrink_to_frames(self) -> Self {
        let end = self.end.align_down(FRAME_SIZE);
        match self.start.align_up(FRAME_SIZE) {
            Some(start) if start.0 <= end.0 => Self { start, end },
            _ => Self { start: end, end },
        }
    }

    /// The frames that it touches, or `None` past the end of the address space.
    pub const fn grow_to_frames(self) -> Option<Self> {
        match self.end.align_up(FRAME_SIZE) {
            Some(end) => Some(Self {
                start: self.start.align_down(FRAME_SIZE),
                end,
            }),
            None => None,
        }
    }
}

impl fmt::Debug for SpaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}..{})", self.start, self.end)
    }
}

impl fmt::Display for SpaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_are_4_kib_2_mib_and_1_gib() {
        assert_eq!(PageSize::ALL.map(PageSize::bytes), [4 << 10, 2 << 20, 1 << 30]);
    }

    #[test]
    fn a_frame_starts_only_at_a_multiple_of_its_size() {
        assert_eq!(Frame::starting_at(Spa(0x1800)), None);
        assert_eq!(Frame::starting_at(Spa(0x1000)).map(Frame::number), Some(1));
        assert_eq!(Frame::containing(Spa(0x1fff)).start(), Spa(0x1000));
    }

    #[test]
    fn alignment_past_the_end_of_the_address_space_is_refused() {
        assert_eq!(Spa(u64::MAX).align_up(4096), None);
        assert_eq!(Spa(0x1001).align_up(4096), Some(Spa(0x2000)));
        assert_eq!(SpaRange::sized(Spa(u64::MAX), 2), None);
    }

    #[test]
    fn a_range_inside_one_frame_shrinks_to_nothing_and_grows_to_the_frame() {
        let range = SpaRange::sized(Spa(0x1100), 0x100).unwrap();
        assert!(range.shrink_to_frames().is_empty());
        assert_eq!(range.grow_to_frames(), SpaRange::sized(Spa(0x1000), 0x1000));
    }

    #[test]
    fn neighbours_do_not_overlap() {
        let low = SpaRange::sized(Spa(0x1000), 0x1000).unwrap();
        let high = SpaRange::sized(Spa(0x2000), 0x1000).unwrap();
        assert!(!low.overlaps(high));
        assert!(low.overlaps(SpaRange::sized(Spa(0x1fff), 2).unwrap()));
    }

    #[test]
    fn addresses_show_as_hex() {
        assert_eq!(
            format!(
                "{} {:?}",
                Spa(0xfee0_0000),
                SpaRange::sized(Spa(0x10), 0x10).unwrap()
            ),
            "0xfee00000 [0x10..0x20)"
        );
    }
}
