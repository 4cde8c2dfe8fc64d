//! Who has which address on a network: what ARP told, and packets that wait for its answer.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use vmbus::protocol::network::Mac;
use vsp::switch::TICKS_A_SECOND;

/// Most entries.
const MAX_ENTRIES: usize = 1024;
/// Packets that wait for one address at most.
const MAX_WAITING: usize = 4;
/// Bytes of a packet that waits at most: others are sent again by who sent them.
pub const MAX_WAITING_BYTES: usize = 2048;
/// Ticks for which an answer holds.
const LIFETIME: u64 = 60 * TICKS_A_SECOND;
/// Ticks between two questions.
const ASK_AGAIN: u64 = TICKS_A_SECOND;

#[derive(Default)]
struct Entry {
    mac: Option<Mac>,
    /// When it was told.
    told: u64,
    /// When it was last asked for.
    asked: Option<u64>,
    waiting: Vec<Vec<u8>>,
}

/// What is known of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    /// Who has it; whether it should be asked again.
    At(Mac, bool),
    /// Nothing; whether it should be asked now.
    Not(bool),
}

/// The addresses of one network.
#[derive(Default)]
pub struct Neighbours {
    entries: BTreeMap<Ipv4Addr, Entry>,
}

impl Neighbours {
    /// Who has `address`. Asking is up to the caller, who is told when it is time.
    pub fn find(&mut self, address: Ipv4Addr, now: u64) -> Known {
        if !self.entries.contains_key(&address) && self.entries.len() >= MAX_ENTRIES {
            self.forget_some(now);
            if self.entries.len() >= MAX_ENTRIES {
                return Known::Not(false);
            }
        }
        let entry = self.entries.entry(address).or_default();
        let may_ask = entry
            .asked
            .is_none_or(|asked| now.saturating_sub(asked) >= ASK_AGAIN);
        let is_old = now.saturating_sub(entry.told) >= LIFETIME;
        let ask = may_ask && (entry.mac.is_none() || is_old);
        if ask {
            entry.asked = Some(now);
        }
        match entry.mac {
            // An old answer is used until a new one comes, or none has for a long time.
            Some(mac) if now.saturating_sub(entry.told) < 2 * LIFETIME => Known::At(mac, ask),
            _ => Known::Not(ask),
        }
    }

    /// Has a packet wait for the answer.
    pub fn wait(&mut self, address: Ipv4Addr, bytes: Vec<u8>) {
        if let Some(entry) = self.entries.get_mut(&address)
            && entry.waiting.len() < MAX_WAITING
            && bytes.len() <= MAX_WAITING_BYTES
        {
            entry.waiting.push(bytes);
        }
    }

    /// `mac` says that it has `address`. Only believed of addresses that were asked for, or where `unasked`. Returns the
    /// packets that waited.
    pub fn learn(&mut self, address: Ipv4Addr, mac: Mac, unasked: bool, now: u64) -> Vec<Vec<u8>> {
        let known = self.entries.contains_key(&address);
        if !mac.is_station() || !known && (!unasked || self.entries.len() >= MAX_ENTRIES) {
            return Vec::new();
        }
        let entry = self.entries.entry(address).or_default();
        (entry.mac, entry.told) = (Some(mac), now);
        core::mem::take(&mut entry.waiting)
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    fn forget_some(&mut self, now: u64) {
        self.entries
            .retain(|_, entry| entry.mac.is_some() && now.saturating_sub(entry.told) < LIFETIME);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    #[test]
    fn an_address_is_asked_for_once_a_second_and_packets_wait_for_the_answer() {
        let mut neighbours = Neighbours::default();
        assert_eq!(neighbours.find(A, 0), Known::Not(true));
        assert_eq!(neighbours.find(A, 1), Known::Not(false));
        assert_eq!(neighbours.find(A, ASK_AGAIN), Known::Not(true));
        (0..9).for_each(|byte| neighbours.wait(A, alloc::vec![byte]));
        neighbours.wait(A, alloc::vec![0; 9000]);
        assert_eq!(neighbours.learn(A, MAC, false, 5).len(), MAX_WAITING);
        assert_eq!(neighbours.find(A, 6), Known::At(MAC, false));
        assert_eq!(neighbours.find(A, 5 + LIFETIME), Known::At(MAC, true));
        assert_eq!(neighbours.find(A, 5 + 2 * LIFETIME), Known::Not(true));
    }

    #[test]
    fn what_was_not_asked_for_is_not_believed_and_the_table_is_bounded() {
        let mut neighbours = Neighbours::default();
        neighbours.learn(A, MAC, false, 0);
        assert_eq!(neighbours.find(A, 0), Known::Not(true));
        neighbours.learn(A, Mac::BROADCAST, true, 0);
        assert_eq!(neighbours.find(A, 1), Known::Not(false));
        for number in 0..5000_u32 {
            neighbours.find(Ipv4Addr::from_bits(number), 0);
            neighbours.learn(Ipv4Addr::from_bits(0x8000_0000 + number), MAC, true, 0);
        }
        assert!(neighbours.entries.len() <= MAX_ENTRIES);
    }
}
