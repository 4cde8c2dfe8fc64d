//! Accesses that may fault: the exception handler takes them back here, and the fault becomes a value.
#![allow(unsafe_code)]

use super::exception::{self, Frame};
use core::arch::global_asm;
use core::fmt;

/// A fault that an access raised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Exception vector.
    pub vector: u8,
    /// Its error code; 0 where it has none.
    pub error_code: u64,
}

impl Fault {
    /// `#UD`.
    pub const INVALID_OPCODE: u8 = 6;
    /// `#GP`.
    pub const GENERAL_PROTECTION: u8 = 13;
    /// `#PF`.
    pub const PAGE_FAULT: u8 = 14;
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (error code {:#x})",
            exception::name(self.vector),
            self.error_code
        )
    }
}

// Each function returns RAX = 0 and a value in RDX. A fault inside the window goes on at `probe_failed` with
// RAX = vector + 1 and RDX = error code; no function here has moved RSP by then.
global_asm!(
    r#"
    .text
    .balign 16
    .globl probe_window
probe_window:
    .globl probe_read
probe_read:
    mov rdx, [rdi]
    xor eax, eax
    ret
    .globl probe_write
probe_write:
    mov [rdi], rsi
    xor eax, eax
    ret
    .globl probe_rdmsr
probe_rdmsr:
    mov ecx, edi
    rdmsr
    shl rdx, 32
    or rdx, rax
    xor eax, eax
    ret
    .globl probe_wrmsr
probe_wrmsr:
    mov ecx, edi
    mov rdx, rsi
    shr rdx, 32
    mov eax, esi
    wrmsr
    xor eax, eax
    ret
    .globl probe_xsetbv
probe_xsetbv:
    mov ecx, edi
    mov rdx, rsi
    shr rdx, 32
    mov eax, esi
    xsetbv
    xor eax, eax
    ret
    .globl probe_vmcall
probe_vmcall:
    mov rcx, rdi
    mov r8, rdx
    mov rdx, rsi
    vmcall
    mov rdx, rax
    xor eax, eax
    ret
    .globl probe_vmmcall
probe_vmmcall:
    mov rcx, rdi
    mov r8, rdx
    mov rdx, rsi
    vmmcall
    mov rdx, rax
    xor eax, eax
    ret
    .globl probe_dr7
probe_dr7:
    mov dr7, rdi
    xor eax, eax
    ret
    .globl probe_cr4
probe_cr4:
    mov cr4, rdi
    xor eax, eax
    ret
    .globl probe_vmrun
probe_vmrun:
    mov rax, rdi
    .byte 0x0f, 0x01, 0xd8      /* vmrun rax */
    xor eax, eax
    ret
    .globl probe_vmxon
probe_vmxon:
    mov [rsp - 8], rdi
    .byte 0xf3, 0x0f, 0xc7, 0x74, 0x24, 0xf8    /* vmxon [rsp - 8] */
    xor eax, eax
    ret
    .globl probe_window_end
probe_window_end:
    .globl probe_failed
probe_failed:
    ret
"#
);

/// What the assembly returns, in RAX and RDX.
#[repr(C)]
struct Outcome {
    vector_plus_one: u64,
    value: u64,
}

unsafe extern "C" {
    static probe_window: u8;
    static probe_window_end: u8;
    static probe_failed: u8;
    fn probe_read(address: u64) -> Outcome;
    fn probe_write(address: u64, value: u64) -> Outcome;
    fn probe_rdmsr(msr: u32) -> Outcome;
    fn probe_wrmsr(msr: u32, value: u64) -> Outcome;
    fn probe_xsetbv(register: u32, value: u64) -> Outcome;
    fn probe_vmcall(control: u64, input: u64, output: u64) -> Outcome;
    fn probe_vmmcall(control: u64, input: u64, output: u64) -> Outcome;
    fn probe_vmrun(address: u64) -> Outcome;
    fn probe_vmxon(address: u64) -> Outcome;
    fn probe_dr7(value: u64) -> Outcome;
    fn probe_cr4(value: u64) -> Outcome;
}

