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
use freestanding::exception::{FIRST_INTERRUPT, STRIDE};

freestanding::entry_points!("root_exceptions", 32, exception::handle);

global_asm!(
    r#"
    .text
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
"#,
    first = const FIRST_INTERRUPT,
    pending = const local::PENDING_OFFSET,
    eoi = const apic::EOI,
);

unsafe extern "C" {
    static root_exceptions: u8;
    static root_interrupts: u8;
}

/// Address of the entry point of `vector`.
pub fn entry(vector: u8) -> u64 {
    let vector = u64::from(vector);
    let first = u64::from(FIRST_INTERRUPT);
    match vector.checked_sub(first) {
        None => (&raw const root_exceptions) as u64 + vector * STRIDE,
        Some(interrupt) => (&raw const root_interrupts) as u64 + interrupt * STRIDE,
    }
}
