//! The reference time: 100 ns units since the partition was created (TLFS, "Partition Reference Time Enlightenment"), from
//! the reference TSC page, or from its MSR where the page says that it is not valid. Without a hypervisor, a guess: the
//! TSC as if it ran at 1 GHz.
#![allow(unsafe_code)]

use super::detect::Offer;
use crate::processor::instruction::{read_msr, tsc, write_msr};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU8, Ordering, fence};
use hypercall_api::address::Gpfn;
use hypercall_api::msr::{self, PageMsr};
use hypercall_api::privilege::Privileges;
use hypercall_api::reference::{ReferenceTsc, TICKS_PER_SECOND};

/// TSC ticks a unit where nobody says: 1 GHz.
const GUESS: u64 = 100;

#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; 4096]>);

// SAFETY: the hypervisor writes the page; it is read by volatile reads that the sequence number checks.
unsafe impl Sync for Page {}

static PAGE: Page = Page(UnsafeCell::new([0; 4096]));

const NONE: u8 = 0;
const COUNTER: u8 = 1;
const TSC_PAGE: u8 = 2;
static SOURCE: AtomicU8 = AtomicU8::new(NONE);

/// Address of the page.
pub fn page_address() -> u64 {
    PAGE.0.get() as u64
}

/// Takes the best source that the hypervisor offers.
pub(super) fn init(offer: Offer) {
    if offer
        .privileges
        .contains(Privileges::ACCESS_PARTITION_REFERENCE_TSC)
    {
        // SAFETY: the page is there for this.
        unsafe { write_msr(msr::REFERENCE_TSC, PageMsr::enable(Gpfn(page_address() / 4096)).0) };
        SOURCE.store(TSC_PAGE, Ordering::Release);
    } else if offer
        .privileges
        .contains(Privileges::ACCESS_PARTITION_REFERENCE_COUNTER)
    {
        SOURCE.store(COUNTER, Ordering::Release);
    }
}

/// The reference time, in 100 ns.
pub fn now() -> u64 {
    match SOURCE.load(Ordering::Acquire) {
        NONE => tsc() / GUESS,
        TSC_PAGE => page_time().unwrap_or_else(counter),
        _ => counter(),
    }
}

/// The reference counter MSR, in 100 ns.
pub fn counter() -> u64 {
    read_msr(msr::TIME_REF_COUNT)
}

/// The time that the reference TSC page tells; `None` where it is not valid.
pub fn page_time() -> Option<u64> {
    loop {
        let (before, page) = read();
        if before == 0 {
            return None;
        }
        let tsc = tsc();
        fence(Ordering::Acquire);
        if read().0 == before {
            return Some(page.time(tsc));
        }
    }
}

/// The page's sequence number, and then its contents.
pub fn read() -> (u32, ReferenceTsc) {
    let page = page_address() as *const ReferenceTsc;
    // SAFETY: the page is mapped for good, and every bit pattern is a value; the sequence shows whether it was torn.
    unsafe {
        let sequence = (&raw const (*page).sequence).read_volatile();
        fence(Ordering::Acquire);
        (sequence, page.read_volatile())
    }
}

/// Waits for `units` of 100 ns, without giving the processor up.
pub fn wait(units: u64) {
    let start = now();
    while now().wrapping_sub(start) < units {
        core::hint::spin_loop();
    }
}

/// Units of 100 ns in `milliseconds`.
pub const fn milliseconds(milliseconds: u64) -> u64 {
    milliseconds * TICKS_PER_SECOND / 1000
}
