//! The entry points of all 256 vectors, each on a stack of the interrupt stack table, because the precompiled `core` keeps
//! data below the stack pointer.
//!
//! An interrupt (vectors 32 and up) does no more than set its bit among the processor's pending ones and end itself at the
//! APIC; the executor's loop sees the bit and wakes whoever waits. So no Rust code runs in interrupt context, no lock
//! needs interrupts off, and no XMM register needs saving. Nothing is lost by waiting: a task that is woken runs after the
//! current one yields anyway.
#![allow(unsafe_code)]

use super::{apic, exception, local};
use core::arch::global_asm;

/// Number of vectors.
pub const VECTORS: usize = 256;
/// First vector that is an interrupt.
pub const FIRST_INTERRUPT: usize = 32;
/// Bytes between two entry points.
const STRIDE: u64 = 8;
/// Exceptions that push an error code: 8, 10–14, 17, 21, 29, 30 (APM 2, 8.2).
const WITH_ERROR_CODE: u32 = 1 << 8 | 0x1f << 10 | 1 << 17 | 1 << 21 | 1 << 29 | 1 << 30;

global_asm!(
    r#"
    .text
    .balign 16
root_exceptions:
    .rept 32
    .balign 8
    call root_exception
    .endr

    .balign 16
root_interrupts:
    .rept 224
    .balign 8
    call root_interrupt
    .endr

    /* The return address tells the vector: base + 8 * n + 5. */
    .balign 16
root_interrupt:
    xchg rax, [rsp]
    push rcx
    push rdx
    lea rcx, [rip + root_interrupts]
    sub rax, rcx
    shr rax, 3
    add rax, {first}
    lock bts qword ptr gs:[{pending}], rax
    mov ecx, {eoi}
    xor eax, eax
    xor edx, edx
    wrmsr
    pop rdx
    pop rcx
    pop rax
    iretq

    .balign 16
root_exception:
    xchg rax, [rsp]
    push rcx
    lea rcx, [rip + root_exceptions]
    sub rax, rcx
    shr rax, 3
    mov ecx, {with_error_code}
    bt ecx, eax
    jc 1f
    push [rsp]                  /* make room for an error code of 0 under the saved RAX and RCX */
    mov rcx, [rsp + 16]
    mov [rsp + 8], rcx
    mov qword ptr [rsp + 16], 0
1:  push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    push rax
    cld
    mov rdi, rsp
    mov rbp, rsp
    sub rsp, 512
    and rsp, -16
    fxsave64 [rsp]
    call {handle}
    fxrstor64 [rsp]
    mov rsp, rbp
    add rsp, 8
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 8
    iretq
"#,
    first = const FIRST_INTERRUPT,
    pending = const local::PENDING_OFFSET,
    eoi = const apic::EOI,
    with_error_code = const WITH_ERROR_CODE,
    handle = sym exception::handle,
);

unsafe extern "C" {
    static root_exceptions: u8;
    static root_interrupts: u8;
}

/// Address of the entry point of `vector`.
pub fn entry(vector: u8) -> u64 {
    let vector = u64::from(vector);
    let first = FIRST_INTERRUPT as u64;
    match vector.checked_sub(first) {
        None => (&raw const root_exceptions) as u64 + vector * STRIDE,
        Some(interrupt) => (&raw const root_interrupts) as u64 + interrupt * STRIDE,
    }
}
