//! Exceptions: one that a probe provokes goes back to it, an NMI is counted (and obeyed where another processor has
//! failed), any other stops the root with a report.

use super::instruction;
use super::probe;
use super::{Local, local};
use crate::stop;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use x86_64::registers::control::{Cr2, Cr3};

/// Non-maskable interrupts seen by all processors.
pub static NMI_COUNT: AtomicU64 = AtomicU64::new(0);

const NMI: u64 = 2;
const PAGE_FAULT: u64 = 14;

/// The registers at an exception, as the entry point pushes them.
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

/// Handles one exception; returning from it goes on at `frame.rip`.
pub(super) extern "C" fn handle(frame: &mut Frame) {
    if frame.vector == NMI {
        NMI_COUNT.fetch_add(1, Ordering::Relaxed);
        if stop::has_failed() {
            instruction::stop();
        }
    } else if !probe::recover(frame) {
        if stop::begin_report() {
            report(frame);
        }
        stop::after_failure();
    }
}

fn report(frame: &Frame) {
    let mut console = crate::console::force();
    let vp = local::current().map_or(0, |local| local.vp);
    let _ = fmt::write(
        &mut console,
        format_args!("\nroot partition stopped: exception on VP {vp}\n{frame}"),
    );
    if frame.vector == PAGE_FAULT {
        let address = Cr2::read_raw();
        let overflow = local::current().is_some_and(|local| stack_overflowed(local, address));
        let what = if overflow { ": a stack overflow" } else { "" };
        let _ = fmt::write(&mut console, format_args!("  CR2 {address:016x}{what}\n"));
    }
}

fn stack_overflowed(local: &Local, address: u64) -> bool {
    local.stack().is_guard(address)
}

/// Name of an exception (APM 2, table 8-1).
pub const fn name(vector: u64) -> &'static str {
    match vector {
        0 => "#DE divide error",
        1 => "#DB debug",
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
        writeln!(
            f,
            "  {} (vector {}), error code {:#x}",
            name(self.vector),
            self.vector,
            self.error_code
        )?;
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
            "  CS {:x}  SS {:x}  CR3 {:x}",
            self.cs,
            self.ss,
            Cr3::read_raw().0.start_address()
        )
    }
}
