//! The pages of a ring. The peer writes to them at any moment, so no reference to their bytes is ever made: words of the
//! control page are atomics, data is copied in and out, by atomic words or by one instruction that the compiler cannot see into.
#![allow(unsafe_code)]

use alloc::sync::Arc;
use core::any::Any;
use core::arch::asm;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bytes of the control page, and the unit of the data's size.
pub const PAGE: usize = 4096;
/// Most bytes that are copied word by word; for more, starting the string instruction pays.
const BY_WORDS: usize = 256;
/// Largest ring, so that positions and sizes can be added in 32 bits.
const MAX_DATA: usize = 1 << 30;

/// The control page.
#[repr(C)]
pub(super) struct Control {
    /// Where the writer writes next: a position in the data.
    pub(super) write_index: AtomicU32,
    /// Where the reader reads next.
    pub(super) read_index: AtomicU32,
    /// Not zero: the reader looks by itself and wants no signal.
    pub(super) interrupt_mask: AtomicU32,
    /// Not zero: the writer waits until more than so many bytes are free.
    pub(super) pending_send_size: AtomicU32,
    reserved: [AtomicU32; 12],
    /// Bit 0: the reader signals when the writer waits.
    pub(super) feature_bits: AtomicU32,
}
const _: () = assert!(core::mem::offset_of!(Control, feature_bits) == 64);

/// Bit of [`Control::feature_bits`]: `pending_send_size` is honoured.
pub(super) const FLOW_CONTROL: u32 = 1;

/// Memory that cannot be a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0} bytes are no ring: it is a control page and at least one data page, of 4096 bytes each, and less than 1 GiB"
)]
pub struct BadSize(pub usize);

