//! The flows that are translated: a bounded table, whose entries end when nothing comes for a while.
//!
//! Entries of one state stand in a list, the one that has been idle longest first, so that those that are over are found
//! without a search.

use super::packet::{Ends, Protocol};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use vsp::switch::TICKS_A_SECOND;

/// Most flows.
pub const MAX_FLOWS: usize = 8192;
/// Most flows of one guest, so that one that opens them without end leaves room for the others.
pub const MAX_GUEST_FLOWS: usize = 2048;
/// Flows of a guest that are looked at for one that may make room, where there is none left.
const EVICTION_SEARCH: usize = 256;
/// Times that a free port is looked for.
const PORT_TRIES: usize = 128;
/// The first port that is given out.
const FIRST_PORT: u16 = 1024;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;

/// How far a flow is, which says how long it may be idle (RFC 5382, RFC 4787, RFC 5508).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum State {
    /// One side has sent, and the other has not answered: TCP.
    Opening,
    /// Both sides have sent: TCP.
    Established,
    /// One side has ended.
    HalfClosed,
    /// Both have ended, or one has broken off.
    Closed,
    /// UDP that was not answered, an echo request.
    Asked,
    /// UDP that goes both ways.
    Talking,
    /// A question to a name server.
    Name,
}

const STATES: usize = 7;

impl State {
    /// Ticks that a flow may be idle.
    const fn limit(self) -> u64 {
        TICKS_A_SECOND
            * match self {
                Self::Opening => 120,
                Self::Established => 7440,
                Self::HalfClosed => 240,
                Self::Closed => 20,
                Self::Asked => 60,
                Self::Talking => 300,
                Self::Name => 15,
            }
    }

    /// Whether a flow may be ended early to make room for another of the same guest.
    const fn may_be_evicted(self) -> bool {
        !matches!(self, Self::Established | Self::HalfClosed)
    }

    /// What a person calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Established => "established",
            Self::HalfClosed => "half closed",
            Self::Closed => "closed",
            Self::Asked => "asked",
            Self::Talking => "talking",
            Self::Name => "name",
        }
    }
}

/// A flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// What it carries.
    pub protocol: Protocol,
    /// The guest's end.
    pub guest: (Ipv4Addr, u16),
    /// The other end, as the guest knows it.
    pub seen: (Ipv4Addr, u16),
    /// The other end.
    pub remote: (Ipv4Addr, u16),
    /// The port by which the other end knows the guest.
    pub port: u16,
    /// How far it is.
    pub state: State,
    /// Which side began it.
    pub began: Side,
    /// The other side has answered.
    answered: bool,
    /// Which sides have ended: the guest's (1), the other (2).
    ended: u8,
    last: u64,
}

type Key = (Protocol, (Ipv4Addr, u16), (Ipv4Addr, u16));

/// Which side a packet comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The guest's.
    Inside,
    /// The other.
    Outside,
}

/// Why there is no new flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoFlow {
    /// The table, or the guest's part of it, is full of flows that go on.
    TableFull,
    /// No port is free.
    NoPort,
}

const NOWHERE: u32 = u32::MAX;

struct Slot {
    flow: Flow,
    before: u32,
    after: u32,
}

#[derive(Clone, Copy)]
struct List {
    first: u32,
    last: u32,
}

/// The table.
pub struct Flows {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    lists: [List; STATES],
    inside: BTreeMap<Key, u32>,
    outside: BTreeMap<(Protocol, u16, (Ipv4Addr, u16)), u32>,
    guests: BTreeMap<Ipv4Addr, usize>,
    random: u64,
}

