//! The entry points of all 256 vectors, each on a stack of the interrupt stack table. They save all that a Rust function may
//! change, the upper halves of the YMM registers aside: code that is built for the baseline does not touch those.
#![allow(unsafe_code)]

use super::exception;
use core::arch::global_asm;

/// Number of vectors.
pub(super) const VECTORS: usize = 256;
/// Bytes between two entry points.
const STRIDE: u64 = 8;
/// Exceptions that push an error code: 8, 10–14, 17, 21, 29, 30 (APM 2, 8.2).
const WITH_ERROR_CODE: u32 = 1 << 8 | 0x1f << 10 | 1 << 17 | 1 << 21 | 1 << 29 | 1 << 30;

global_asm!(
    r#"
    .text
    .balign 16
    .globl guest_vectors
guest_vectors:
    .rept 256
    .balign 8
    call guest_vector           /* the return address tells the vector: base + 8 * n + 5 */
    .endr

    .balign 16
guest_vector:
    xchg rax, [rsp]
    push rcx
    lea rcx, [rip + guest_vectors]
    sub rax, rcx
    shr rax, 3
    cmp eax, 32
    jae 1f
    mov ecx, {with_error_code}
    bt ecx, eax
    jc 2f
1:  push [rsp]                  /* make room for an error code of 0 under the saved RAX and RCX */
    mov rcx, [rsp + 16]
    mov [rsp + 8], rcx
    mov qword ptr [rsp + 16], 0
2:  push rdx
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
    with_error_code = const WITH_ERROR_CODE,
    handle = sym exception::handle,
);

unsafe extern "C" {
    static guest_vectors: u8;
}

/// Address of the entry point of `vector`.
pub(super) fn entry(vector: u8) -> u64 {
    (&raw const guest_vectors) as u64 + u64::from(vector) * STRIDE
}
