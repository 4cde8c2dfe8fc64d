//! Hypercalls by the hypercall page (TLFS, "Establishing the Hypercall Interface").
#![allow(unsafe_code)]

use super::page_msr;
use crate::memory::paging::{Access, PagingError};
use crate::processor::instruction::write_msr;
use crate::processor::local;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use hypercall_api::call::Hypercalls;
use hypercall_api::control::{HypercallInput, HypercallResult};
use hypercall_api::msr;
use x86_64::instructions::interrupts::without_interrupts;

/// What the root says it is (TLFS, "Guest OS Identity MSR"): bit 63 open source, bits 62:56 the kind of system (0x50,
/// which nobody has), bits 47:16 the version, bits 15:0 the build.
const GUEST_OS_ID: u64 = 1 << 63 | 0x50 << 56 | 0x0001_0000 << 16;

static PAGE: AtomicU64 = AtomicU64::new(0);

/// The way to make hypercalls; it exists once [`init`] has run.
#[derive(Clone, Copy, Debug)]
pub struct HypercallPage {
    address: u64,
}

/// Establishes the hypercall page.
pub(super) fn init() -> Result<(), PagingError> {
    // SAFETY: the identity is only a number.
    unsafe { write_msr(msr::GUEST_OS_ID, GUEST_OS_ID) };
    let address = page_msr::enable(msr::HYPERCALL, Access::CODE)?;
    PAGE.store(address, Ordering::Release);
    Ok(())
}

/// The hypercall page.
///
/// # Panics
/// Before the hypervisor's interface has been initialised.
pub fn hypercalls() -> HypercallPage {
    let address = PAGE.load(Ordering::Acquire);
    assert!(address != 0, "no hypercall page yet");
    HypercallPage { address }
}

impl HypercallPage {
    /// Makes one call with three raw words.
    ///
    /// # Safety
    /// The words must describe a call that the caller means, with parameter pages that nothing else uses meanwhile.
    #[inline(always)]
    pub unsafe fn call(self, control: u64, input: u64, output: u64) -> u64 {
        let result;
        // SAFETY: the page holds the hypervisor's code, which returns and clobbers the registers named (TLFS, "Hypercall
        // Interface"); the caller vouches for the call.
        unsafe {
            asm!(
                "call {page}",
                page = in(reg) self.address,
                out("rax") result,
                inout("rcx") control => _,
                inout("rdx") input => _,
                inout("r8") output => _,
                out("r9") _, out("r10") _, out("r11") _,
            );
        }
        result
    }
}

impl Hypercalls for HypercallPage {
    unsafe fn issue(&self, control: HypercallInput, input: &[u8], output: &mut [u8]) -> HypercallResult {
        without_interrupts(|| {
            let pages = &local().parameters;
            pages.set_input(input);
            // SAFETY: the pages are this processor's, and no task or interrupt comes in between; the rest is the caller's.
            let result = unsafe { self.call(control.0, pages.input(), pages.output()) };
            pages.copy_output(output);
            HypercallResult(result)
        })
    }

    unsafe fn issue_parts(
        &self,
        control: HypercallInput,
        parts: [&[u8]; 3],
        output: &mut [u8],
    ) -> HypercallResult {
        without_interrupts(|| {
            let pages = &local().parameters;
            pages.set_input_parts(parts);
            // SAFETY: as above.
            let result = unsafe { self.call(control.0, pages.input(), pages.output()) };
            pages.copy_output(output);
            HypercallResult(result)
        })
    }

    unsafe fn issue_fast(&self, control: HypercallInput, first: u64, second: u64) -> HypercallResult {
        // SAFETY: the caller vouches for the call; it has no parameter pages.
        HypercallResult(unsafe { self.call(control.0, first, second) })
    }
}