impl Flows {
    /// An empty table; `seed` makes the ports hard to guess.
    pub fn new(seed: u64) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            lists: [List {
                first: NOWHERE,
                last: NOWHERE,
            }; STATES],
            inside: BTreeMap::new(),
            outside: BTreeMap::new(),
            guests: BTreeMap::new(),
            random: seed | 1,
        }
    }

    /// Number of flows.
    pub fn len(&self) -> usize {
        self.inside.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.inside.is_empty()
    }

    /// All flows.
    pub fn iter(&self) -> impl Iterator<Item = &Flow> {
        self.slots.iter().flatten().map(|slot| &slot.flow)
    }

    /// The flows by the port `port` that the other side began.
    pub fn through(&self, protocol: Protocol, port: u16) -> impl Iterator<Item = &Flow> {
        let began = |flow: &&Flow| flow.began == Side::Outside;
        self.iter()
            .filter(began)
            .filter(move |flow| flow.protocol == protocol && flow.port == port)
    }

    /// The flow of a packet from the guest's side, which goes on by `flags` (TCP's) at `now`.
    pub fn from_inside(&mut self, ends: &Ends, flags: u8, now: u64) -> Option<Flow> {
        let index = *self.inside.get(&(ends.protocol, ends.source, ends.destination))?;
        self.go_on(index, Side::Inside, flags, now)
    }

    /// The flow of a packet from the other side.
    pub fn from_outside(&mut self, ends: &Ends, flags: u8, now: u64) -> Option<Flow> {
        let index = *self
            .outside
            .get(&(ends.protocol, ends.destination.1, ends.source))?;
        self.go_on(index, Side::Outside, flags, now)
    }

    /// The flow of which `ends` was a packet that was sent to the other side, unchanged.
    pub fn of_sent(&self, ends: &Ends) -> Option<Flow> {
        let index = self
            .outside
            .get(&(ends.protocol, ends.source.1, ends.destination))?;
        Some(self.slots.get(*index as usize)?.as_ref()?.flow)
    }

    /// Begins a flow by a packet of the guest. `avoid` are ports that are not given out.
    pub fn open(
        &mut self,
        ends: &Ends,
        remote: (Ipv4Addr, u16),
        now: u64,
        avoid: impl Fn(u16) -> bool,
    ) -> Result<Flow, NoFlow> {
        self.make_room(ends.source.0, now)?;
        let is_free = |port: u16| {
            port >= FIRST_PORT && !avoid(port) && !self.outside.contains_key(&(ends.protocol, port, remote))
        };
        let mut random = self.random;
        let own = Some(ends.source.1).filter(|&port| is_free(port));
        let port = own.or_else(|| {
            (0..PORT_TRIES).find_map(|_| {
                // Xorshift: the ports are to be hard to guess, not impossible.
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                Some((random >> 32) as u16).filter(|&port| is_free(port))
            })
        });
        self.random = random;
        let port = port.ok_or(NoFlow::NoPort)?;
        let state = match ends.protocol {
            Protocol::Tcp => State::Opening,
            _ if remote.1 == 53 => State::Name,
            _ => State::Asked,
        };
        Ok(self.insert(Flow {
            protocol: ends.protocol,
            guest: ends.source,
            seen: ends.destination,
            remote,
            port,
            state,
            began: Side::Inside,
            answered: false,
            ended: 0,
            last: now,
        }))
    }

    /// Begins a flow by a packet of the other side to the port `ends.destination.1`, which leads to `guest`.
    pub fn open_to(&mut self, ends: &Ends, guest: (Ipv4Addr, u16), now: u64) -> Result<Flow, NoFlow> {
        self.make_room(guest.0, now)?;
        if self.inside.contains_key(&(ends.protocol, guest, ends.source)) {
            return Err(NoFlow::NoPort);
        }
        let state = match ends.protocol {
            Protocol::Tcp => State::Opening,
            _ => State::Asked,
        };
        Ok(self.insert(Flow {
            protocol: ends.protocol,
            guest,
            seen: ends.source,
            remote: ends.source,
            port: ends.destination.1,
            state,
            began: Side::Outside,
            answered: false,
            ended: 0,
            last: now,
        }))
    }

    /// Ends the flows that have been idle for too long.
    pub fn expire(&mut self, now: u64) {
        for state in 0..STATES {
            while let Some(slot) = self.slot(self.lists[state].first) {
                if now.saturating_sub(slot.flow.last) < slot.flow.state.limit() {
                    break;
                }
                self.remove(self.lists[state].first);
            }
        }
    }

    /// Ends the flows for which `over` holds.
    pub fn end(&mut self, over: impl Fn(&Flow) -> bool) {
        let ending: Vec<u32> = (0..self.slots.len() as u32)
            .filter(|&index| self.slot(index).is_some_and(|slot| over(&slot.flow)))
            .collect();
        ending.into_iter().for_each(|index| self.remove(index));
    }

    fn slot(&self, index: u32) -> Option<&Slot> {
        self.slots.get(index as usize)?.as_ref()
    }

    fn slot_mut(&mut self, index: u32) -> Option<&mut Slot> {
        self.slots.get_mut(index as usize)?.as_mut()
    }

    fn make_room(&mut self, guest: Ipv4Addr, now: u64) -> Result<(), NoFlow> {
        self.expire(now);
        let own = self.guests.get(&guest).copied().unwrap_or(0);
        if own < MAX_GUEST_FLOWS && self.len() < MAX_FLOWS {
            return Ok(());
        }
        // Where the table is full, of the guest that has most of it; else of its own, those that are open excepted.
        let richest = self.guests.iter().max_by_key(|(_, count)| **count);
        let richer = richest.filter(|(_, count)| own < MAX_GUEST_FLOWS && **count > own + 1);
        let victim = match richer {
            Some((richest, _)) => self.oldest_of(*richest, |_| true),
            None => self.oldest_of(guest, |flow| flow.state.may_be_evicted()),
        };
        self.remove(victim.ok_or(NoFlow::TableFull)?);
        Ok(())
    }

    /// The flow of `guest` that has been idle longest, of some for which `may_end` holds.
    fn oldest_of(&self, guest: Ipv4Addr, may_end: impl Fn(&Flow) -> bool) -> Option<u32> {
        const NONE: (Ipv4Addr, u16) = (Ipv4Addr::UNSPECIFIED, 0);
        let from = |protocol, port: u16| self.inside.range((protocol, (guest, port), NONE)..);
        // Not always the same ones.
        let start = self.random as u16;
        let found = [Protocol::Tcp, Protocol::Udp, Protocol::Echo].map(|protocol| {
            let of_guest = move |(key, _): &(&Key, &u32)| key.0 == protocol && key.1.0 == guest;
            let behind = from(protocol, start).take_while(of_guest);
            let own = behind
                .chain(from(protocol, 0).take_while(of_guest))
                .take(EVICTION_SEARCH);
            let flows = own.filter_map(|(_, &index)| Some((self.slot(index)?.flow, index)));
            flows
                .filter(|(flow, _)| may_end(flow))
                .min_by_key(|(flow, _)| flow.last)
        });
        let oldest = found.into_iter().flatten().min_by_key(|(flow, _)| flow.last)?;
        Some(oldest.1)
    }

    fn insert(&mut self, flow: Flow) -> Flow {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        self.inside.insert((flow.protocol, flow.guest, flow.seen), index);
        self.outside
            .insert((flow.protocol, flow.port, flow.remote), index);
        *self.guests.entry(flow.guest.0).or_default() += 1;
        self.slots[index as usize] = Some(Slot {
            flow,
            before: NOWHERE,
            after: NOWHERE,
        });
        self.link(index);
        flow
    }

    fn remove(&mut self, index: u32) {
        self.unlink(index);
        let Some(slot) = self.slots.get_mut(index as usize).and_then(Option::take) else {
            return;
        };
        let flow = slot.flow;
        self.inside.remove(&(flow.protocol, flow.guest, flow.seen));
        self.outside.remove(&(flow.protocol, flow.port, flow.remote));
        if let Some(count) = self.guests.get_mut(&flow.guest.0) {
            *count -= 1;
            if *count == 0 {
                self.guests.remove(&flow.guest.0);
            }
        }
        self.free.push(index);
    }

    fn unlink(&mut self, index: u32) {
        let Some(slot) = self.slot(index) else { return };
        let (before, after, state) = (slot.before, slot.after, slot.flow.state as usize);
        match self.slot_mut(before) {
            Some(slot) => slot.after = after,
            None => self.lists[state].first = after,
        }
        match self.slot_mut(after) {
            Some(slot) => slot.before = before,
            None => self.lists[state].last = before,
        }
    }

    /// Puts the flow to the end of its state's list.
    fn link(&mut self, index: u32) {
        let Some(state) = self.slot(index).map(|slot| slot.flow.state as usize) else {
            return;
        };
        let last = core::mem::replace(&mut self.lists[state].last, index);
        match self.slot_mut(last) {
            Some(slot) => slot.after = index,
            None => self.lists[state].first = index,
        }
        if let Some(slot) = self.slot_mut(index) {
            (slot.before, slot.after) = (last, NOWHERE);
        }
    }

    fn go_on(&mut self, index: u32, side: Side, flags: u8, now: u64) -> Option<Flow> {
        let flow = &self.slot(index)?.flow;
        if now.saturating_sub(flow.last) >= flow.state.limit() {
            self.remove(index);
            return None;
        }
        let mut flow = *flow;
        follow(&mut flow, side, flags);
        flow.last = now;
        self.unlink(index);
        self.slot_mut(index)?.flow = flow;
        self.link(index);
        Some(flow)
    }
}

/// What a packet of `side` makes of a flow.
fn follow(flow: &mut Flow, side: Side, flags: u8) {
    flow.answered |= side != flow.began;
    if flow.protocol != Protocol::Tcp {
        if flow.protocol == Protocol::Udp && flow.state == State::Asked && flow.answered {
            flow.state = State::Talking;
        }
        return;
    }
    if flags & RST != 0 {
        flow.state = State::Closed;
        return;
    }
    if flags & SYN != 0 && flow.state == State::Closed {
        // The same ends talk anew.
        (flow.state, flow.ended, flow.answered) = (State::Opening, 0, false);
    }
    if flags & FIN != 0 {
        flow.ended |= if side == Side::Inside { 1 } else { 2 };
    }
    flow.state = match (flow.ended, flow.state) {
        (3, _) => State::Closed,
        (1 | 2, State::Closed) => State::Closed,
        (1 | 2, _) => State::HalfClosed,
        (_, State::Opening) if flow.answered && flags & SYN == 0 => State::Established,
        (_, state) => state,
    };
}
