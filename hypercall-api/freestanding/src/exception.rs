//! Exceptions and interrupts as every image takes them: entry points that save all registers, the frame in which they are, and the
//! interrupt descriptor table.
#![allow(unsafe_code)]

use core::fmt;
use x86_64::registers::control::{Cr2, Cr3};

/// Number of vectors.
pub const VECTORS: usize = 256;
/// First vector that is an interrupt.
pub const FIRST_INTERRUPT: u8 = 32;
/// Vector of the NMI.
pub const NMI: u8 = 2;
/// Vector of the double fault.
pub const DOUBLE_FAULT: u8 = 8;
/// Bytes between two entry points.
pub const STRIDE: u64 = 8;
/// Exceptions that push an error code: 8, 10–14, 17, 21, 29, 30 (APM 2, 8.2).
pub const WITH_ERROR_CODE: u32 = 1 << 8 | 0x1f << 10 | 1 << 17 | 1 << 21 | 1 << 29 | 1 << 30;

/// Defines, at the symbol `$table`, the entry points of the first `$count` vectors, [`STRIDE`] bytes apart. They save all that a Rust
/// function may change, the upper halves of the YMM registers aside (code that is built for the baseline does not touch those), and call
/// `$handle`, an `extern "C" fn(&mut Frame)`.
#[macro_export]
macro_rules! entry_points {
    ($table:literal, $count:literal, $handle:path) => {
        core::arch::global_asm!(
            concat!(
                "    .text\n    .balign 16\n    .globl ", $table, "\n", $table, ":\n",
                "    .rept ", $count, "\n    .balign 8\n",
                "    call ", $table, "_common\n",      // the return address tells the vector: base + 8 * n + 5
                "    .endr\n    .balign 16\n", $table, "_common:\n",
                "    xchg rax, [rsp]\n    push rcx\n    lea rcx, [rip + ", $table, "]\n",
                "    sub rax, rcx\n    shr rax, 3\n",
            ),
            "cmp eax, 32",
            "jae 1f",
            "mov ecx, {with_error_code}",
            "bt ecx, eax",
            "jc 2f",
            // Make room for an error code of 0 under the saved RAX and RCX.
            "1: push [rsp]",
            "mov rcx, [rsp + 16]",
            "mov [rsp + 8], rcx",
            "mov qword ptr [rsp + 16], 0",
            "2: push rdx",
            "push rbx",
            "push rbp",
            "push rsi",
            "push rdi",
            "push r8",
            "push r9",
            "push r10",
            "push r11",
            "push r12",
            "push r13",
            "push r14",
            "push r15",
            "push rax",
            "cld",
            "mov rdi, rsp",
            "mov rbp, rsp",
            "sub rsp, 512",
            "and rsp, -16",
            "fxsave64 [rsp]",
            "call {handle}",
            "fxrstor64 [rsp]",
            "mov rsp, rbp",
            "add rsp, 8",
            "pop r15",
            "pop r14",
            "pop r13",
            "pop r12",
            "pop r11",
            "pop r10",
            "pop r9",
            "pop r8",
            "pop rdi",
            "pop rsi",
            "pop rbp",
            "pop rbx",
            "pop rdx",
            "pop rcx",
            "pop rax",
            "add rsp, 8",
            "iretq",
            with_error_code = const $crate::exception::WITH_ERROR_CODE,
            handle = sym $handle,
        );
    };
}

/// The registers at an exception or interrupt, as the entry point pushes them. What a handler changes is what the code goes
/// on with.
#[repr(C)]
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the names are the registers'
pub struct Frame {
    pub vector: u64,
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rax: u64,
    pub error_code: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// Name of a vector (APM 2, table 8-1).
pub const fn name(vector: u8) -> &'static str {
    match vector {
        0 => "#DE divide error",
        1 => "#DB debug",
        2 => "NMI",
        3 => "#BP breakpoint",
        4 => "#OF overflow",
        5 => "#BR bound range",
        6 => "#UD invalid opcode",
        7 => "#NM device not available",
        8 => "#DF double fault",
        10 => "#TS invalid TSS",
        11 => "#NP segment not present",
        12 => "#SS stack",
        13 => "#GP general protection",
        14 => "#PF page fault",
        16 => "#MF x87",
        17 => "#AC alignment check",
        18 => "#MC machine check",
        19 => "#XF SIMD",
        20 => "#VE virtualization",
        21 => "#CP control protection",
        _ => "exception",
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            vector, error_code, ..
        } = self;
        writeln!(
            f,
            "  {} (vector {vector}), error code {error_code:#x}",
            name(*vector as u8)
        )?;
        let registers = [
            [("RIP", self.rip), ("RSP", self.rsp), ("RFL", self.rflags)],
            [("RAX", self.rax), ("RBX", self.rbx), ("RCX", self.rcx)],
            [("RDX", self.rdx), ("RSI", self.rsi), ("RDI", self.rdi)],
            [("RBP", self.rbp), ("R8 ", self.r8), ("R9 ", self.r9)],
            [("R10", self.r10), ("R11", self.r11), ("R12", self.r12)],
            [("R13", self.r13), ("R14", self.r14), ("R15", self.r15)],
            [
                ("CR2", Cr2::read_raw()),
                ("CR3", Cr3::read_raw().0.start_address().as_u64()),
                ("CS ", self.cs),
            ],
        ];
        for line in registers {
            for (name, value) in line {
                write!(f, "  {name} {value:016x}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// An interrupt descriptor table, of whose vectors `entry` tells the entry points, in code segment `code`. NMIs, double faults and
/// interrupts have a stack each (IST 2, 3 and 4), the other exceptions one (IST 1): the precompiled `core` keeps data below the stack
/// pointer.
pub fn idt(code: u16, entry: impl Fn(u8) -> u64) -> [[u64; 2]; VECTORS] {
    core::array::from_fn(|vector| {
        let ist = match vector as u8 {
            NMI => 2,
            DOUBLE_FAULT => 3,
            FIRST_INTERRUPT.. => 4,
            _ => 1,
        };
        gate(entry(vector as u8), code, ist)
    })
}

/// A 64-bit interrupt gate (APM 2, 4.8.4): present, DPL 0, interrupts off on entry.
const fn gate(address: u64, code: u16, ist: u64) -> [u64; 2] {
    let low =
        address & 0xffff | (code as u64) << 16 | ist << 32 | 0x8e00 << 32 | (address >> 16 & 0xffff) << 48;
    [low, address >> 32]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_holds_its_address_in_three_parts() {
        let gates = idt(8, |vector| 0x1234_5678_9abc_de00 + u64::from(vector));
        assert_eq!(gates[0xf0], [0x9abc_8e04_0008_def0, 0x1234_5678]);
        let stacks = [0, 2, 8, 14, 31, 32].map(|vector| gates[vector][0] >> 32 & 7);
        assert_eq!(stacks, [1, 2, 3, 1, 1, 4]);
    }
}
