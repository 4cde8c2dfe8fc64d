//! The order of loads and stores by which no wake-up is lost, and the rules of who signals whom.
//!
//! Each side publishes its index and then looks at what the other side said before it went to sleep. The other side says that it
//! goes to sleep and then looks at the index once more. A full fence in the middle of both lets at least one of them see the other:
//!
//! | who publishes | who goes to sleep |
//! |---|---|
//! | [`publish_write`]: write index · fence · interrupt mask, read index | [`publish_read`], [`unmask`]: read index, interrupt mask · fence · write index |
//! | [`publish_read`]: read index · fence · pending send size | [`announce_wait`]: pending send size · fence · read index |
//!
//! All of it is generic over the words of the control page, so that loom goes through the interleavings of this code, not of a copy.

use super::Signal;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{self, Acquire, Relaxed, Release};

/// Bit of the feature bits: `pending_send_size` is honoured.
pub(super) const FLOW_CONTROL: u32 = 1;

/// A word of a control page.
pub(super) trait Word {
    fn load(&self, order: Ordering) -> u32;
    fn store(&self, value: u32, order: Ordering);
}

impl Word for AtomicU32 {
    #[inline(always)]
    fn load(&self, order: Ordering) -> u32 {
        self.load(order)
    }

    #[inline(always)]
    fn store(&self, value: u32, order: Ordering) {
        self.store(value, order);
    }
}

/// The words by which the two ends of a ring speak.
pub(super) trait Control {
    /// A word.
    type Word: Word;
    /// Where the writer writes next: a position in the data.
    fn write_index(&self) -> &Self::Word;
    /// Where the reader reads next.
    fn read_index(&self) -> &Self::Word;
    /// Not zero: the reader looks by itself and wants no signal.
    fn interrupt_mask(&self) -> &Self::Word;
    /// Not zero: the writer waits until more than so many bytes are free.
    fn pending_send_size(&self) -> &Self::Word;
    /// See [`FLOW_CONTROL`].
    fn feature_bits(&self) -> &Self::Word;
    /// A full fence.
    fn fence();
}

/// Lets the reader see what was written from `old` to `new`. It is asleep only if it had read all before `old`.
#[inline(always)]
pub(super) fn publish_write<C: Control>(control: &C, old: u32, new: u32) -> Signal {
    control.write_index().store(new, Release);
    C::fence();
    // A reader unmasks behind its index: who sees the mask gone sees the index too.
    Signal::when(control.interrupt_mask().load(Acquire) == 0 && control.read_index().load(Relaxed) == old)
}

/// Gives back what was read from `old` to `new`, of `size` bytes in all. The writer is asleep only if it waits for more than was
/// free before; nothing is gained by waking it before as much is free.
#[inline(always)]
pub(super) fn publish_read<C: Control>(control: &C, size: u32, old: u32, new: u32) -> Signal {
    control.read_index().store(new, Release);
    C::fence();
    match control.pending_send_size().load(Relaxed) {
        0 => Signal::NotNeeded,
        wanted => room_was_made(control, size, old, new, wanted),
    }
}

#[cold]
fn room_was_made<C: Control>(control: &C, size: u32, old: u32, new: u32, wanted: u32) -> Signal {
    // An index that is none makes for a signal too many or too few, to a liar; the next read finds it out.
    let write = control.write_index().load(Relaxed);
    let (before, now) = (free(size, old, write), free(size, new, write));
    let honoured = control.feature_bits().load(Relaxed) & FLOW_CONTROL != 0;
    Signal::when(honoured && before <= wanted && wanted < now)
}

/// Wants no signals for packets.
#[inline(always)]
pub(super) fn mask<C: Control>(control: &C) {
    control.interrupt_mask().store(1, Relaxed);
}

/// Wants signals again, and gives the write index as it is now: there may be no signal for what came before.
#[inline(always)]
pub(super) fn unmask<C: Control>(control: &C) -> u32 {
    control.interrupt_mask().store(0, Release);
    C::fence();
    control.write_index().load(Relaxed)
}

/// Says that the writer waits until more than `needed` bytes are free, and gives the read index as it is now: there may be no
/// signal for what became free before.
#[inline(always)]
pub(super) fn announce_wait<C: Control>(control: &C, needed: u32) -> u32 {
    control.pending_send_size().store(needed, Relaxed);
    C::fence();
    control.read_index().load(Acquire)
}

/// Says that the writer does not wait any more.
pub(super) fn stop_waiting<C: Control>(control: &C) {
    control.pending_send_size().store(0, Relaxed);
}

/// Bytes that are free in a ring of `size`. It is never filled to the brim: the same index twice means that it is empty.
#[inline(always)]
pub(super) const fn free(size: u32, read: u32, write: u32) -> u32 {
    size.wrapping_sub(filled(size, read, write))
}

/// Bytes from `read` up to `write`.
#[inline(always)]
pub(super) const fn filled(size: u32, read: u32, write: u32) -> u32 {
    // If the writer went around the end, the distance wraps and is the larger one.
    let distance = write.wrapping_sub(read);
    let around = distance.wrapping_add(size);
    if around < distance { around } else { distance }
}
