//! Settings of a port as people write and read them.

use super::guard::Guards;
use super::limit::Limit;
use super::port::Direction;
use super::vlan::{VlanId, VlanMode, VlanSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// How a VLAN is given.
pub const VLAN_RULE: &str = "give a VLAN from 1 to 4094, or 'none'";
/// How several are.
pub const TRUNK_RULE: &str = "give VLANs, as in '5,7-9', or 'all'";
/// How a cap is given.
pub const LIMIT_RULE: &str = "give a rate in kbit, Mbit or Gbit, as in '100Mbit', or 'none'";
/// How guards are named.
pub const GUARD_RULE: &str = "give 'all', 'none', or some of mac, dhcp, router, as in 'mac,dhcp'";
/// How mirroring is named.
pub const MIRROR_RULE: &str = "give sent, received or both for a port whose frames are copied, takes for the port that gets \
                               the copies, or none";

/// Units of a cap, and their bits a second.
const RATES: [(&str, u64); 3] = [("Gbit", 1_000_000_000), ("Mbit", 1_000_000), ("kbit", 1_000)];
/// The least and the most that a cap may be: below, a frame would take minutes.
const RATE_RANGE: core::ops::RangeInclusive<u64> = 8_000..=1_000_000_000_000;

const GUARDS: [(&str, Guards); 3] = [
    ("mac", Guards::SPOOFED_ADDRESS),
    ("dhcp", Guards::DHCP_SERVER),
    ("router", Guards::ROUTER),
];

const DIRECTIONS: [(&str, Direction); 4] = [
    ("none", Direction::empty()),
    ("sent", Direction::FROM_PORT),
    ("received", Direction::TO_PORT),
    ("both", Direction::all()),
];

/// A port's part in mirroring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mirror {
    /// Its own frames are copied.
    Of(Direction),
    /// It gets the copies of its switch.
    Takes,
}

impl Mirror {
    /// Reads [`MIRROR_RULE`]'s words.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "takes" {
            return Some(Self::Takes);
        }
        let (_, direction) = DIRECTIONS.iter().find(|(name, _)| *name == text)?;
        Some(Self::Of(*direction))
    }

    /// The word for which frames of a port are copied.
    pub fn name(direction: Direction) -> &'static str {
        let named = DIRECTIONS.iter().find(|(_, other)| *other == direction);
        named.map_or("", |(name, _)| name)
    }
}

impl VlanId {
    /// Reads a VLAN's number, or `none` for that of frames without a tag.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "none" => Some(Self(0)),
            _ => Self::new(text.parse().ok()?),
        }
    }
}

impl VlanSet {
    /// Reads VLANs: numbers and ranges of them, or `all`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "all" {
            return Some(Self::all());
        }
        let mut vlans = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first = VlanId::new(first.trim().parse().ok()?)?;
            let last = VlanId::new(last.trim().parse().ok()?)?;
            if last < first {
                return None;
            }
            vlans.extend((first.0..=last.0).map(VlanId));
        }
        Some(vlans.into_iter().collect())
    }

    /// The same as text.
    pub fn describe(&self) -> String {
        if *self == Self::all() {
            return "all".to_string();
        }
        let mut parts: Vec<String> = Vec::new();
        let mut vlan = 1;
        while vlan <= VlanId::MAX {
            let first = vlan;
            while vlan <= VlanId::MAX && self.contains(VlanId(vlan)) {
                vlan += 1;
            }
            match vlan - first {
                0 => {}
                1 => parts.push(first.to_string()),
                _ => parts.push(format!("{first}-{}", vlan - 1)),
            }
            vlan += 1;
        }
        parts.join(",")
    }
}

impl VlanMode {
    /// As text: `none`, `5`, `5,7-9`, `5,7-9 native 1`.
    pub fn describe(&self) -> String {
        match self {
            Self::Access(VlanId(0)) => "none".to_string(),
            Self::Access(vlan) => vlan.0.to_string(),
            Self::Trunk {
                native: VlanId(0),
                allowed,
            } => allowed.describe(),
            Self::Trunk { native, allowed } => format!("{} native {}", allowed.describe(), native.0),
        }
    }
}

impl Limit {
    /// Reads a rate; `none` is no limit.
    pub fn parse(text: &str) -> Option<Option<Self>> {
        if text == "none" {
            return Some(None);
        }
        let (number, unit) = RATES
            .iter()
            .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))?;
        let number: u64 = number.trim().parse().ok()?;
        let bits_per_second = number
            .checked_mul(unit)
            .filter(|rate| RATE_RANGE.contains(rate))?;
        Some(Some(Self { bits_per_second }))
    }

    /// The same as text.
    pub fn describe(&self) -> String {
        let rate = self.bits_per_second;
        let unit = RATES.iter().find(|(_, unit)| rate.is_multiple_of(*unit));
        match unit {
            Some((name, unit)) => format!("{}{name}", rate / unit),
            None => format!("{rate}bit"),
        }
    }
}

impl Guards {
    /// Reads names of guards.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "all" => return Some(Self::all()),
            "none" => return Some(Self::empty()),
            _ => {}
        }
        let mut guards = Self::empty();
        for word in text.split(',') {
            let (_, guard) = GUARDS.iter().find(|(name, _)| *name == word.trim())?;
            guards |= *guard;
        }
        Some(guards)
    }

    /// The same as text.
    pub fn describe(&self) -> String {
        if self.is_empty() {
            return "none".to_string();
        }
        let names = GUARDS.iter().filter(|(_, guard)| self.contains(*guard));
        names.map(|(name, _)| *name).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_said_again() {
        for text in ["5", "5,7-9", "1-4094"] {
            assert_eq!(VlanSet::parse(text).unwrap().describe(), text);
        }
        assert_eq!(VlanSet::parse("all").unwrap().describe(), "all");
        for text in ["1Gbit", "100Mbit", "1500kbit"] {
            assert_eq!(Limit::parse(text).unwrap().unwrap().describe(), text);
        }
        for text in ["none", "mac", "mac,dhcp,router"] {
            assert_eq!(Guards::parse(text).unwrap().describe(), text);
        }
        for text in ["none", "sent", "received", "both"] {
            let Some(Mirror::Of(direction)) = Mirror::parse(text) else {
                panic!("{text}");
            };
            assert_eq!(Mirror::name(direction), text);
        }
        assert_eq!(Mirror::parse("takes"), Some(Mirror::Takes));
        assert_eq!(Limit::parse("none"), Some(None));
        let trunk = VlanMode::Trunk {
            native: VlanId(1),
            allowed: VlanSet::parse("5,7").unwrap(),
        };
        assert_eq!(trunk.describe(), "5,7 native 1");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "0", "4095", "9-7", "5,", "x", "5-"] {
            assert_eq!(VlanSet::parse(text), None, "{text}");
        }
        for text in [
            "",
            "100",
            "Mbit",
            "-1Mbit",
            "1kbit",
            "99999999999Gbit",
            "18446744073709551615kbit",
        ] {
            assert_eq!(Limit::parse(text), None, "{text}");
        }
        assert_eq!(Guards::parse("mac,arp"), None);
        assert_eq!(Mirror::parse("all"), None);
        assert_eq!(VlanId::parse("0"), None);
        assert_eq!(VlanId::parse("none"), Some(VlanId(0)));
    }
}
