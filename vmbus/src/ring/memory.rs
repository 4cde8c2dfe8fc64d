//! The pages of a ring. The peer writes to them at any moment, so no reference to their bytes is ever made: words of the
//! control page are atomics, data is copied in and out, by atomic words or by instructions that the compiler cannot see into.
//!
//! What goes over the ring's end is copied in two parts. To map the data twice in a row, as Linux does, would save that, and is not worth
//! a mapping: `cargo xtask bench ring` has a row of packets that are never cut, which is no faster than those that are, one in eight.
#![allow(unsafe_code)]

use super::Corruption;
use super::order::{Control, FLOW_CONTROL};
use super::whole::Whole;
use crate::shared::{put, take, take_value};
use alloc::sync::Arc;
use core::any::Any;
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Bytes of the control page, and the unit of the data's size.
pub const PAGE: usize = 4096;
/// Largest ring, so that positions and sizes can be added in 32 bits.
const MAX_DATA: usize = 1 << 30;

/// The control page.
#[repr(C)]
pub(super) struct ControlPage {
    write_index: AtomicU32,
    read_index: AtomicU32,
    interrupt_mask: AtomicU32,
    pending_send_size: AtomicU32,
    reserved: [AtomicU32; 12],
    feature_bits: AtomicU32,
}
const _: () = assert!(core::mem::offset_of!(ControlPage, pending_send_size) == 12);
const _: () = assert!(core::mem::offset_of!(ControlPage, feature_bits) == 64);

impl Control for ControlPage {
    type Word = AtomicU32;

    #[inline(always)]
    fn write_index(&self) -> &AtomicU32 {
        &self.write_index
    }

    #[inline(always)]
    fn read_index(&self) -> &AtomicU32 {
        &self.read_index
    }

    #[inline(always)]
    fn interrupt_mask(&self) -> &AtomicU32 {
        &self.interrupt_mask
    }

    #[inline(always)]
    fn pending_send_size(&self) -> &AtomicU32 {
        &self.pending_send_size
    }

    #[inline(always)]
    fn feature_bits(&self) -> &AtomicU32 {
        &self.feature_bits
    }

    #[inline(always)]
    fn fence() {
        fence(Ordering::SeqCst);
    }
}

/// Memory that cannot be a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0} bytes are no ring: it is a control page and at least one data page, of 4096 bytes each, and less than 1 GiB"
)]
pub struct BadSize(pub usize);

