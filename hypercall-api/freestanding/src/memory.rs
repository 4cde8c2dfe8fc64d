//! The C memory functions: string instructions, which processors are fast at, by words, as an emulator that counts
//! instructions counts each repetition. No function here touches an XMM register.
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
    shr rcx, 3
    rep movsq
    mov ecx, edx
    and ecx, 7
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
    shr rcx, 3
    rep movsq
    mov ecx, edx
    and ecx, 7
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
    movzx eax, sil
    movabs rcx, 0x0101010101010101
    imul rax, rcx
    mov rcx, rdx
    shr rcx, 3
    rep stosq
    mov ecx, edx
    and ecx, 7
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
