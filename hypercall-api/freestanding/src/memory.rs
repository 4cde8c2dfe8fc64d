//! The C memory functions. Processors are fastest at string instructions where there is much to copy, whatever the unit; emulators that
//! count instructions count one a unit, so the unit is the largest. Short copies, which most are, do without the string instructions' start.
//! No function here touches an XMM register.
#![allow(unsafe_code)]

use core::arch::global_asm;

global_asm!(
    r#"
    .section .text.memory, "ax", @progbits

    .global memcpy
    .type memcpy, @function
    .global memmove
    .type memmove, @function
memmove:
    mov rcx, rdi
    sub rcx, rsi
    cmp rcx, rdx                /* unsigned: below when the target starts inside the source */
    jb 6f
memcpy:
    mov rax, rdi
    cmp rdx, 8
    jb 3f
    mov r8, [rsi + rdx - 8]     /* the last word, which may overlap those before: read before anything is written */
    cmp rdx, 32
    ja 1f
    cmp rdx, 16
    jbe 2f
    mov rcx, [rsi]
    mov r9, [rsi + 8]
    mov r10, [rsi + rdx - 16]
    mov [rdi], rcx
    mov [rdi + 8], r9
    mov [rdi + rdx - 16], r10
    mov [rdi + rdx - 8], r8
    ret
1:  lea rcx, [rdx - 1]
    shr rcx, 3
    rep movsq
    mov [rax + rdx - 8], r8
    ret
2:  mov rcx, [rsi]
    mov [rdi], rcx
    mov [rdi + rdx - 8], r8
    ret
3:  cmp edx, 4
    jb 4f
    mov ecx, [rsi]
    mov r8d, [rsi + rdx - 4]
    mov [rdi], ecx
    mov [rdi + rdx - 4], r8d
    ret
4:  test edx, edx
    jz 5f
    movzx ecx, byte ptr [rsi]
    movzx r8d, byte ptr [rsi + rdx - 1]
    shr edx
    movzx r9d, byte ptr [rsi + rdx]
    mov [rdi + rdx], r9b
    mov [rdi], cl
    adc rdx, rdx
    mov [rdi + rdx - 1], r8b
5:  ret
6:  mov rax, rdi                /* from the end on */
    jmp 8f
7:  mov r8, [rsi + rdx]
    mov [rdi + rdx], r8
8:  sub rdx, 8
    jae 7b
    add rdx, 8
    jz 5b
9:  movzx ecx, byte ptr [rsi + rdx - 1]
    mov [rdi + rdx - 1], cl
    dec rdx
    jnz 9b
    ret

    .global memset
    .type memset, @function
memset:
    mov r8, rdi
    movzx eax, sil
    mov rcx, rdx
    cmp rdx, 8
    jb 1f
    mov r9, 0x0101010101010101
    imul rax, r9
    mov [rdi + rdx - 8], rax
    dec rcx
    shr rcx, 3
    rep stosq
    mov rax, r8
    ret
1:  rep stosb
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
