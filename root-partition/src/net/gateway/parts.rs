//! Parts of packets (fragments): only the first has the ports by which a packet is translated, so that what became of it is kept for
//! those that follow. Parts go on as they come; nothing is put together here.

use super::verdict::Network;
use alloc::collections::BTreeMap;
use core::net::Ipv4Addr;
use vmbus::protocol::network::Mac;
use vsp::switch::TICKS_A_SECOND;

/// Packets whose parts are under way, at most.
pub const MAX_PACKETS: usize = 256;
/// Ticks after which no part is expected any more.
const LIFETIME: u64 = 15 * TICKS_A_SECOND;

/// What the parts of one packet have in common (RFC 791).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Whole {
    /// The network that they come from.
    pub from: Network,
    /// Who sent it.
    pub source: Ipv4Addr,
    /// To whom.
    pub destination: Ipv4Addr,
    /// What it carries, by its number.
    pub protocol: u8,
    /// What its sender calls it.
    pub id: u16,
}

/// Which part of a packet's data one is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// Where it begins, in bytes.
    pub offset: usize,
    /// Bytes of it.
    pub length: usize,
    /// Others follow it.
    pub more: bool,
}

/// What becomes of the addresses, and of the name, of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Passage {
    /// From whom it seems to come.
    pub source: Ipv4Addr,
    /// To whom it goes.
    pub destination: Ipv4Addr,
    /// What it is called.
    pub id: u16,
}

struct UnderWay {
    /// The card that sent the first part.
    card: Mac,
    passage: Passage,
    began: u64,
    /// Bytes that have gone, and how many there are, once the last part was seen.
    gone: usize,
    total: Option<usize>,
}

impl UnderWay {
    /// Counts a part; whether the packet is complete.
    fn count(&mut self, part: Part) -> bool {
        self.gone += part.length;
        if !part.more {
            self.total = Some(part.offset + part.length);
        }
        self.total.is_some_and(|total| self.gone >= total)
    }
}

/// The packets whose parts are under way.
#[derive(Default)]
pub struct Parts {
    packets: BTreeMap<Whole, UnderWay>,
    last_id: u16,
}

impl Parts {
    /// A name for a packet of a guest: guests would use the same ones, and seem to be one host outside.
    pub const fn new_id(&mut self) -> u16 {
        self.last_id = self.last_id.wrapping_add(1);
        self.last_id
    }

    /// The first part of a packet goes by `passage`; `card` has sent it.
    pub fn begin(&mut self, whole: Whole, part: Part, card: Mac, passage: Passage, now: u64) {
        if !self.packets.contains_key(&whole) && self.packets.len() >= MAX_PACKETS {
            self.make_room(now);
        }
        let mut under_way = UnderWay {
            card,
            passage,
            began: now,
            gone: 0,
            total: None,
        };
        under_way.count(part);
        self.packets.insert(whole, under_way);
    }

    /// The passage of a part that follows a first one.
    pub fn follow(&mut self, whole: &Whole, part: Part, now: u64) -> Option<Passage> {
        let under_way = self.packets.get_mut(whole)?;
        let passage = under_way.passage;
        let is_old = now.saturating_sub(under_way.began) >= LIFETIME;
        if is_old || under_way.count(part) {
            self.packets.remove(whole);
        }
        (!is_old).then_some(passage)
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.packets.clear();
    }

    /// Forgets what is over; else the oldest packet of the card that has most under way, so that none takes the others' room.
    fn make_room(&mut self, now: u64) {
        self.packets
            .retain(|_, under_way| now.saturating_sub(under_way.began) < LIFETIME);
        if self.packets.len() < MAX_PACKETS {
            return;
        }
        let mut cards: BTreeMap<Mac, usize> = BTreeMap::new();
        for under_way in self.packets.values() {
            *cards.entry(under_way.card).or_default() += 1;
        }
        let richest = cards.into_iter().max_by_key(|(_, count)| *count);
        let of_richest = self
            .packets
            .iter()
            .filter(|(_, under_way)| richest.is_some_and(|(card, _)| card == under_way.card));
        let oldest = of_richest.min_by_key(|(_, under_way)| under_way.began);
        if let Some(whole) = oldest.map(|(whole, _)| *whole) {
            self.packets.remove(&whole);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSAGE: Passage = Passage {
        source: Ipv4Addr::new(10, 0, 0, 1),
        destination: Ipv4Addr::new(10, 0, 0, 2),
        id: 7,
    };

    fn whole(id: u16) -> Whole {
        Whole {
            from: Network::Inside,
            source: Ipv4Addr::LOCALHOST,
            destination: Ipv4Addr::LOCALHOST,
            protocol: 17,
            id,
        }
    }

    const fn part(offset: usize, more: bool) -> Part {
        Part {
            offset,
            length: 8,
            more,
        }
    }

    #[test]
    fn parts_follow_the_first_in_any_order_until_the_packet_is_complete_or_old() {
        let mut parts = Parts::default();
        assert_eq!(parts.follow(&whole(1), part(8, true), 0), None);
        parts.begin(whole(1), part(0, true), Mac([2; 6]), PASSAGE, 0);
        for (offset, more) in [(16, false), (8, true)] {
            assert_eq!(parts.follow(&whole(1), part(offset, more), 1), Some(PASSAGE));
            assert_eq!(parts.follow(&whole(2), part(offset, more), 1), None);
        }
        assert_eq!(parts.follow(&whole(1), part(8, true), 1), None);
        parts.begin(whole(3), part(0, true), Mac([2; 6]), PASSAGE, 0);
        assert_eq!(parts.follow(&whole(3), part(8, true), LIFETIME), None);
    }

    #[test]
    fn a_card_that_begins_packets_without_end_takes_no_room_of_another() {
        let mut parts = Parts::default();
        parts.begin(whole(0), part(0, true), Mac([2; 6]), PASSAGE, 0);
        for id in 1..=2 * MAX_PACKETS as u16 {
            parts.begin(whole(id), part(0, true), Mac([4; 6]), PASSAGE, u64::from(id));
        }
        assert_eq!(parts.packets.len(), MAX_PACKETS);
        assert_eq!(parts.follow(&whole(0), part(8, false), 1), Some(PASSAGE));
        assert_eq!(
            parts.follow(&whole(2 * MAX_PACKETS as u16), part(8, true), 1),
            Some(PASSAGE)
        );
        assert_eq!(parts.follow(&whole(1), part(8, true), 1), None);
    }
}
