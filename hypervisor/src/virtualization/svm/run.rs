//! The instructions around VMRUN.
#![allow(unsafe_code)]

use crate::memory::address::Spa;
use crate::virtualization::GuestRegisters;
use core::arch::{asm, naked_asm};
use core::mem::offset_of;

/// Saves what VMLOAD brings back into this processor: FS, GS, TR, LDTR, KernelGSbase and the SYSCALL and SYSENTER MSRs.
///
/// # Safety
/// SVM must be on, and `state` be a frame of the hypervisor's own.
pub(super) unsafe fn save_host_state(state: Spa) {
    // SAFETY: VMSAVE writes that frame only.
    unsafe { asm!("vmsave rax", in("rax") state.0, options(nostack)) }
}

/// Runs the guest of the VMCB at `vmcb` until it exits. General registers but RAX and RSP, and the XMM registers, are
/// those of `registers`, before and after.
///
/// Interrupts are on while the guest runs, so that they exit whatever its own flag says, but the global interrupt flag
/// keeps them from the host until the caller opens a window.
///
/// # Safety
/// The VMCB must be the hypervisor's own, `host_state` what [`save_host_state`] filled on this processor.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn run(vmcb: Spa, registers: &mut GuestRegisters, host_state: Spa) {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rdx",
        "push rsi",
        "clgi",
        "sti",
        "mov rax, rdi",
        "vmload rax",
        "movaps xmm0, [rsi + {xmm} + 0x00]",
        "movaps xmm1, [rsi + {xmm} + 0x10]",
        "movaps xmm2, [rsi + {xmm} + 0x20]",
        "movaps xmm3, [rsi + {xmm} + 0x30]",
        "movaps xmm4, [rsi + {xmm} + 0x40]",
        "movaps xmm5, [rsi + {xmm} + 0x50]",
        "movaps xmm6, [rsi + {xmm} + 0x60]",
        "movaps xmm7, [rsi + {xmm} + 0x70]",
        "movaps xmm8, [rsi + {xmm} + 0x80]",
        "movaps xmm9, [rsi + {xmm} + 0x90]",
        "movaps xmm10, [rsi + {xmm} + 0xa0]",
        "movaps xmm11, [rsi + {xmm} + 0xb0]",
        "movaps xmm12, [rsi + {xmm} + 0xc0]",
        "movaps xmm13, [rsi + {xmm} + 0xd0]",
        "movaps xmm14, [rsi + {xmm} + 0xe0]",
        "movaps xmm15, [rsi + {xmm} + 0xf0]",
        "mov rcx, [rsi + {general} + 0x08]",
        "mov rdx, [rsi + {general} + 0x10]",
        "mov rbx, [rsi + {general} + 0x18]",
        "mov rbp, [rsi + {general} + 0x28]",
        "mov rdi, [rsi + {general} + 0x38]",
        "mov r8,  [rsi + {general} + 0x40]",
        "mov r9,  [rsi + {general} + 0x48]",
        "mov r10, [rsi + {general} + 0x50]",
        "mov r11, [rsi + {general} + 0x58]",
        "mov r12, [rsi + {general} + 0x60]",
        "mov r13, [rsi + {general} + 0x68]",
        "mov r14, [rsi + {general} + 0x70]",
        "mov r15, [rsi + {general} + 0x78]",
        "mov rsi, [rsi + {general} + 0x30]",
        "vmrun rax",
        "vmsave rax",
        "mov rax, [rsp]",
        "mov [rax + {general} + 0x08], rcx",
        "mov [rax + {general} + 0x10], rdx",
        "mov [rax + {general} + 0x18], rbx",
        "mov [rax + {general} + 0x28], rbp",
        "mov [rax + {general} + 0x30], rsi",
        "mov [rax + {general} + 0x38], rdi",
        "mov [rax + {general} + 0x40], r8",
        "mov [rax + {general} + 0x48], r9",
        "mov [rax + {general} + 0x50], r10",
        "mov [rax + {general} + 0x58], r11",
        "mov [rax + {general} + 0x60], r12",
        "mov [rax + {general} + 0x68], r13",
        "mov [rax + {general} + 0x70], r14",
        "mov [rax + {general} + 0x78], r15",
        "movaps [rax + {xmm} + 0x00], xmm0",
        "movaps [rax + {xmm} + 0x10], xmm1",
        "movaps [rax + {xmm} + 0x20], xmm2",
        "movaps [rax + {xmm} + 0x30], xmm3",
        "movaps [rax + {xmm} + 0x40], xmm4",
        "movaps [rax + {xmm} + 0x50], xmm5",
        "movaps [rax + {xmm} + 0x60], xmm6",
        "movaps [rax + {xmm} + 0x70], xmm7",
        "movaps [rax + {xmm} + 0x80], xmm8",
        "movaps [rax + {xmm} + 0x90], xmm9",
        "movaps [rax + {xmm} + 0xa0], xmm10",
        "movaps [rax + {xmm} + 0xb0], xmm11",
        "movaps [rax + {xmm} + 0xc0], xmm12",
        "movaps [rax + {xmm} + 0xd0], xmm13",
        "movaps [rax + {xmm} + 0xe0], xmm14",
        "movaps [rax + {xmm} + 0xf0], xmm15",
        "mov rax, [rsp + 8]",
        "vmload rax",
        "cli",
        "stgi",
        "pop rsi",
        "pop rdx",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "cld",
        "ret",
        general = const offset_of!(GuestRegisters, general),
        xmm = const offset_of!(GuestRegisters, xmm),
    )
}