/// A ring's control page and data pages.
pub struct RingMemory {
    control: NonNull<ControlPage>,
    data: NonNull<AtomicU64>,
    size: u32,
    _owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the memory is reached by atomics and opaque copies only, from wherever.
unsafe impl Send for RingMemory {}
// SAFETY: as above.
unsafe impl Sync for RingMemory {}

/// Positions are given as they come from adding to a position in the ring: those beyond the end are at its begin again. Whatever they
/// are, nothing outside of the ring is touched.
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
        for offset in (0..PAGE).step_by(8) {
            // SAFETY: an aligned word of the control page, which is mapped.
            let word = unsafe { AtomicU64::from_ptr(self.control.as_ptr().cast::<u8>().add(offset).cast()) };
            word.store(0, Ordering::Relaxed);
        }
        self.control().feature_bits.store(FLOW_CONTROL, Ordering::Release);
    }

    #[inline(always)]
    pub(super) fn control(&self) -> &ControlPage {
        // SAFETY: the first page is mapped and aligned while the owner lives, and a control page is all atomics.
        unsafe { self.control.as_ref() }
    }

    /// Whether a word that the peer wrote can be an index.
    #[inline(always)]
    pub(super) const fn is_index(&self, value: u32) -> bool {
        value < self.size && value.is_multiple_of(8)
    }

    /// An index that the peer wrote, if it can be one.
    pub(super) fn index(&self, value: u32) -> Result<u32, Corruption> {
        if self.is_index(value) {
            Ok(value)
        } else {
            Err(Corruption::Index(value))
        }
    }

    /// The position `by` bytes behind `at`, around the end; `by` is not more than the ring's size.
    #[inline(always)]
    pub(super) const fn advance(&self, at: u32, by: u32) -> u32 {
        // Before the end, the difference wraps and is the larger one.
        let next = at.wrapping_add(by);
        let around = next.wrapping_sub(self.size);
        if around < next { around } else { next }
    }

    /// The 16 bytes at `at`, as two numbers.
    #[inline(always)]
    pub(super) fn load_pair(&self, at: u32) -> [u64; 2] {
        match self.in_a_row(at & !7, 16) {
            // SAFETY: the data is aligned to pages, so these are aligned words, before the end.
            Some(first) => [0, 8].map(|offset| unsafe {
                AtomicU64::from_ptr(first.add(offset).cast()).load(Ordering::Relaxed)
            }),
            None => [self.load(at), self.load(at.wrapping_add(8))],
        }
    }

    /// Writes 16 bytes at `at`, and 8 bytes `length` bytes behind it.
    #[inline(always)]
    pub(super) fn store_around(&self, at: u32, pair: [u64; 2], length: u32, last: u64) {
        match self.in_a_row(at & !7, (length & !7) as usize + 8) {
            Some(first) if length >= 16 => {
                for (offset, value) in [(0, pair[0]), (8, pair[1]), ((length & !7) as usize, last)] {
                    // SAFETY: the data is aligned to pages, so these are aligned words, before the end.
                    let word = unsafe { AtomicU64::from_ptr(first.add(offset).cast()) };
                    word.store(value, Ordering::Relaxed);
                }
            }
            _ => {
                self.store(at, pair[0]);
                self.store(at.wrapping_add(8), pair[1]);
                self.store(at.wrapping_add(length), last);
            }
        }
    }

    /// Writes a packet of structures at `at`, with one look whether it lies in a row.
    #[inline(always)]
    pub(super) fn store_whole<H, P>(&self, at: u32, packet: &Whole<'_, H, P>)
    where
        H: IntoBytes + Immutable,
        P: IntoBytes + Immutable,
    {
        let at = at & !7;
        match self.in_a_row(at, Whole::<'_, H, P>::LENGTH + 8) {
            Some(first) => packet.for_each_word(|offset, word| {
                // SAFETY: an aligned word, as the first one is, and no word of the packet is behind its length.
                let place = unsafe { AtomicU64::from_ptr(first.add(offset).cast()) };
                place.store(word, Ordering::Relaxed);
            }),
            None => packet.for_each_word(|offset, word| self.store(at.wrapping_add(offset as u32), word)),
        }
    }

    /// Writes 8 bytes at `at`.
    pub(super) fn store(&self, at: u32, value: u64) {
        self.word(at).store(value, Ordering::Relaxed);
    }

    fn load(&self, at: u32) -> u64 {
        self.word(at).load(Ordering::Relaxed)
    }

    /// Copies the bytes from `at` on out of the ring.
    #[inline(always)]
    pub(super) fn copy_out(&self, at: u32, into: &mut [u8]) {
        // SAFETY: `into` is as long as it says.
        unsafe { self.copy_out_raw(at, into.as_mut_ptr(), into.len()) };
    }

    /// Copies a structure out of the ring.
    #[inline(always)]
    pub(super) fn read<T: FromBytes>(&self, at: u32) -> T {
        match self.in_a_row(at, size_of::<T>()) {
            // SAFETY: so many bytes are mapped there.
            Some(from) => unsafe { take_value(from, at.is_multiple_of(8)) },
            None => self.read_around(at),
        }
    }

    /// Copies two structures in a row out of the ring.
    #[inline(always)]
    pub(super) fn read_two<T: FromBytes, U: FromBytes>(&self, at: u32) -> (T, U) {
        let (first, both) = (size_of::<T>(), size_of::<T>() + size_of::<U>());
        let aligned = at.is_multiple_of(8);
        match self.in_a_row(at, both) {
            // SAFETY: so many bytes are mapped there.
            Some(from) => unsafe {
                let second = take_value(from.add(first), aligned && first.is_multiple_of(8));
                (take_value(from, aligned), second)
            },
            None => (
                self.read_around(at),
                self.read_around(at.wrapping_add(first as u32)),
            ),
        }
    }

    // With a value of its own, so that the other way needs no memory for it.
    #[cold]
    #[inline(never)]
    fn read_around<T: FromBytes>(&self, at: u32) -> T {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: all of the value is written, for which any bytes will do.
        unsafe {
            self.copy_out_around(at, value.as_mut_ptr().cast(), size_of::<T>());
            value.assume_init()
        }
    }

    /// Copies bytes into the ring, from `at` on.
    #[inline(always)]
    pub(super) fn copy_in(&self, at: u32, from: &[u8]) {
        match self.in_a_row(at, from.len()) {
            // SAFETY: so many bytes are mapped there, and `from` is as long as it says.
            Some(into) => unsafe { put(from.as_ptr(), into, from.len(), at.is_multiple_of(8)) },
            None => self.copy_in_around(at, from),
        }
    }

    #[cold]
    fn copy_in_around(&self, at: u32, mut from: &[u8]) {
        let mut at = at % self.size;
        while !from.is_empty() {
            let (now, rest) = from.split_at(from.len().min((self.size - at) as usize));
            // SAFETY: so many bytes are mapped from there on.
            unsafe { put(now.as_ptr(), self.at(at), now.len(), at.is_multiple_of(8)) };
            (from, at) = (rest, 0);
        }
    }

    /// # Safety
    /// `length` bytes at `into` are ours to write.
    #[inline(always)]
    unsafe fn copy_out_raw(&self, at: u32, into: *mut u8, length: usize) {
        // SAFETY: so many bytes are mapped there; the caller vouches for `into`.
        unsafe {
            match self.in_a_row(at, length) {
                Some(from) => take(from, into, length, at.is_multiple_of(8)),
                None => self.copy_out_around(at, into, length),
            }
        }
    }

    /// # Safety
    /// As `copy_out_raw`.
    #[cold]
    unsafe fn copy_out_around(&self, at: u32, into: *mut u8, length: usize) {
        let (mut at, mut done) = (at % self.size, 0);
        while done < length {
            let part = (length - done).min((self.size - at) as usize);
            // SAFETY: `part` bytes are mapped from there on, and are left at `into`.
            unsafe { take(self.at(at), into.add(done), part, at.is_multiple_of(8)) };
            (at, done) = (0, done + part);
        }
    }

    /// Where `length` bytes from `at` on are, if that is before the end of the ring.
    #[inline(always)]
    fn in_a_row(&self, at: u32, length: usize) -> Option<*mut u8> {
        let end = (at as usize).checked_add(length)?;
        (end <= self.size as usize).then(|| self.at(at))
    }

    /// The word at `at`, which is at most once around the end; the ring's last word otherwise.
    #[inline]
    fn word(&self, at: u32) -> &AtomicU64 {
        let at = self.advance(at, 0).min(self.size - 8) & !7;
        // SAFETY: an aligned position, 8 bytes before the end or more; the data is aligned to pages.
        unsafe { AtomicU64::from_ptr(self.at(at).cast()) }
    }

    /// Where `at` is, which is not beyond the end.
    #[inline(always)]
    fn at(&self, at: u32) -> *mut u8 {
        // SAFETY: the data is mapped in a row.
        unsafe { self.data.as_ptr().cast::<u8>().add(at as usize) }
    }
}

impl fmt::Debug for RingMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingMemory")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}
