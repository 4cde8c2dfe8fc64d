//! What happens at a vector: a probe gets its fault back, a handler is called, and an exception that nobody expects stops
//! the guest with a report.

use super::probe;
use crate::{interrupt, stop};
use core::fmt;
use x86_64::registers::control::Cr2;

/// First vector that is an interrupt.
pub const FIRST_INTERRUPT: u64 = 32;
/// Vector of the NMI.
pub const NMI: u8 = 2;

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

/// Handles one vector; returning from it goes on at `frame.rip`.
pub(super) extern "C" fn handle(frame: &mut Frame) {
    if frame.vector < FIRST_INTERRUPT && probe::recover(frame) {
        return;
    }
    if !interrupt::dispatch(frame) {
        stop::unexpected(frame);
    }
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
        _ => "exception",
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  vector {}, error code {:#x}", self.vector, self.error_code)?;
        let registers = [
            [("RIP", self.rip), ("RSP", self.rsp), ("RFL", self.rflags)],
            [("RAX", self.rax), ("RBX", self.rbx), ("RCX", self.rcx)],
            [("RDX", self.rdx), ("RSI", self.rsi), ("RDI", self.rdi)],
            [("RBP", self.rbp), ("R8 ", self.r8), ("R9 ", self.r9)],
            [("R10", self.r10), ("R11", self.r11), ("R12", self.r12)],
            [("R13", self.r13), ("R14", self.r14), ("R15", self.r15)],
        ];
        for line in registers {
            for (name, value) in line {
                write!(f, "  {name} {value:016x}")?;
            }
            writeln!(f)?;
        }
        writeln!(
            f,
            "  CS {:x}  SS {:x}  CR2 {:016x}",
            self.cs,
            self.ss,
            Cr2::read_raw()
        )
    }
}