/// A ring's control page and data pages.
pub struct RingMemory {
    control: NonNull<Control>,
    data: NonNull<AtomicU64>,
    size: u32,
    _owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the memory is reached by atomics and opaque copies only, from wherever.
unsafe impl Send for RingMemory {}
// SAFETY: as above.
unsafe impl Sync for RingMemory {}

impl RingMemory {
    /// The `length` bytes at `base`: a control page, then data.
    ///
    /// # Safety
    /// `base` is aligned to a page, and the bytes are readable and writable for as long as `owner` lives. Nobody on this side has
    /// references to them, or accesses them other than through `RingMemory`.
    pub unsafe fn new(
        base: NonNull<u8>,
        length: usize,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Result<Self, BadSize> {
        let data = length.checked_sub(PAGE).ok_or(BadSize(length))?;
        if data == 0 || !data.is_multiple_of(PAGE) || data > MAX_DATA {
            return Err(BadSize(length));
        }
        Ok(Self {
            control: base.cast(),
            // SAFETY: the caller vouches for `length` bytes, more than a page.
            data: unsafe { base.add(PAGE) }.cast(),
            size: data as u32,
            _owner: owner,
        })
    }

    /// Bytes of data, a multiple of [`PAGE`].
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// Empties the ring and announces flow control, as a guest does before it opens a channel.
    pub fn initialize(&self) {
        let control = self.control();
        for word in [
            &control.write_index,
            &control.read_index,
            &control.interrupt_mask,
            &control.pending_send_size,
        ] {
            word.store(0, Ordering::Relaxed);
        }
        control.feature_bits.store(FLOW_CONTROL, Ordering::Release);
    }

    pub(super) fn control(&self) -> &Control {
        // SAFETY: the constructor's caller vouches for the page; all fields are atomics, so the peer may write to them.
        unsafe { self.control.as_ref() }
    }

    /// Copies bytes from position `at` on, over the end if need be. What is not inside the ring is not copied.
    #[inline]
    pub(super) fn copy_out(&self, at: u32, into: &mut [u8]) {
        let to_end = self.size.saturating_sub(at) as usize;
        if into.len() <= to_end {
            self.read(at as usize, into);
        } else {
            let (first, rest) = into.split_at_mut(to_end);
            self.read(at as usize, first);
            self.read(0, rest);
        }
    }

    /// Copies bytes to position `at` and on, over the end if need be. What is not inside the ring is not copied.
    #[inline]
    pub(super) fn copy_in(&self, at: u32, from: &[u8]) {
        let to_end = self.size.saturating_sub(at) as usize;
        if from.len() <= to_end {
            self.write(at as usize, from);
        } else {
            let (first, rest) = from.split_at(to_end);
            self.write(at as usize, first);
            self.write(0, rest);
        }
    }

    /// The word at position `at`, a multiple of 8; zero where that is not inside the ring.
    #[inline]
    pub(super) fn word(&self, at: u32) -> u64 {
        self.cell(at as usize)
            .map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    /// Sets the word at position `at`, a multiple of 8.
    #[inline]
    pub(super) fn set_word(&self, at: u32, value: u64) {
        if let Some(cell) = self.cell(at as usize) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    #[inline]
    fn cell(&self, at: usize) -> Option<&AtomicU64> {
        let inside = at.is_multiple_of(8) && at < self.size as usize;
        // SAFETY: an aligned position less than the size, which is a multiple of 8, is a word of the data; an atomic may be
        // changed by others.
        inside.then(|| unsafe { self.data.add(at / 8).as_ref() })
    }

    #[inline]
    fn read(&self, at: usize, into: &mut [u8]) {
        if into.len() > (self.size as usize).saturating_sub(at) {
            return;
        }
        if into.len() > BY_WORDS || !at.is_multiple_of(8) {
            // SAFETY: the range is inside the data, as was checked; `into` is ours.
            unsafe {
                copy(
                    self.data.cast::<u8>().add(at).as_ptr(),
                    into.as_mut_ptr(),
                    into.len(),
                )
            };
            return;
        }
        // SAFETY: `at` is aligned and not beyond the end.
        let mut from = unsafe { self.data.add(at / 8) };
        let mut words = into.chunks_exact_mut(8);
        for word in words.by_ref() {
            // SAFETY: all words of `into` lie inside the data, as was checked.
            let value = unsafe { from.as_ref() }.load(Ordering::Relaxed);
            word.copy_from_slice(&value.to_ne_bytes());
            // SAFETY: at most one past the last word.
            from = unsafe { from.add(1) };
        }
        let rest = words.into_remainder();
        if !rest.is_empty() {
            // SAFETY: bytes are left, so the word begins inside the data, whose size is a multiple of 8.
            let value = unsafe { from.as_ref() }.load(Ordering::Relaxed);
            rest.copy_from_slice(&value.to_ne_bytes()[..rest.len()]);
        }
    }

    #[inline]
    fn write(&self, at: usize, from: &[u8]) {
        if from.len() > (self.size as usize).saturating_sub(at) {
            return;
        }
        if from.len() > BY_WORDS || !at.is_multiple_of(8) || !from.len().is_multiple_of(8) {
            // SAFETY: the range is inside the data, as was checked; `from` is ours.
            unsafe { copy(from.as_ptr(), self.data.cast::<u8>().add(at).as_ptr(), from.len()) };
            return;
        }
        // SAFETY: `at` is aligned and not beyond the end.
        let mut to = unsafe { self.data.add(at / 8) };
        for word in from.chunks_exact(8) {
            let value = word.try_into().map_or(0, u64::from_ne_bytes);
            // SAFETY: all words of `from` fit inside the data, as was checked.
            unsafe { to.as_ref() }.store(value, Ordering::Relaxed);
            // SAFETY: at most one past the last word.
            to = unsafe { to.add(1) };
        }
    }
}

impl fmt::Debug for RingMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingMemory")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// Copies without the compiler's knowledge, which may then assume nothing about bytes that others change.
///
/// # Safety
/// Both ranges are accessible for `length` bytes, and do not overlap.
#[inline]
unsafe fn copy(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: the caller vouches for the ranges; the direction flag is clear by the calling convention.
    unsafe {
        asm!("rep movsb", inout("rcx") length => _, inout("rsi") from => _, inout("rdi") to => _, options(nostack, preserves_flags));
    }
}
