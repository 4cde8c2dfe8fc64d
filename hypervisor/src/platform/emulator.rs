//! What QEMU's own emulation of processors (TCG) gets wrong, where the hypervisor must do without.
//!
//! Whenever any processor loads x87 state (FXRSTOR, XRSTOR, FNINIT, FLDENV), QEMU clears IGNNE# of its *first* processor by
//! an unlocked read-modify-write of that processor's `hflags2` (`cpu_clear_ignne`). The same word holds its GIF, its V_INTR
//! masking and whether nested paging is on, so that a change of these which falls into the window is undone: the host runs
//! through a guest's nested page tables (and QEMU saves the host's state as the guest's), or the global interrupt flag
//! stays off. Guests load x87 state when they like, so nothing but leaving that processor alone helps.
//!
//! An interrupt that VMRUN injects is delivered, but QEMU keeps its vector in `exception_index` as one that is still to be (`helper_vmrun`,
//! `SVM_EVTINJ_TYPE_INTR`). Should the emulating thread be called, or its share of instructions end, before the guest's next exit, then
//! the vector is delivered once more, whatever the guest's IF says. A handler on a stack of the interrupt stack table that is entered
//! again has lost its frame. Injected as a software interrupt the vector is not kept; but that a program may be refused by its IDT, so what
//! interrupts a guest's user mode may still come twice.

use super::registers::cpuid;

/// Whether the processors are TCG's.
fn is_tcg() -> bool {
    const SIGNATURE: [u32; 3] = [
        u32::from_le_bytes(*b"TCGT"),
        u32::from_le_bytes(*b"CGTC"),
        u32::from_le_bytes(*b"GTCG"),
    ];
    const HYPERVISOR_PRESENT: u32 = 1 << 31;
    if cpuid(1, 0).ecx & HYPERVISOR_PRESENT == 0 {
        return false;
    }
    let leaf = cpuid(0x4000_0000, 0);
    [leaf.ebx, leaf.ecx, leaf.edx] == SIGNATURE
}

/// Whether the first of `present` processors must not run guests. One that is alone has nobody who disturbs it.
pub fn spares_first_processor(present: usize) -> bool {
    present > 1 && is_tcg()
}

/// Whether an interrupt that is injected as an external one may be delivered twice.
pub fn repeats_injected_interrupts() -> bool {
    is_tcg()
}
