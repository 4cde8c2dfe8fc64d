//! The C memory functions. `rep movsb` and `rep stosb` are what processors with ERMS are fastest at, and one
//! instruction a byte string is what an instruction count likes best. No function here touches an XMM register.
#![allow(unsafe_code)]

use core::arch::global_asm;

global_asm!(
    r#"
    .section .text.memory, "ax", @progbits

    .global memcpy
    .type memcpy, @function
memcpy:
    mov rax, rdi
    mov rcx, rdx
    rep movsb
    ret

    .global memmove
    .type memmove, @function
memmove:
    mov rax, rdi
    mov rcx, rdi
    sub rcx, rsi
    cmp rcx, rdx                /* unsigned: below when the target starts inside the source */
    mov rcx, rdx
    jb 1f
    rep movsb
    ret
1:  lea rdi, [rdi + rdx - 1]
    lea rsi, [rsi + rdx - 1]
    std
    rep movsb
    cld
    ret

    .global memset
    .type memset, @function
memset:
    mov r8, rdi
    mov eax, esi
    mov rcx, rdx
    rep stosb
    mov rax, r8
    ret

    .global memcmp
    .type memcmp, @function
    .global bcmp
    .type bcmp, @function
memcmp:
bcmp:
    xor eax, eax
    mov rcx, rdx
    cmp rcx, rcx                /* equal when the length is zero */
    repe cmpsb
    je 2f
    movzx eax, byte ptr [rdi - 1]
    movzx ecx, byte ptr [rsi - 1]
    sub eax, ecx
2:  ret

    .global strlen
    .type strlen, @function
strlen:
    xor eax, eax
3:  cmp byte ptr [rdi + rax], 0
    je 4f
    inc rax
    jmp 3b
4:  ret
"#
);
