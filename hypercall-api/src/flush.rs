//! TLB flushes and IPIs by hypercall (TLFS, "Virtual MMU" and "Virtual Interrupts"), and sets of VPs.

use crate::id::VpIndex;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

bitflags::bitflags! {
    /// What to flush (`HV_FLUSH_FLAGS`).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct FlushFlags: u64 {
        /// On every VP; the mask or set does not count.
        const ALL_PROCESSORS = 1 << 0;
        /// Every address space; the one named does not count.
        const ALL_VIRTUAL_ADDRESS_SPACES = 1 << 1;
        /// Mappings that are not global alone.
        const NON_GLOBAL_MAPPINGS_ONLY = 1 << 2;
        /// Elements of a list are in the extended format.
        const USE_EXTENDED_RANGE_FORMAT = 1 << 3;
    }
}

/// Input of `HvCallFlushVirtualAddressSpace`, and header of the input of `HvCallFlushVirtualAddressList`, before a list of
/// [`GvaRange`]s.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FlushVirtualAddressSpace {
    /// The address space: its CR3, without PCID.
    pub address_space: u64,
    /// [`FlushFlags`].
    pub flags: u64,
    /// Bit n: on VP n.
    pub processor_mask: u64,
}
const _: () = assert!(size_of::<FlushVirtualAddressSpace>() == 24);

/// Start of the input of `HvCallFlushVirtualAddressSpaceEx` (before a [`VpSet`]) and `HvCallFlushVirtualAddressListEx` (before
/// a [`VpSet`] and a list of [`GvaRange`]s). The set's banks are the variable header.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FlushVirtualAddressSpaceEx {
    /// The address space: its CR3, without PCID.
    pub address_space: u64,
    /// [`FlushFlags`].
    pub flags: u64,
    /// Of the set: [`VpSet::SPARSE`] or [`VpSet::ALL`].
    pub set_format: u64,
    /// Of the set: bit n: a bank for VPs 64n to 64n + 63 follows.
    pub valid_banks: u64,
}
const _: () = assert!(size_of::<FlushVirtualAddressSpaceEx>() == 32);

/// Pages to flush (`HV_GVA_RANGE`): bits 63:12 first page, bits 11:0 further pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct GvaRange(pub u64);

impl GvaRange {
    /// Most pages of a range.
    pub const MAX_PAGES: u64 = 4096;

    /// `pages` (1 to [`MAX_PAGES`](Self::MAX_PAGES), else the nearest of them) from the one that holds `address`.
    pub const fn new(address: u64, pages: u64) -> Self {
        let further = match pages {
            0 => 0,
            Self::MAX_PAGES.. => Self::MAX_PAGES - 1,
            _ => pages - 1,
        };
        Self(address & !0xfff | further)
    }

    /// Address of the first page.
    pub const fn address(self) -> u64 {
        self.0 & !0xfff
    }

    /// Number of pages.
    pub const fn pages(self) -> u64 {
        (self.0 & 0xfff) + 1
    }
}

/// Input of `HvCallSendSyntheticClusterIpi`, usually made as a fast call.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SendIpi {
    /// Vector, 16 to 255.
    pub vector: u32,
    /// Zero.
    pub reserved: u32,
    /// Bit n: to VP n.
    pub processor_mask: u64,
}
const _: () = assert!(size_of::<SendIpi>() == 16);

/// Input of `HvCallSendSyntheticClusterIpiEx`, before the banks of its set, which are the variable header.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SendIpiEx {
    /// Vector, 16 to 255.
    pub vector: u32,
    /// Zero.
    pub reserved: u32,
    /// Of the set: [`VpSet::SPARSE`] or [`VpSet::ALL`].
    pub set_format: u64,
    /// Of the set: bit n: a bank for VPs 64n to 64n + 63 follows.
    pub valid_banks: u64,
}
const _: () = assert!(size_of::<SendIpiEx>() == 24);

/// Input of `HvCallNotifyLongSpinWait`, made as a fast call.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct NotifyLongSpinWait {
    /// How often the caller has looked already.
    pub spin_count: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<NotifyLongSpinWait>() == 8);

/// Banks of a set at most.
pub const MAX_BANKS: usize = 64;

