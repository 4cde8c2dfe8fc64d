//! Which address is behind which port. A fixed number of entries in sets, so that a flood of addresses costs the flooder.

use super::TICKS_A_SECOND;
use super::port::PortId;
use super::vlan::VlanId;
use alloc::vec;
use alloc::vec::Vec;
use vmbus::protocol::network::Mac;

/// After this many ticks without a frame an address is forgotten.
pub const AGEING: u64 = 300 * TICKS_A_SECOND;
/// Sets of entries; a power of two.
const SETS: usize = 1024;
/// Entries of a set.
const WAYS: usize = 4;

/// A VLAN and an address, in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Key(u64);

impl Key {
    /// That of free entries: there is no such VLAN.
    const NONE: Self = Self(u64::MAX);

    #[inline]
    const fn new(vlan: VlanId, Mac([a, b, c, d, e, f]): Mac) -> Self {
        let [low, high] = vlan.0.to_le_bytes();
        Self(u64::from_le_bytes([a, b, c, d, e, f, low, high]))
    }

    const fn parts(self) -> (VlanId, Mac) {
        let [a, b, c, d, e, f, low, high] = self.0.to_le_bytes();
        (VlanId(u16::from_le_bytes([low, high])), Mac([a, b, c, d, e, f]))
    }

    /// The set that it belongs to.
    #[inline]
    const fn set(self) -> usize {
        // Fibonacci hashing: the product's upper bits depend on all of the key.
        (self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize % SETS
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: Key,
    /// When a frame came from it last.
    seen: u64,
    port: PortId,
}

impl Entry {
    const FREE: Self = Self {
        key: Key::NONE,
        seen: 0,
        port: PortId(0),
    };

    const fn is_free(&self) -> bool {
        self.key.0 == Key::NONE.0
    }

    const fn is_fresh(&self, now: u64) -> bool {
        now.saturating_sub(self.seen) < AGEING && !self.is_free()
    }
}

/// The table.
#[derive(Clone, Debug)]
pub struct Table {
    sets: Vec<[Entry; WAYS]>,
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

impl Table {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            sets: vec![[Entry::FREE; WAYS]; SETS],
        }
    }

    /// The port of `address` in `vlan`.
    #[inline]
    pub fn find(&self, vlan: VlanId, address: Mac, now: u64) -> Option<PortId> {
        let key = Key::new(vlan, address);
        let entry = self.sets.get(key.set())?.iter().find(|entry| entry.key == key)?;
        entry.is_fresh(now).then_some(entry.port)
    }

    /// A frame from `address` came in at `port`. Takes the place of the one that was silent for longest if need be. Whether that was news.
    #[inline]
    pub fn learn(&mut self, vlan: VlanId, address: Mac, port: PortId, now: u64) -> bool {
        let key = Key::new(vlan, address);
        let Some(set) = self.sets.get_mut(key.set()) else {
            return false;
        };
        let seen = now;
        if let Some(known) = set.iter_mut().find(|entry| entry.key == key) {
            let moved = known.port != port;
            (known.port, known.seen) = (port, seen);
            return moved;
        }
        let oldest = set.iter_mut().min_by_key(|entry| (!entry.is_free(), entry.seen));
        if let Some(entry) = oldest {
            *entry = Entry { key, seen, port };
        }
        true
    }

    /// Forgets all behind `port`.
    pub fn forget_port(&mut self, port: PortId) {
        let entries = self.sets.iter_mut().flatten();
        for entry in entries.filter(|entry| entry.port == port) {
            *entry = Entry::FREE;
        }
    }

    /// All that is known at `now`.
    pub fn iter(&self, now: u64) -> impl Iterator<Item = (VlanId, Mac, PortId)> {
        let fresh = self
            .sets
            .iter()
            .flatten()
            .filter(move |entry| entry.is_fresh(now));
        fresh.map(|entry| {
            let (vlan, address) = entry.key.parts();
            (vlan, address, entry.port)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(number: u32) -> Mac {
        let [a, b, c, d] = number.to_be_bytes();
        Mac([2, 0, a, b, c, d])
    }

    #[test]
    fn an_address_moves_and_is_forgotten() {
        let mut table = Table::new();
        table.learn(VlanId(1), mac(1), PortId(3), 0);
        assert_eq!(table.find(VlanId(1), mac(1), 10), Some(PortId(3)));
        assert_eq!(table.find(VlanId(2), mac(1), 10), None);
        table.learn(VlanId(1), mac(1), PortId(4), 10);
        assert_eq!(table.find(VlanId(1), mac(1), AGEING), Some(PortId(4)));
        assert_eq!(table.find(VlanId(1), mac(1), 10 + AGEING), None);
        table.learn(VlanId(1), mac(1), PortId(4), 10 + AGEING);
        table.forget_port(PortId(4));
        assert_eq!(table.iter(10 + AGEING).count(), 0);
    }

    #[test]
    fn a_flood_of_addresses_does_not_make_the_table_grow() {
        let mut table = Table::new();
        for number in 0..100_000 {
            table.learn(VlanId(0), mac(number), PortId(1), u64::from(number));
        }
        let known = table.iter(100_000).count();
        assert!(known <= SETS * WAYS && known > SETS * WAYS / 2, "{known}");
        assert_eq!(table.find(VlanId(0), mac(99_999), 100_000), Some(PortId(1)));
    }
}
