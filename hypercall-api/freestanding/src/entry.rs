//! The boot stub that every image shares: from PVH's 32-bit entry (or multiboot2's, which is alike) to 64-bit Rust.
//!
//! The stub maps the first 4 GiB one to one with 2 MiB pages, turns on SSE (the precompiled `core` uses it), takes a
//! stack of its own and calls the image's
//! `extern "C" fn image_main(boot_info: u32, magic: u32) -> !`, where `boot_info` is the physical address of the boot
//! loader's structure and `magic` is 0 for PVH or multiboot2's `0x36d7_6289`. Interrupts are off. The map and the
//! stack are meant to be replaced by the image's own.
#![allow(unsafe_code)]

use core::arch::global_asm;

/// `magic` of an image that was started by multiboot2.
pub const MULTIBOOT2_MAGIC: u32 = 0x36d7_6289;

/// Bytes of stack that the stub gives `image_main`: the hypervisor plans its memory on it, which takes some 60 KiB where the
/// compiler optimizes little. Below it are the page tables: it must not overflow.
pub const BOOT_STACK_SIZE: usize = 128 * 1024;

global_asm!(
    r#"
    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 8, 18              /* XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .quad pvh_entry

    .section .boot.text, "ax", @progbits
    .code32
    .global pvh_entry
pvh_entry:
    xor eax, eax
    .global multiboot2_entry
multiboot2_entry:
    cli
    cld
    mov esp, offset boot_stack_end
    mov ebp, eax                /* magic */
    mov esi, ebx                /* boot information */

    mov edi, offset boot_directories
    mov eax, 0x83               /* present, writable, 2 MiB */
    mov ecx, 2048
1:  mov dword ptr [edi], eax
    mov dword ptr [edi + 4], 0
    add eax, 0x200000
    add edi, 8
    dec ecx
    jnz 1b

    mov edi, offset boot_pointers
    mov eax, offset boot_directories + 3
    mov ecx, 4
2:  mov dword ptr [edi], eax
    mov dword ptr [edi + 4], 0
    add eax, 0x1000
    add edi, 8
    dec ecx
    jnz 2b

    mov eax, offset boot_pointers + 3
    mov dword ptr [boot_root], eax
    mov dword ptr [boot_root + 4], 0

    mov eax, offset boot_root
    mov cr3, eax
    mov eax, 0x620              /* CR4: PAE, OSFXSR, OSXMMEXCPT */
    mov cr4, eax
    mov ecx, 0xc0000080         /* EFER: LME, NXE */
    xor edx, edx
    mov eax, 0x900
    wrmsr
    mov eax, 0x80010033         /* CR0: PG, WP, NE, ET, MP, PE; EM and TS clear */
    mov cr0, eax
    lgdt [boot_gdt_pointer]
    push 0x08
    mov eax, offset boot_long_mode
    push eax
    retf

    .code64
boot_long_mode:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    mov rsp, offset boot_stack_end
    mov edi, esi
    mov esi, ebp
    xor ebp, ebp
    call image_main
3:  hlt
    jmp 3b

    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff    /* 64-bit code */
    .quad 0x00cf93000000ffff    /* data */
boot_gdt_pointer:
    .word 23
    .long boot_gdt

    .section .bss.boot, "aw", @nobits
    .balign 4096
    .global boot_root
boot_root:
    .skip 4096
boot_pointers:
    .skip 4096
boot_directories:
    .skip 16384
    .global boot_stack_start
boot_stack_start:
    .skip {stack}
    .global boot_stack_end
boot_stack_end:
    .text
"#,
    stack = const BOOT_STACK_SIZE,
);
