//! VLANs: which one a frame belongs to when it comes in, and how it goes out.

use alloc::boxed::Box;

/// Names a VLAN; 0 is that of frames without a tag.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct VlanId(pub u16);

impl VlanId {
    /// The largest.
    pub const MAX: u16 = 4094;

    /// Checks a number: 1 to 4094.
    pub fn new(number: u16) -> Option<Self> {
        (1..=Self::MAX).contains(&number).then_some(Self(number))
    }
}

/// A set of VLANs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VlanSet(Box<[u64; 64]>);

impl VlanSet {
    /// All of them.
    pub fn all() -> Self {
        Self(Box::new([!0; 64]))
    }

    /// Whether `vlan` is in it.
    pub fn contains(&self, vlan: VlanId) -> bool {
        let word = self.0.get(usize::from(vlan.0 / 64)).copied().unwrap_or(0);
        word >> (vlan.0 % 64) & 1 != 0
    }
}

impl FromIterator<VlanId> for VlanSet {
    fn from_iter<I: IntoIterator<Item = VlanId>>(vlans: I) -> Self {
        let mut words = Box::new([0; 64]);
        for VlanId(vlan) in vlans {
            if let Some(word) = words.get_mut(usize::from(vlan / 64)) {
                *word |= 1 << (vlan % 64);
            }
        }
        Self(words)
    }
}

/// The VLANs of a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VlanMode {
    /// One, and frames have no tags; VLAN 0 is the one for which nothing was said.
    Access(VlanId),
    /// Several, told apart by tags.
    Trunk {
        /// That of frames without a tag.
        native: VlanId,
        /// The others.
        allowed: VlanSet,
    },
}

impl Default for VlanMode {
    fn default() -> Self {
        Self::Access(VlanId(0))
    }
}

/// How a frame leaves a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leave {
    /// Without a tag.
    Untagged,
    /// With the tag of its VLAN.
    Tagged(VlanId),
}

impl Leave {
    /// The tag, with `priority` in its upper bits.
    pub const fn tci(self, priority: u16) -> Option<u16> {
        match self {
            Self::Untagged => None,
            Self::Tagged(vlan) => Some(vlan.0 | priority & 0xf000),
        }
    }
}

impl VlanMode {
    /// The VLAN of a frame with this tag that comes in; `None` if the port is not in it.
    #[inline]
    pub fn enter(&self, tag: Option<u16>) -> Option<VlanId> {
        // A tag of VLAN 0 carries a priority and nothing else.
        let vlan = VlanId(tag.unwrap_or(0) & 0xfff);
        match self {
            Self::Access(own) => (vlan.0 == 0).then_some(*own),
            Self::Trunk { native, .. } if vlan.0 == 0 => Some(*native),
            Self::Trunk { allowed, .. } => (vlan.0 <= VlanId::MAX && allowed.contains(vlan)).then_some(vlan),
        }
    }

    /// How a frame of `vlan` goes out; `None` if the port is not in it.
    #[inline]
    pub fn leave(&self, vlan: VlanId) -> Option<Leave> {
        match self {
            Self::Access(own) => (vlan == *own).then_some(Leave::Untagged),
            Self::Trunk { native, .. } if vlan == *native => Some(Leave::Untagged),
            Self::Trunk { allowed, .. } => allowed.contains(vlan).then_some(Leave::Tagged(vlan)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_port_takes_no_tags_and_gives_none() {
        let port = VlanMode::Access(VlanId(5));
        assert_eq!(port.enter(None), Some(VlanId(5)));
        assert_eq!(port.enter(Some(0xe000)), Some(VlanId(5)));
        assert_eq!(port.enter(Some(5)), None);
        assert_eq!(port.leave(VlanId(5)), Some(Leave::Untagged));
        assert_eq!(port.leave(VlanId(0)), None);
    }

    #[test]
    fn a_trunk_tells_its_vlans_apart_by_tags() {
        let allowed = [5, 4094].into_iter().filter_map(VlanId::new).collect();
        let port = VlanMode::Trunk {
            native: VlanId(1),
            allowed,
        };
        assert_eq!(port.enter(None), Some(VlanId(1)));
        assert_eq!(port.enter(Some(0x6005)), Some(VlanId(5)));
        assert_eq!(port.enter(Some(6)), None);
        assert_eq!(port.leave(VlanId(1)), Some(Leave::Untagged));
        assert_eq!(
            port.leave(VlanId(4094)).and_then(|leave| leave.tci(0x6000)),
            Some(0x6ffe)
        );
        assert_eq!(port.leave(VlanId(6)), None);
        let all = VlanMode::Trunk {
            native: VlanId(1),
            allowed: VlanSet::all(),
        };
        assert_eq!(all.enter(Some(4095)), None);
    }
}
