//! Pages that guest and hypervisor agree on by an MSR. For the root, the hypervisor has put a page of its own into most of
//! them; where it has not, the root supplies one.
#![allow(unsafe_code)]

use crate::memory::address_space;
use crate::memory::paging::{Access, PagingError};
use crate::processor::instruction::{read_msr, write_msr};
use hypercall_api::address::Gpfn;
use hypercall_api::msr::{self, PageMsr};

/// Enables the page of `register`, mapped with `access`, and returns its address.
pub(super) fn enable(register: u32, access: Access) -> Result<u64, PagingError> {
    let before = PageMsr(read_msr(register));
    let page = match before.page() {
        Gpfn(0) => {
            let frame = address_space::allocate_run(1).ok_or(PagingError::OutOfMemory)?;
            // SAFETY: the frame was just allocated and is mapped.
            unsafe { (frame as *mut [u64; 512]).write([0; 512]) };
            Gpfn(frame / 4096)
        }
        page => page,
    };
    let base = page.base().ok_or(PagingError::OutOfMemory)?.0;
    address_space::protect(base..base + 4096, access)?;
    let kept = before.0 & 0xffe;
    // SAFETY: the page is the hypervisor's own, or one that this partition gives up for good.
    unsafe { write_msr(register, PageMsr::enable(page).0 | kept) };
    Ok(base)
}

/// Turns the SynIC of this processor on.
pub(super) fn enable_synic() {
    // SAFETY: its pages are enabled, and every SINT is masked until somebody unmasks it.
    unsafe { write_msr(msr::SCONTROL, 1) };
}
