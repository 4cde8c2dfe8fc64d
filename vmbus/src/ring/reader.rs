//! The reading end of a ring.

use super::memory::RingMemory;
use super::packet::{DESCRIPTOR, Descriptor, Packet, TRAILER, advance};
use super::writer::index;
use super::{Corruption, RingError, Signal};
use core::sync::atomic::{Ordering, fence};

/// The reading end of a ring.
#[derive(Debug)]
pub struct Reader {
    memory: RingMemory,
    /// Where the next packet begins. The copy in the control page is for the peer, and is not read back.
    read: u32,
    corrupt: Option<Corruption>,
}

impl Reader {
    /// The reading end of `memory`, going on from where it stands.
    pub fn new(memory: RingMemory) -> Result<Self, RingError> {
        let read = index(&memory, memory.control().read_index.load(Ordering::Acquire))?;
        Ok(Self {
            memory,
            read,
            corrupt: None,
        })
    }

    /// Bytes of data that the ring has.
    pub const fn size(&self) -> u32 {
        self.memory.size()
    }

    /// Bytes that wait to be read, trailers included.
    pub fn filled(&self) -> Result<u32, RingError> {
        if let Some(corruption) = self.corrupt {
            return Err(corruption.into());
        }
        let write = self.memory.control().write_index.load(Ordering::Acquire);
        Ok(filled(self.memory.size(), self.read, index(&self.memory, write)?))
    }

    /// Begins to read. What was read is given back to the peer by [`ReadBatch::finish`].
    pub fn batch(&mut self) -> ReadBatch<'_> {
        ReadBatch {
            memory: &self.memory,
            next: self.read,
            // Nothing is known to be there: the first packet looks.
            limit: self.read,
            read: &mut self.read,
            corrupt: &mut self.corrupt,
        }
    }

    /// Wants no signals, as this side looks by itself.
    pub fn mask(&mut self) {
        self.memory.control().interrupt_mask.store(1, Ordering::Relaxed);
    }

    /// Wants signals again; `true` if something has come meanwhile, for which there may be none.
    #[must_use = "what came while signals were masked is not signalled"]
    pub fn unmask(&mut self) -> bool {
        self.memory.control().interrupt_mask.store(0, Ordering::Relaxed);
        // The peer writes its index and then reads the mask: one of us must see what the other wrote.
        fence(Ordering::SeqCst);
        self.memory.control().write_index.load(Ordering::Relaxed) != self.read
    }
}

/// Packets that are being read. Dropped without [`finish`](Self::finish), they come again.
#[derive(Debug)]
pub struct ReadBatch<'a> {
    memory: &'a RingMemory,
    next: u32,
    /// Up to where the peer is known to have written.
    limit: u32,
    read: &'a mut u32,
    corrupt: &'a mut Option<Corruption>,
}

impl<'a> ReadBatch<'a> {
    /// The next packet, if there is one. It stays in the ring until the batch is finished.
    #[inline]
    #[allow(clippy::should_implement_trait, reason = "it can fail")]
    pub fn next(&mut self) -> Result<Option<Packet<'a>>, RingError> {
        if self.next == self.limit && !self.look()? {
            return Ok(None);
        }
        let (memory, size, at) = (self.memory, self.memory.size(), self.next);
        let available = filled(size, at, self.limit);
        let words = [memory.word(at), memory.word(advance(size, at, 8))];
        let descriptor = Descriptor::decode(words);
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
        self.next = advance(size, at, length + TRAILER);
        Ok(Some(Packet {
            memory,
            at,
            descriptor,
        }))
    }

    /// Gives what was read back to the peer, and says whether to signal it: only if it waits for room, and now has it.
    #[inline]
    pub fn finish(self) -> Signal {
        let Self {
            memory, next, read, ..
        } = self;
        let before = *read;
        if next == before {
            return Signal::NotNeeded;
        }
        *read = next;
        let control = memory.control();
        control.read_index.store(next, Ordering::Release);
        // The peer writes what it waits for and then looks at the index: one of us must see what the other wrote.
        fence(Ordering::SeqCst);
        let wanted = control.pending_send_size.load(Ordering::Relaxed);
        if wanted == 0 {
            return Signal::NotNeeded;
        }
        let write = control.write_index.load(Ordering::Relaxed);
        if write >= memory.size() {
            return Signal::NotNeeded;
        }
        let size = memory.size();
        let free_before = size - filled(size, before, write);
        let free_now = size - filled(size, next, write);
        if free_before <= wanted && free_now > wanted {
            Signal::Needed
        } else {
            Signal::NotNeeded
        }
    }

    /// Looks how far the peer has written.
    #[inline]
    fn look(&mut self) -> Result<bool, RingError> {
        if let Some(corruption) = *self.corrupt {
            return Err(corruption.into());
        }
        let write = self.memory.control().write_index.load(Ordering::Acquire);
        match index(self.memory, write) {
            Ok(write) => self.limit = write,
            Err(_) => return Err(self.fail(Corruption::Index(write))),
        }
        Ok(self.limit != self.next)
    }

    #[cold]
    fn fail(&mut self, corruption: Corruption) -> RingError {
        *self.corrupt = Some(corruption);
        self.limit = self.next;
        corruption.into()
    }
}

/// Bytes from `read` up to `write`.
#[inline]
const fn filled(size: u32, read: u32, write: u32) -> u32 {
    if write >= read {
        write - read
    } else {
        size - (read - write)
    }
}
