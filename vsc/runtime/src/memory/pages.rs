//! Pages to take. None comes back: what a guest as small as this takes, it keeps.
#![allow(unsafe_code)]

use core::ops::Range;
use spin::Mutex;

/// Bytes in a page.
pub const SIZE: u64 = 4096;

static FREE: Mutex<Range<u64>> = Mutex::new(0..0);
static LOW: Mutex<Option<u64>> = Mutex::new(None);

/// Notes what is free.
pub(super) fn init(free: Range<u64>, low_page: Option<u64>) {
    *FREE.lock() = free;
    *LOW.lock() = low_page;
}

/// Takes `count` zeroed pages in a row and returns the address of the first, aligned to `SIZE`; `None` where so many are
/// not left.
pub fn allocate(count: u64) -> Option<u64> {
    let start = take(count)?;
    // SAFETY: the pages are RAM, mapped, and nobody else's: they were free until now.
    unsafe { core::ptr::write_bytes(start as *mut u8, 0, (count * SIZE) as usize) };
    Some(start)
}

fn take(count: u64) -> Option<u64> {
    let mut free = FREE.lock();
    let size = count.checked_mul(SIZE)?;
    if free.end - free.start < size {
        return None;
    }
    let start = free.start;
    free.start += size;
    Some(start)
}

/// Bytes that are left.
pub fn free_bytes() -> u64 {
    let free = FREE.lock();
    free.end - free.start
}

/// A page below 640 KiB, for code that runs in real mode, which is writable and executable; given once.
pub(crate) fn take_low() -> Option<u64> {
    LOW.lock().take()
}
