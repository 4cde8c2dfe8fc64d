//! Entry of exceptions and interrupts. The hypervisor runs with interrupts off and takes them in one window only
//! ([`take_pending`], [`wait`]), so a handler never meets a lock that the code under it holds.
#![allow(unsafe_code)]

use super::local::Processor;
use crate::device_interrupt;
use crate::iommu::fault;
use crate::platform::local_apic::{self, Ipi};
use crate::stop;
use core::arch::{asm, global_asm};
use core::fmt;
use core::sync::atomic::Ordering;

/// Non-maskable interrupt: another processor stops the machine.
pub const NMI: u8 = 2;
/// Double fault.
pub const DOUBLE_FAULT: u8 = 8;
/// First vector that a device can be given.
pub const FIRST_DEVICE_VECTOR: u8 = 0x20;
/// Last vector that a device can be given.
pub const LAST_DEVICE_VECTOR: u8 = 0xef;
/// The local APIC timer.
pub const ALARM_VECTOR: u8 = 0xf0;
/// Another processor wants this one to look at its work.
pub const POKE_VECTOR: u8 = 0xf1;
/// An IOMMU has refused something.
pub const FAULT_VECTOR: u8 = 0xf2;
/// Local APIC error.
pub const ERROR_VECTOR: u8 = 0xfe;
/// Spurious interrupt; needs no EOI.
pub const SPURIOUS_VECTOR: u8 = 0xff;

global_asm!(
    r#"
    .section .text.interrupts, "ax", @progbits
    .balign 16
interrupt_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)
    .else
    push 0
    .endif
    push vector
    jmp interrupt_common
    .set vector, vector + 1
    .endr

interrupt_common:
    push r15
    push r14
    push r13
    push r12
    push r11
    push r10
    push r9
    push r8
    push rbp
    push rdi
    push rsi
    push rdx
    push rcx
    push rbx
    push rax
    cld
    mov rdi, rsp
    mov rbp, rsp
    sub rsp, 512
    and rsp, -16
    fxsave64 [rsp]
    call {entered}
    fxrstor64 [rsp]
    mov rsp, rbp
    pop rax
    pop rbx
    pop rcx
    pop rdx
    pop rsi
    pop rdi
    pop rbp
    pop r8
    pop r9
    pop r10
    pop r11
    pop r12
    pop r13
    pop r14
    pop r15
    add rsp, 16
    iretq
    .text
"#,
    entered = sym entered,
);

unsafe extern "C" {
    static interrupt_stubs: [u8; 256 * 16];
}

/// Address of the entry stub of `vector`.
pub fn entry_address(vector: u8) -> u64 {
    &raw const interrupt_stubs as u64 + vector as u64 * 16
}

/// What the stub and the processor pushed.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(missing_docs)] // the names are the registers'
pub struct InterruptFrame {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub vector: u64,
    pub error_code: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

impl fmt::Display for InterruptFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cr2, cr3): (u64, u64);
        // SAFETY: reading CR2 and CR3 changes nothing.
        unsafe { asm!("mov {}, cr2", "mov {}, cr3", out(reg) cr2, out(reg) cr3, options(nomem, nostack)) };
        writeln!(
            f,
            "rip {:016x} rsp {:016x} rflags {:08x} error {:x}",
            self.rip, self.rsp, self.rflags, self.error_code
        )?;
        writeln!(
            f,
            "rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}",
            self.rax, self.rbx, self.rcx, self.rdx
        )?;
        writeln!(
            f,
            "rsi {:016x} rdi {:016x} rbp {:016x} r8  {:016x}",
            self.rsi, self.rdi, self.rbp, self.r8
        )?;
        writeln!(
            f,
            "r9  {:016x} r10 {:016x} r11 {:016x} r12 {:016x}",
            self.r9, self.r10, self.r11, self.r12
        )?;
        writeln!(
            f,
            "r13 {:016x} r14 {:016x} r15 {:016x}",
            self.r13, self.r14, self.r15
        )?;
        write!(f, "cr2 {cr2:016x} cr3 {cr3:016x}")
    }
}

extern "C" fn entered(frame: &mut InterruptFrame) {
    match frame.vector as u8 {
        NMI => stop::nmi(),
        vector @ 0..FIRST_DEVICE_VECTOR => stop::exception(vector, frame),
        vector => interrupt(vector),
    }
}

fn interrupt(vector: u8) {
    let processor = Processor::current();
    processor.last_vector.set(vector);
    match vector {
        SPURIOUS_VECTOR => return,
        // The alarm's owner looks at the clock by itself.
        ALARM_VECTOR => processor.alarm.set(u64::MAX),
        POKE_VECTOR => {}
        FAULT_VECTOR => fault::take_all(),
        ERROR_VECTOR => log::warn!("local APIC {:#x} reports an error", processor.apic_id),
        vector => device_interrupt::raised(processor.index, vector),
    }
    local_apic::end_of_interrupt();
}

/// Lets the processor take what is pending. Called with interrupts off, returns with interrupts off.
#[inline]
pub fn take_pending() {
    // SAFETY: the handlers touch only what is theirs or atomic, and keep all registers. STI holds interrupts off for one
    // instruction, so the NOP is what they come after.
    unsafe { asm!("sti", "nop", "cli", options(nostack)) }
}

/// Halts until an interrupt arrives. Called with interrupts off, returns with interrupts off; an interrupt that
/// became pending since the caller last looked ends the wait at once.
pub fn wait() {
    // SAFETY: as in `take_pending`; STI holds interrupts off until HLT has begun.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) }
}

/// Makes `processor` look at its work again, wherever it is.
pub fn poke(processor: &Processor) {
    // One poke is enough until it has been seen.
    if !processor.poked.swap(true, Ordering::SeqCst) && processor.index != Processor::current().index {
        local_apic::send(processor.apic_id, Ipi::Fixed(POKE_VECTOR));
    }
}
