//! The reading end of a ring.

use super::memory::RingMemory;
use super::order::{self, Control, filled};
use super::packet::{DESCRIPTOR, Descriptor, Packet, TRAILER};
use super::{Corruption, RingError, Signal};
use core::sync::atomic::Ordering;

/// The reading end of a ring.
#[derive(Debug)]
pub struct Reader {
    memory: RingMemory,
    state: State,
}

/// How far a ring was read. Nothing of it is read back from the control page, where the copies for the peer are.
#[derive(Debug)]
struct State {
    /// Where the next packet begins that was not given back.
    read: u32,
    /// Up to where the peer is known to have written; up to where it was understood if the ring is broken.
    limit: u32,
    corrupt: Option<Corruption>,
}

impl Reader {
    /// The reading end of `memory`, going on from where it stands.
    pub fn new(memory: RingMemory) -> Result<Self, RingError> {
        let read = memory.control().read_index().load(Ordering::Acquire);
        let read = memory.index(read)?;
        let state = State {
            read,
            limit: read,
            corrupt: None,
        };
        Ok(Self { memory, state })
    }

    /// Bytes of data that the ring has.
    pub const fn size(&self) -> u32 {
        self.memory.size()
    }

    /// Bytes that wait to be read, trailers included.
    pub fn filled(&self) -> Result<u32, RingError> {
        if let Some(corruption) = self.state.corrupt {
            return Err(corruption.into());
        }
        let write = self.memory.control().write_index().load(Ordering::Acquire);
        Ok(filled(
            self.memory.size(),
            self.state.read,
            self.memory.index(write)?,
        ))
    }

    /// Begins to read. What was read is given back to the peer by [`ReadBatch::finish`].
    #[inline(always)]
    pub fn batch(&mut self) -> ReadBatch<'_> {
        ReadBatch {
            memory: &self.memory,
            next: self.state.read,
            state: &mut self.state,
        }
    }

    /// Wants no signals, as this side looks by itself.
    #[inline]
    pub fn mask(&mut self) {
        order::mask(self.memory.control());
    }

    /// Wants signals again; `true` if something has come meanwhile, for which there may be none.
    #[must_use = "what came while signals were masked is not signalled"]
    #[inline]
    pub fn unmask(&mut self) -> bool {
        order::unmask(self.memory.control()) != self.state.read
    }
}

/// Packets that are being read. Dropped without [`finish`](Self::finish), they come again.
#[derive(Debug)]
pub struct ReadBatch<'a> {
    memory: &'a RingMemory,
    next: u32,
    state: &'a mut State,
}

impl<'a> ReadBatch<'a> {
    /// The next packet of those that were there when the first was looked for. It stays in the ring until the batch is finished; then its
    /// bytes are the peer's. What comes meanwhile is for the next batch, which [`Reader::unmask`] tells of.
    #[inline(always)]
    #[allow(clippy::should_implement_trait, reason = "it can fail")]
    pub fn next(&mut self) -> Result<Option<Packet<'a>>, RingError> {
        if self.next == self.state.limit && (self.next != self.state.read || !self.look()?) {
            return Ok(None);
        }
        // It is a multiple of 8 anyway, but so the compiler knows.
        let (memory, at) = (self.memory, self.next & !7);
        let available = filled(memory.size(), at, self.state.limit);
        let descriptor = Descriptor::decode(memory.load_pair(at));
        let Descriptor {
            data_offset, length, ..
        } = descriptor;
        if data_offset < DESCRIPTOR || data_offset > length || length + TRAILER > available {
            let corruption = Corruption::Length {
                data_offset,
                length,
                available,
            };
            return Err(self.fail(corruption));
        }
        self.next = memory.advance(at, length + TRAILER);
        Ok(Some(Packet {
            memory,
            at,
            descriptor,
        }))
    }

    /// Gives what was read back to the peer, with one update of the index, and says whether to signal it: only if it waits for
    /// room, and now has it.
    #[inline(always)]
    pub fn finish(self) -> Signal {
        let before = core::mem::replace(&mut self.state.read, self.next);
        if before == self.next {
            return Signal::NotNeeded;
        }
        order::publish_read(self.memory.control(), self.memory.size(), before, self.next)
    }

    /// Looks how far the peer has written; everything before was given back to it, so that it may have come to any position.
    #[inline]
    fn look(&mut self) -> Result<bool, RingError> {
        if let Some(corruption) = self.state.corrupt {
            return Err(corruption.into());
        }
        let write = self.memory.control().write_index().load(Ordering::Acquire);
        if !self.memory.is_index(write) {
            return Err(self.fail(Corruption::Index(write)));
        }
        self.state.limit = write;
        Ok(write != self.next)
    }

    #[cold]
    fn fail(&mut self, corruption: Corruption) -> RingError {
        self.state.corrupt = Some(corruption);
        // The next look finds that the ring is broken.
        (self.state.limit, self.state.read) = (self.next, self.next);
        corruption.into()
    }
}