/// A set of VPs (`HV_VP_SET`). On the wire only its valid banks stand, one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VpSet {
    banks: [u64; MAX_BANKS],
    all: bool,
}

impl VpSet {
    /// Format of a set with banks.
    pub const SPARSE: u64 = 0;
    /// Format of the set of all VPs, which has no banks.
    pub const ALL: u64 = 1;

    /// No VP.
    pub const fn empty() -> Self {
        Self {
            banks: [0; MAX_BANKS],
            all: false,
        }
    }

    /// Every VP.
    pub const fn all() -> Self {
        Self {
            banks: [0; MAX_BANKS],
            all: true,
        }
    }

    /// The VPs whose bits are set in `mask`: those below 64.
    pub const fn from_mask(mask: u64) -> Self {
        let mut set = Self::empty();
        set.banks[0] = mask;
        set
    }

    /// The set that `format`, `valid_banks` and `banks` say; `None` where the format is unknown or banks are too few or
    /// too many.
    pub fn decode(format: u64, valid_banks: u64, banks: &[u64]) -> Option<Self> {
        match format {
            Self::ALL => Some(Self::all()),
            Self::SPARSE if banks.len() == valid_banks.count_ones() as usize => {
                let mut set = Self::empty();
                let valid = (0..MAX_BANKS).filter(|bank| valid_banks >> bank & 1 != 0);
                for (bank, &contents) in valid.zip(banks) {
                    set.banks[bank] = contents;
                }
                Some(set)
            }
            _ => None,
        }
    }

    /// Adds `vp`; an index of 4096 or more cannot be in a set and changes nothing.
    pub fn insert(&mut self, vp: VpIndex) {
        if let Some(bank) = self.banks.get_mut(vp.0 as usize / 64) {
            *bank |= 1 << (vp.0 % 64);
        }
    }

    /// Whether `vp` is in the set.
    pub fn contains(&self, vp: VpIndex) -> bool {
        self.all
            || self
                .banks
                .get(vp.0 as usize / 64)
                .is_some_and(|bank| bank >> (vp.0 % 64) & 1 != 0)
    }

    /// Format on the wire.
    pub const fn format(&self) -> u64 {
        if self.all { Self::ALL } else { Self::SPARSE }
    }

    /// Which banks stand on the wire: those with a VP in them.
    pub fn valid_banks(&self) -> u64 {
        let banks = self.banks.iter().enumerate();
        banks.fold(0, |valid, (index, &bank)| valid | ((bank != 0) as u64) << index)
    }

    /// The banks that stand on the wire, in order.
    pub fn wire_banks(&self) -> impl Iterator<Item = u64> + '_ {
        self.banks.iter().copied().filter(|&bank| bank != 0)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn a_set_without_as_many_banks_as_it_says_is_refused() {
        assert_eq!(VpSet::decode(VpSet::SPARSE, 0b101, &[1]), None);
        assert_eq!(VpSet::decode(VpSet::SPARSE, 0, &[1]), None);
        assert_eq!(VpSet::decode(2, 0, &[]), None);
    }

    #[test]
    fn every_vp_is_in_the_set_of_all() {
        let set = VpSet::decode(VpSet::ALL, 0, &[]).unwrap();
        assert!(set.contains(VpIndex(0)) && set.contains(VpIndex(5000)));
    }

    #[test]
    fn a_range_has_at_least_one_page_and_at_most_its_limit() {
        assert_eq!(GvaRange::new(0x1234, 0).pages(), 1);
        assert_eq!(GvaRange::new(0x1234, 9999).pages(), 4096);
        assert_eq!(GvaRange::new(0x1234, 3).0, 0x1002);
    }

    proptest! {
        #[test]
        fn a_set_comes_back_from_the_wire(vps in prop::collection::vec(0u32..4096, 0..40)) {
            let mut set = VpSet::empty();
            for &vp in &vps {
                set.insert(VpIndex(vp));
            }
            let banks: Vec<u64> = set.wire_banks().collect();
            let decoded = VpSet::decode(set.format(), set.valid_banks(), &banks).unwrap();
            prop_assert_eq!(decoded, set);
            for vp in 0..4096 {
                prop_assert_eq!(decoded.contains(VpIndex(vp)), vps.contains(&vp));
            }
        }
    }
}
