//! A slot of this processor's SynIC message page (TLFS, "Inter-Partition Communication").
#![allow(unsafe_code)]

use crate::processor::instruction::write_msr;
use core::sync::atomic::{AtomicU32, Ordering, fence};
use hypercall_api::message::{MESSAGE_PENDING, Message, MessageType};
use hypercall_api::msr;

/// A slot, by its address.
pub(super) struct Slot(u64);

/// A message, of whose payload the first `WORDS` words of 8 bytes are kept.
pub(super) struct Taken<const WORDS: usize> {
    pub(super) kind: MessageType,
    pub(super) origin: u64,
    /// Bytes of the whole payload.
    pub(super) size: usize,
    pub(super) payload: [u64; WORDS],
}

impl Slot {
    /// The slot of `sint` in the page at `page`, which is this processor's own; `None` before there is one.
    pub(super) fn of(page: u64, sint: u8) -> Option<Self> {
        (page != 0 && sint < 16).then_some(Self(page + u64::from(sint) * size_of::<Message>() as u64))
    }

    /// Takes the message, if there is one, and says so to the hypervisor if another waits.
    pub(super) fn take<const WORDS: usize>(&self) -> Option<Taken<WORDS>> {
        // SAFETY: the page is this processor's own SynIC message page, which stays enabled; a type is 4 bytes.
        let kind = unsafe { AtomicU32::from_ptr(self.0 as *mut u32) };
        let found = kind.load(Ordering::Acquire);
        if found == MessageType::NONE.0 {
            return None;
        }
        // SAFETY: as above, inside the slot of 256 bytes; the hypervisor leaves a slot alone that is not empty, but for its flags.
        let (size, origin) = unsafe {
            (
                ((self.0 + 4) as *const u8).read_volatile() as usize,
                ((self.0 + 8) as *const u64).read_volatile(),
            )
        };
        const { assert!(16 + WORDS * 8 <= size_of::<Message>()) };
        let mut payload = [0; WORDS];
        for (index, word) in payload.iter_mut().take(size.div_ceil(8)).enumerate() {
            // SAFETY: as above.
            *word = unsafe { ((self.0 + 16) as *const u64).add(index).read_volatile() };
        }
        kind.store(MessageType::NONE.0, Ordering::Release);
        // The slot is free before the flag is looked at: the hypervisor sets it where it finds the slot taken.
        fence(Ordering::SeqCst);
        // SAFETY: as above.
        let flags = unsafe { ((self.0 + 5) as *const u8).read_volatile() };
        if flags & MESSAGE_PENDING != 0 {
            // SAFETY: the slot is free.
            unsafe { write_msr(msr::EOM, 0) };
        }
        Some(Taken {
            kind: MessageType(found),
            origin,
            size,
            payload,
        })
    }
}
