//! The reference time: 100 ns units since the partition was created, from the reference TSC page (TLFS, "Partition
//! Reference Time Enlightenment"), or from its MSR where the page says that it is not valid.
#![allow(unsafe_code)]

use super::page_msr;
use crate::memory::paging::{Access, PagingError};
use crate::processor::instruction::read_msr;
use core::arch::x86_64::_rdtsc;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering, fence};
use hypercall_api::msr;
use hypercall_api::reference::ReferenceTsc;

static PAGE: AtomicPtr<ReferenceTsc> = AtomicPtr::new(ptr::null_mut());

/// Enables the reference TSC page.
pub(super) fn init() -> Result<(), PagingError> {
    let page = page_msr::enable(msr::REFERENCE_TSC, Access::CONSTANTS)?;
    PAGE.store(page as *mut ReferenceTsc, Ordering::Release);
    Ok(())
}

/// The reference time, in 100 ns; 0 before [`init`].
pub fn now() -> u64 {
    let page = PAGE.load(Ordering::Acquire);
    if page.is_null() {
        return 0;
    }
    loop {
        let (before, copy) = read(page);
        if before == 0 {
            return read_msr(msr::TIME_REF_COUNT);
        }
        // SAFETY: reading the TSC has no effect.
        let tsc = unsafe { _rdtsc() };
        fence(Ordering::Acquire);
        if read(page).0 == before {
            return copy.time(tsc);
        }
    }
}

/// The page's sequence number, and then its contents.
fn read(page: *const ReferenceTsc) -> (u32, ReferenceTsc) {
    // SAFETY: the page stays mapped, and every bit pattern is a value; the sequence shows whether it was torn.
    unsafe {
        let sequence = (&raw const (*page).sequence).read_volatile();
        fence(Ordering::Acquire);
        (sequence, page.read_volatile())
    }
}
