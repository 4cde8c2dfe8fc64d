//! Writing tables back to memory, for units that read past the processors' caches (ECAP.C = 0).
#![allow(unsafe_code)]

use crate::memory::address::Spa;
use core::arch::x86_64::{_mm_clflush, _mm_mfence};
use core::sync::atomic::{AtomicBool, Ordering};

/// Least bytes of a cache line; flushing a longer one twice does no harm.
const LINE: u64 = 64;

/// Whether every unit reads through the caches.
static COHERENT: AtomicBool = AtomicBool::new(false);

/// Takes note that every unit reads through the caches.
pub fn set_coherent() {
    COHERENT.store(true, Ordering::Relaxed);
}

/// Makes `bytes` bytes at `start`, in tables, seen by the units.
#[inline]
pub fn write_back(start: Spa, bytes: u64) {
    if COHERENT.load(Ordering::Relaxed) {
        return;
    }
    let mut line = start.0 & !(LINE - 1);
    while line < start.0 + bytes {
        // SAFETY: the caller's tables are mapped there; flushing a line changes no memory.
        unsafe { _mm_clflush(line as *const u8) };
        line += LINE;
    }
    // SAFETY: a fence changes nothing.
    unsafe { _mm_mfence() };
}
