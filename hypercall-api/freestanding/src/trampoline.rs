//! The code in which a processor starts: from real mode at a page below 1 MiB straight into long mode (SDM 3, "MP
//! Initialization Protocol").
#![allow(unsafe_code)]

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};

/// Offsets of the trampoline's parameters, which stand before its code.
mod offset {
    pub(super) const CR3: u64 = 0x08;
    pub(super) const STACK: u64 = 0x10;
    pub(super) const ARGUMENT: u64 = 0x18;
    pub(super) const ENTRY: u64 = 0x20;
    pub(super) const GDT_POINTER: u64 = 0x28;
    pub(super) const TARGET: u64 = 0x30;
    pub(super) const GDT: u64 = 0x40;
}

global_asm!(
    r#"
    .section .rodata.trampoline, "a", @progbits
    .balign 16
    .globl trampoline_start
trampoline_start:
    .code16
    jmp 1f
    .balign 8
    .quad 0                         /* CR3 */
trampoline_stack:
    .quad 0
trampoline_argument:
    .quad 0
trampoline_entry:
    .quad 0
    .word 23                        /* GDT pointer */
    .long 0
    .word 0
    .long 0                         /* target of the far jump */
    .word 8
    .balign 64
    .quad 0                         /* GDT */
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
1:  cli
    cld
    mov ax, cs
    mov ds, ax
    mov eax, 0x620                  /* CR4: PAE, OSFXSR, OSXMMEXCPT */
    mov cr4, eax
    mov eax, dword ptr ds:[{cr3}]
    mov cr3, eax
    mov ecx, 0xc0000080             /* EFER: LME, NXE */
    xor edx, edx
    mov eax, 0x900
    wrmsr
    .byte 0x66                      /* all 32 bits of the base */
    lgdt ds:[{gdt_pointer}]
    mov eax, 0x80010033
    mov cr0, eax
    .byte 0x66, 0xff, 0x2e          /* jmp far m16:32 */
    .word {target}
    .code64
    .globl trampoline_long
trampoline_long:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor edi, edi                    /* whoever takes the argument, runs; the others wait for good */
    xchg rdi, qword ptr [rip + trampoline_argument]
    test rdi, rdi
    jz 2f
    xor eax, eax
    mov fs, eax
    mov gs, eax
    mov rsp, qword ptr [rip + trampoline_stack]
    xor ebp, ebp
    call qword ptr [rip + trampoline_entry]
2:  cli
    hlt
    jmp 2b
    .globl trampoline_end
trampoline_end:
    .text
"#,
    cr3 = const offset::CR3,
    gdt_pointer = const offset::GDT_POINTER,
    target = const offset::TARGET,
);

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_long: u8;
    static trampoline_end: u8;
}

/// The code in its page.
pub struct Trampoline {
    page: u64,
}

impl Trampoline {
    /// Puts the code into `page`, below 1 MiB; processors start with the page tables at `cr3`.
    ///
    /// # Safety
    /// The page must be mapped writable and executable, and nobody else's for good.
    pub unsafe fn new(page: u64, cr3: u64) -> Self {
        let trampoline = Self { page };
        // SAFETY: the symbols bound the code above, and the page is ours.
        unsafe {
            let size = &raw const trampoline_end as usize - &raw const trampoline_start as usize;
            core::ptr::copy_nonoverlapping(&raw const trampoline_start, page as *mut u8, size);
            let long = &raw const trampoline_long as u64 - &raw const trampoline_start as u64;
            trampoline.put(offset::GDT_POINTER + 2, (page + offset::GDT) as u32);
            trampoline.put(offset::TARGET, (page + long) as u32);
            trampoline.put(offset::CR3, cr3);
        }
        trampoline
    }

    /// # Safety
    /// `offset` must be of a parameter as large as `T`.
    unsafe fn put<T>(&self, offset: u64, value: T) {
        // SAFETY: the parameter lies in our page.
        unsafe { ((self.page + offset) as *mut T).write_unaligned(value) }
    }

    /// Number of the page, as a startup IPI takes it.
    pub fn vector(&self) -> u8 {
        (self.page >> 12) as u8
    }

    /// Lets the next processor that starts call `entry` with `argument`, which is not 0, on the stack that ends at `stack`.
    pub fn arm(&self, stack: u64, argument: u64, entry: u64) {
        // SAFETY: these are the trampoline's parameters; no processor reads them before the argument is there.
        unsafe {
            self.put(offset::STACK, stack);
            self.put(offset::ENTRY, entry);
        }
        self.argument().store(argument, Ordering::SeqCst);
    }

    /// Whether a processor has taken the argument. Where none has, none will.
    pub fn disarm(&self) -> bool {
        self.argument().swap(0, Ordering::SeqCst) == 0
    }

    /// Whether a processor has taken the argument so far.
    pub fn is_taken(&self) -> bool {
        self.argument().load(Ordering::SeqCst) == 0
    }

    fn argument(&self) -> &AtomicU64 {
        // SAFETY: the parameter is aligned, in our page, and only used as an atomic once processors start.
        unsafe { AtomicU64::from_ptr((self.page + offset::ARGUMENT) as *mut u64) }
    }
}
