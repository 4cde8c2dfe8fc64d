//! The pages of a ring. The peer writes to them at any moment, so no reference to their bytes is ever made: words of the
//! control page are atomics, data is copied in and out, by atomic words or by instructions that the compiler cannot see into.
//!
//! What goes over the ring's end is copied in two parts. To map the data twice in a row, as Linux does, would save that, and is not worth
//! a mapping: `cargo xtask bench ring` has a row of packets that are never cut, which is no faster than those that are, one in eight.
#![allow(unsafe_code)]

use super::Corruption;
use super::order::{Control, FLOW_CONTROL};
use alloc::sync::Arc;
use core::any::Any;
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use zerocopy::FromBytes;

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
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: all of the value is written, for which any bytes will do.
        unsafe {
            self.copy_out_raw(at, value.as_mut_ptr().cast(), size_of::<T>());
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

    /// The word at `at`.
    #[cold]
    fn word(&self, at: u32) -> &AtomicU64 {
        // SAFETY: an aligned position before the end; the data is aligned to pages and a multiple of 8.
        unsafe { AtomicU64::from_ptr(self.at((at % self.size) & !7).cast()) }
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

/// Most bytes that are copied word by word; for more, starting the string instruction pays.
const SHORT: usize = 256;

/// Copies from memory that the peer may be writing to.
///
/// # Safety
/// `length` bytes at `from` are mapped, rounded up to words if it is `aligned` to them; `length` bytes at `into` are ours.
#[inline(always)]
unsafe fn take(from: *mut u8, into: *mut u8, length: usize, aligned: bool) {
    if length > SHORT || !aligned {
        // SAFETY: as our own.
        return unsafe { copy_bytes(from, into, length) };
    }
    let whole = length & !7;
    for offset in (0..whole).step_by(8) {
        // SAFETY: a word inside both; the shared one is aligned.
        unsafe {
            let word = AtomicU64::from_ptr(from.add(offset).cast()).load(Ordering::Relaxed);
            into.add(offset).cast::<u64>().write_unaligned(word);
        }
    }
    if whole < length {
        // SAFETY: the rest is in one aligned word; only as many of its bytes are written as are ours.
        unsafe {
            let word = AtomicU64::from_ptr(from.add(whole).cast()).load(Ordering::Relaxed);
            core::ptr::copy_nonoverlapping(word.to_ne_bytes().as_ptr(), into.add(whole), length - whole);
        }
    }
}

/// Copies to memory that the peer may be reading or writing.
///
/// # Safety
/// `length` bytes at `from` are ours to read; as many at `into` are mapped, which is `aligned` to words if that is said.
#[inline(always)]
unsafe fn put(from: *const u8, into: *mut u8, length: usize, aligned: bool) {
    if length > SHORT || !aligned {
        // SAFETY: as our own.
        return unsafe { copy_bytes(from, into, length) };
    }
    let whole = length & !7;
    for offset in (0..whole).step_by(8) {
        // SAFETY: a word inside both; the shared one is aligned.
        unsafe {
            let word = from.add(offset).cast::<u64>().read_unaligned();
            AtomicU64::from_ptr(into.add(offset).cast()).store(word, Ordering::Relaxed);
        }
    }
    for offset in whole..length {
        // SAFETY: a byte inside both.
        unsafe { AtomicU8::from_ptr(into.add(offset)).store(*from.add(offset), Ordering::Relaxed) };
    }
}

/// Copies any number of bytes, of which one side is shared.
///
/// # Safety
/// As many bytes are mapped at both, and the side that is ours is ours.
#[inline(always)]
unsafe fn copy_bytes(from: *const u8, into: *mut u8, length: usize) {
    // Words and then the rest: at addresses that are multiples of 8 and no more, as a ring's positions are, an AMD EPYC takes 1.7 times as
    // long to move bytes, and an emulator takes them one by one.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the instructions read and write these bytes and no others; the direction flag is clear by the calling convention.
    unsafe {
        core::arch::asm!(
            "rep movsq",
            "mov rcx, {rest}",
            "rep movsb",
            rest = in(reg) length & 7,
            inout("rcx") length >> 3 => _,
            inout("rsi") from => _,
            inout("rdi") into => _,
            options(nostack, preserves_flags)
        );
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    for offset in 0..length {
        // SAFETY: a byte inside both.
        unsafe {
            let byte = AtomicU8::from_ptr(from.add(offset).cast_mut()).load(Ordering::Relaxed);
            AtomicU8::from_ptr(into.add(offset)).store(byte, Ordering::Relaxed);
        }
    }
}
