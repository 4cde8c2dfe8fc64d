//! Copies out of memory that somebody else writes to at any moment, and into it: each byte of it is read or written once, and no reference
//! to it is made.
#![allow(unsafe_code)]

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use zerocopy::FromBytes;

/// Most bytes that are copied word by word; for more, starting the string instruction pays.
const SHORT: usize = 256;

/// Copies from memory that somebody else may be writing to.
///
/// # Safety
/// `length` bytes at `from` are mapped, rounded up to words if it is `aligned` to them; `length` bytes at `into` are ours.
#[inline(always)]
pub unsafe fn take(from: *const u8, into: *mut u8, length: usize, aligned: bool) {
    if length > SHORT || !aligned {
        // SAFETY: as our own.
        return unsafe { copy_bytes(from, into, length) };
    }
    let whole = length & !7;
    for offset in (0..whole).step_by(8) {
        // SAFETY: a word inside both; the shared one is aligned.
        unsafe {
            let word = AtomicU64::from_ptr(from.add(offset).cast_mut().cast()).load(Ordering::Relaxed);
            into.add(offset).cast::<u64>().write_unaligned(word);
        }
    }
    if whole < length {
        // SAFETY: the rest is in one aligned word; only as many of its bytes are written as are ours.
        unsafe {
            let word = AtomicU64::from_ptr(from.add(whole).cast_mut().cast()).load(Ordering::Relaxed);
            core::ptr::copy_nonoverlapping(word.to_ne_bytes().as_ptr(), into.add(whole), length - whole);
        }
    }
}

/// Copies a structure from memory that somebody else may be writing to.
///
/// # Safety
/// Its bytes are mapped at `from`, rounded up to words if it is `aligned` to them.
#[inline(always)]
pub unsafe fn take_value<T: FromBytes>(from: *const u8, aligned: bool) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: all of the value is written, for which any bytes will do.
    unsafe {
        take(from, value.as_mut_ptr().cast(), size_of::<T>(), aligned);
        value.assume_init()
    }
}

/// Copies to memory that somebody else may be reading or writing.
///
/// # Safety
/// `length` bytes at `from` are ours to read; as many at `into` are mapped, which is `aligned` to words if that is said.
#[inline(always)]
pub unsafe fn put(from: *const u8, into: *mut u8, length: usize, aligned: bool) {
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
