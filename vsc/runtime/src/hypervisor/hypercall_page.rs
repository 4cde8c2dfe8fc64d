//! Hypercalls by the hypercall page (TLFS, "Establishing the Hypercall Interface"). The page is one of the image's own, in
//! its code: the hypervisor lays its instructions over it.
#![allow(unsafe_code)]

use crate::processor::instruction::{read_msr, write_msr};
use crate::processor::local::processor;
use core::arch::{asm, global_asm};
use hypercall_api::address::Gpfn;
use hypercall_api::call::Hypercalls;
use hypercall_api::control::{HypercallInput, HypercallResult};
use hypercall_api::msr::{self, PageMsr};
use x86_64::instructions::interrupts::without_interrupts;

/// What the guest says it is (TLFS, "Guest OS Identity MSR"): bit 63 open source, bits 62:56 the kind of system (0x51, which
/// nobody has), bits 47:16 the version.
pub const GUEST_OS_ID: u64 = 1 << 63 | 0x51 << 56 | 0x0001_0000 << 16;

const PAGE: usize = 4096;

global_asm!(
    r#"
    .section .text.hypercall_page, "ax", @progbits
    .balign 4096
    .globl guest_hypercall_page
guest_hypercall_page:
    ud2
    .balign 4096
    .text
"#
);

unsafe extern "C" {
    static guest_hypercall_page: u8;
}

/// The way to make hypercalls; it exists once the page is enabled.
#[derive(Clone, Copy, Debug)]
pub struct HypercallPage(());

/// Address of the page.
pub fn address() -> u64 {
    &raw const guest_hypercall_page as u64
}

/// Tells who the guest is and enables the page.
pub fn init() -> HypercallPage {
    // SAFETY: the identity is only a number, and the page is there for this.
    unsafe {
        write_msr(msr::GUEST_OS_ID, GUEST_OS_ID);
        let kept = read_msr(msr::HYPERCALL) & 0xffc;
        write_msr(
            msr::HYPERCALL,
            PageMsr::enable(Gpfn(address() / PAGE as u64)).0 | kept,
        );
    }
    HypercallPage(())
}

impl HypercallPage {
    /// Makes one call with three raw words, and returns the result value.
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
                "call guest_hypercall_page",
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
        // SAFETY: the caller vouches for the call.
        unsafe { self.issue_parts(control, [input, &[], &[]], output) }
    }

    unsafe fn issue_parts(
        &self,
        control: HypercallInput,
        parts: [&[u8]; 3],
        output: &mut [u8],
    ) -> HypercallResult {
        assert!(parts.iter().map(|part| part.len()).sum::<usize>() <= PAGE && output.len() <= PAGE);
        without_interrupts(|| {
            let pages = processor().parameters;
            let output_page = pages + PAGE as u64;
            let mut place = pages as *mut u8;
            // SAFETY: the pages are this processor's, with interrupts off nothing comes in between, and the lengths were
            // checked; the rest is the caller's.
            unsafe {
                for part in parts {
                    core::ptr::copy_nonoverlapping(part.as_ptr(), place, part.len());
                    place = place.add(part.len());
                }
                let result = self.call(control.0, pages, output_page);
                core::ptr::copy_nonoverlapping(output_page as *const u8, output.as_mut_ptr(), output.len());
                HypercallResult(result)
            }
        })
    }

    unsafe fn issue_fast(&self, control: HypercallInput, first: u64, second: u64) -> HypercallResult {
        // SAFETY: the caller vouches for the call; it has no parameter pages.
        HypercallResult(unsafe { self.call(control.0, first, second) })
    }
}
