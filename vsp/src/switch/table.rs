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

#[derive(Clone, Copy, Debug)]
struct Entry {
    vlan: VlanId,
    address: Mac,
    port: PortId,
    /// When a frame came from it last; `None` if the entry is free.
    seen: Option<u64>,
}

impl Entry {
    const FREE: Self = Self {
        vlan: VlanId(0),
        address: Mac([0; 6]),
        port: PortId(0),
        seen: None,
    };

    fn is_fresh(&self, now: u64) -> bool {
        self.seen.is_some_and(|seen| now.saturating_sub(seen) < AGEING)
    }

    fn is(&self, vlan: VlanId, address: Mac) -> bool {
        self.address == address && self.vlan == vlan
    }
}

/// The table.
#[derive(Debug)]
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
        let set = self.sets.get(index(vlan, address))?;
        let entry = set
            .iter()
            .find(|entry| entry.is(vlan, address) && entry.is_fresh(now))?;
        Some(entry.port)
    }

    /// A frame from `address` came in at `port`. Takes the place of the one that was silent for longest if need be.
    #[inline]
    pub fn learn(&mut self, vlan: VlanId, address: Mac, port: PortId, now: u64) {
        let Some(set) = self.sets.get_mut(index(vlan, address)) else {
            return;
        };
        let known = set
            .iter()
            .position(|entry| entry.seen.is_some() && entry.is(vlan, address));
        let oldest = || (0..WAYS).min_by_key(|&way| set[way].seen);
        if let Some(entry) = known.or_else(oldest).and_then(|way| set.get_mut(way)) {
            *entry = Entry {
                vlan,
                address,
                port,
                seen: Some(now),
            };
        }
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
        fresh.map(|entry| (entry.vlan, entry.address, entry.port))
    }
}

fn index(vlan: VlanId, Mac([a, b, c, d, e, f]): Mac) -> usize {
    let key = u64::from_le_bytes([a, b, c, d, e, f, vlan.0 as u8, (vlan.0 >> 8) as u8]);
    // Fibonacci hashing: the product's upper bits depend on all of the key.
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize % SETS
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
