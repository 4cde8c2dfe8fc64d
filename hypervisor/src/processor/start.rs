//! Bringing the other processors up: INIT, SIPI, a trampoline below 1 MiB (SDM 3, "MP Initialization Protocol").
#![allow(unsafe_code)]

use super::local::Processor;
use super::stacks::Stack;
use crate::platform::clock;
use crate::platform::local_apic::{self, Ipi};
use crate::platform::registers::tsc;
use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, Ordering};

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
    mov cr0, eax                    /* straight into long mode */
    .byte 0x66, 0xff, 0x2e          /* jmp far m16:32 */
    .word {target}
    .code64
trampoline_long:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    mov rsp, qword ptr [rip + trampoline_stack]
    mov rdi, qword ptr [rip + trampoline_argument]
    xor ebp, ebp
    call qword ptr [rip + trampoline_entry]
    ud2
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

/// APIC id + 1 of the processor that came up last.
static ARRIVED: AtomicU32 = AtomicU32::new(0);
/// How long a processor may take to come up, in 100 ns: ten seconds, for slow emulators on busy hosts.
const PATIENCE: u64 = 100_000_000;

/// The page below 1 MiB from which processors start.
pub struct Trampoline {
    page: u64,
}

impl Trampoline {
    /// Puts the code into the page at physical address `page`, below 1 MiB. `boot_page_table` is a table below 4 GiB that
    /// maps that page and the hypervisor one to one, with everything executable.
    ///
    /// # Safety
    /// The page must be RAM that nobody uses while this lives, and mapped writable.
    pub unsafe fn new(page: u64, boot_page_table: u32) -> Self {
        let trampoline = Self { page };
        // SAFETY: the symbols bound the code above, and the page is ours.
        unsafe {
            let size = &raw const trampoline_end as usize - &raw const trampoline_start as usize;
            core::ptr::copy_nonoverlapping(&raw const trampoline_start, page as *mut u8, size);
            let long = &raw const trampoline_long as u64 - &raw const trampoline_start as u64;
            trampoline.put(offset::GDT_POINTER + 2, (page + offset::GDT) as u32);
            trampoline.put(offset::TARGET, (page + long) as u32);
            trampoline.put(offset::CR3, boot_page_table);
        }
        trampoline
    }

    /// # Safety
    /// `offset` must be of a parameter as large as `T`.
    unsafe fn put<T>(&self, offset: u64, value: T) {
        // SAFETY: the parameter lies in our page.
        unsafe { ((self.page + offset) as *mut T).write_unaligned(value) }
    }

    /// Starts the processor that `processor` describes, at `entry`, on its own work stack. Returns whether it came up.
    pub fn start(
        &self,
        processor: &'static Processor,
        entry: extern "C" fn(&'static Processor) -> !,
    ) -> bool {
        // SAFETY: the fields are the trampoline's; the processor that reads them has not been started yet.
        unsafe {
            self.put(offset::STACK, processor.stacks.top(Stack::Work));
            self.put(offset::ARGUMENT, processor as *const Processor as u64);
            self.put(offset::ENTRY, entry as usize as u64);
        }
        core::sync::atomic::fence(Ordering::SeqCst);
        local_apic::send(processor.apic_id, Ipi::Init);
        pause(100_000);
        for _ in 0..2 {
            local_apic::send(processor.apic_id, Ipi::Startup((self.page >> 12) as u8));
            if self.wait_for(processor.apic_id, 20_000) {
                return true;
            }
        }
        self.wait_for(processor.apic_id, PATIENCE)
    }

    fn wait_for(&self, apic_id: u32, patience: u64) -> bool {
        let deadline = tsc().saturating_add(clock::tsc_ticks(patience));
        while tsc() < deadline {
            if ARRIVED.load(Ordering::Acquire) == apic_id + 1 {
                return true;
            }
            core::hint::spin_loop();
        }
        false
    }
}

/// Tells the starting processor that the one with `apic_id` runs.
pub fn arrived(apic_id: u32) {
    ARRIVED.store(apic_id + 1, Ordering::Release);
}

/// Spins for `units` of 100 ns.
fn pause(units: u64) {
    let deadline = tsc().saturating_add(clock::tsc_ticks(units));
    while tsc() < deadline {
        core::hint::spin_loop();
    }
}