/// Sends an exception of a probe back to it; false where none caused it.
pub fn recover(frame: &mut Frame) -> bool {
    let window = (&raw const probe_window) as u64..(&raw const probe_window_end) as u64;
    let expected = matches!(frame.vector, 6 | 7 | 11..=14 | 17);
    if !expected || !window.contains(&frame.rip) {
        return false;
    }
    frame.rip = (&raw const probe_failed) as u64;
    frame.rax = frame.vector + 1;
    frame.rdx = frame.error_code;
    true
}

/// Reads the eight bytes at `address`, wherever that is.
pub fn read(address: u64) -> Result<u64, Fault> {
    // SAFETY: reading breaks no memory, and a fault comes back as a value.
    result(unsafe { probe_read(address) })
}

/// Writes `value` to the eight bytes at `address`.
///
/// # Safety
/// Where the write is not refused, it must do no harm.
pub unsafe fn write(address: u64, value: u64) -> Result<(), Fault> {
    // SAFETY: the caller vouches for the case that it is not refused.
    result(unsafe { probe_write(address, value) }).map(|_| ())
}

/// Reads an MSR that may not exist.
pub fn read_msr(msr: u32) -> Result<u64, Fault> {
    // SAFETY: reading an MSR changes nothing.
    result(unsafe { probe_rdmsr(msr) })
}

/// Writes an MSR that may not exist.
///
/// # Safety
/// Where the write is not refused, it must do no harm.
pub unsafe fn write_msr(msr: u32, value: u64) -> Result<(), Fault> {
    // SAFETY: the caller vouches for the case that it is not refused.
    result(unsafe { probe_wrmsr(msr, value) }).map(|_| ())
}

/// Executes `XSETBV` for extended control register `register`.
///
/// # Safety
/// As for [`write()`]; state components that are turned off must not be in use.
pub unsafe fn xsetbv(register: u32, value: u64) -> Result<(), Fault> {
    // SAFETY: the caller vouches for the case that it is not refused.
    result(unsafe { probe_xsetbv(register, value) }).map(|_| ())
}

/// Executes `VMMCALL` (`amd`) or `VMCALL` with the words of a hypercall, and returns its result value.
///
/// # Safety
/// Where it is not refused, it must be a call that does no harm.
pub unsafe fn hypercall(amd: bool, control: u64, input: u64, output: u64) -> Result<u64, Fault> {
    // SAFETY: the caller vouches for the call.
    result(unsafe {
        match amd {
            true => probe_vmmcall(control, input, output),
            false => probe_vmcall(control, input, output),
        }
    })
}

/// Writes DR7.
///
/// # Safety
/// Where the write is not refused, no breakpoint that it sets may be hit unexpectedly.
pub unsafe fn write_dr7(value: u64) -> Result<(), Fault> {
    // SAFETY: the caller vouches for the case that it is not refused.
    result(unsafe { probe_dr7(value) }).map(|_| ())
}

/// Writes CR4.
///
/// # Safety
/// Where the write is not refused, what runs must go on working.
pub unsafe fn write_cr4(value: u64) -> Result<(), Fault> {
    // SAFETY: the caller vouches for the case that it is not refused.
    result(unsafe { probe_cr4(value) }).map(|_| ())
}

fn result(outcome: Outcome) -> Result<u64, Fault> {
    match outcome.vector_plus_one.checked_sub(1) {
        None => Ok(outcome.value),
        Some(vector) => Err(Fault {
            vector: vector as u8,
            error_code: outcome.value,
        }),
    }
}

/// Executes `VMRUN` on the control block at `address`.
///
/// # Safety
/// Where it is not refused, the control block must be one that does no harm.
pub unsafe fn vmrun(address: u64) -> Result<(), Fault> {
    // SAFETY: the caller vouches for the case that it is not refused.
    result(unsafe { probe_vmrun(address) }).map(|_| ())
}

/// Executes `VMXON` with the region at `address`.
///
/// # Safety
/// As for [`vmrun`].
pub unsafe fn vmxon(address: u64) -> Result<(), Fault> {
    // SAFETY: the caller vouches for the case that it is not refused.
    result(unsafe { probe_vmxon(address) }).map(|_| ())
}
