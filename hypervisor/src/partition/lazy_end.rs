//! Ends of interrupts that a guest need not tell (TLFS, "Virtual Interrupt Control": EOI assist, by the VP assist page).
//!
//! While one edge-triggered interrupt is in service and nothing else waits, its EOI would change nothing that anybody sees.
//! The hypervisor says so by a bit in the VP assist page; the guest clears the bit in place of writing EOI. As soon as it
//! matters whether the interrupt has ended, [`Vp::settle_end`] takes the bit back and finds out.

use super::guest_memory;
use super::vp::Vp;
use core::sync::atomic::Ordering;
use hypercall_api::msr::PageMsr;

/// APIC assist word of the page, and its bit "no EOI required".
const APIC_ASSIST: usize = 0;
const NO_END_REQUIRED: u32 = 1;

impl Vp {
    /// Spares the guest the end of `vector`, which is being delivered, where that makes no difference. Root devices share
    /// lines that only an EOI unmasks, so the root always tells.
    pub(super) fn spare_end(&mut self, vector: u8) {
        if PageMsr(self.assist_page).is_enabled()
            && self.partition.has_parent()
            && self.apic.has_only_in_service(vector)
            && !self.shared.is_level(vector)
        {
            self.is_end_spared = self
                .assist_word(|word| word.fetch_or(NO_END_REQUIRED, Ordering::AcqRel))
                .is_some();
        }
    }

    /// Finds out whether an interrupt whose end was spared has ended, and has the guest tell it from now on. Must come before
    /// anything looks at what is in service.
    #[inline]
    pub fn settle_end(&mut self) {
        if self.is_end_spared {
            self.take_back();
        }
    }

    #[cold]
    fn take_back(&mut self) {
        self.is_end_spared = false;
        let before = self.assist_word(|word| word.fetch_and(!NO_END_REQUIRED, Ordering::AcqRel));
        // Where the page is gone, the guest cannot have been told to wait.
        if before.is_none_or(|word| word & NO_END_REQUIRED == 0) {
            self.end_of_interrupt();
        }
    }

    fn assist_word(&self, work: impl FnOnce(&core::sync::atomic::AtomicU32) -> u32) -> Option<u32> {
        let page = PageMsr(self.assist_page).page();
        self.partition
            .with_frame(page, |frame| work(guest_memory::frame_word(frame, APIC_ASSIST)))
    }
}
