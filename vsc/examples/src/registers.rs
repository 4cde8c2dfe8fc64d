//! Looks for other partitions' registers in its own: fills all that it can with a pattern, spins so that others get their
//! turns, exits in between, and looks whether each holds what was put there. Two of it on one processor, with different
//! patterns, see each other's registers where the hypervisor leaks them.
//!
//! | command line | effect |
//! |---|---|
//! | `pattern=0x1234` | the pattern, 0 to 0xffff |
//! | `rounds=100` | how often it looks; 0 for ever |
//!
//! Prints what it finds first (`registers: at first NAME holds …`, where that is not zero), `registers: round N`,
//! `registers: FAIL NAME: …` for each register that has changed, and at the end `registers: done`.
#![no_std]
#![no_main]
#![allow(unsafe_code)]

use core::arch::asm;
use core::arch::x86_64::__cpuid;
use core::hint::{black_box, spin_loop};
use vsc_runtime::boot::BootInfo;
use vsc_runtime::hypervisor::{self, time};
use vsc_runtime::println;
use vsc_runtime::processor::instruction::{enable_xsave, read_msr, write_msr};

/// Unused: the runtime is built with what the guests that have devices need.
#[global_allocator]
static HEAP: vsc_runtime::memory::heap::Heap = vsc_runtime::memory::heap::new();

vsc_runtime::guest_main!(main);

/// MSRs that a guest may fill with what it likes, with the bits that it may choose. The bases want canonical addresses.
const MSRS: &[(&str, u32, u64)] = &[
    ("STAR", 0xc000_0081, u64::MAX),
    ("LSTAR", 0xc000_0082, 0xffff_ffff),
    ("CSTAR", 0xc000_0083, 0xffff_ffff),
    ("SFMASK", 0xc000_0084, 0xffff_ffff),
    ("FS base", 0xc000_0100, 0xffff_ffff),
    ("kernel GS base", 0xc000_0102, 0xffff_ffff),
    ("SYSENTER_CS", 0x174, 0xffff),
    ("SYSENTER_ESP", 0x175, 0xffff_ffff),
    ("SYSENTER_EIP", 0x176, 0xffff_ffff),
];
const GENERAL: [&str; 13] = [
    "RAX", "RCX", "RDX", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15",
];
/// Turns of the spin loop in a round; the timer of the hypervisor ends some of them early.
const SPINS: u64 = 500_000;
/// XCR0 with the state of YMM registers, and what tells it.
const X87_SSE_AVX: u64 = 0b111;
const AVX: u64 = 0b100;
/// Rounds between two lines.
const REPORT: u64 = 10;

/// What the registers hold: general ones, vectors, DR0 to DR3.
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq, Eq)]
struct Registers {
    vectors: [[u64; 4]; 16],
    general: [u64; 13],
    debug: [u64; 4],
}

const EMPTY: Registers = Registers {
    vectors: [[0; 4]; 16],
    general: [0; 13],
    debug: [0; 4],
};

fn main(boot: &BootInfo) {
    let pattern = number(boot, "pattern", 0xa5a5);
    let rounds = number(boot, "rounds", 100);
    println!("registers: pattern {pattern:#x}");
    if hypervisor::init().is_none() {
        println!("registers: not under Partita");
        return;
    }
    if enable_xsave(X87_SSE_AVX) & AVX == 0 {
        println!("registers: no AVX: vectors are not looked at");
        return;
    }
    at_first();
    let mut failed = 0;
    for round in 1.. {
        // Each round has values of its own, so that what is left of an older one is seen too.
        let wanted = filled(pattern, round);
        for &(_, msr, bits) in MSRS {
            // SAFETY: this program uses none of these.
            unsafe { write_msr(msr, value(pattern, round, msr as u64) & bits) };
        }
        let found = hold(&wanted);
        failed += compare(&wanted, &found);
        for &(name, msr, bits) in MSRS {
            let (seen, put) = (read_msr(msr), value(pattern, round, msr as u64) & bits);
            failed += report(name, seen, put);
        }
        if round % REPORT == 0 {
            println!("registers: round {round}, at {} x 100 ns", time::now());
        }
        if round == rounds {
            break;
        }
    }
    println!("registers: {failed} failed");
    println!("registers: done");
}

fn number(boot: &BootInfo, name: &str, default: u64) -> u64 {
    let Some(text) = boot.option(name) else {
        return default;
    };
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.unwrap_or(default)
}

/// A value of its own for each register, round and pattern, with the pattern to be seen in it.
fn value(pattern: u64, round: u64, register: u64) -> u64 {
    (pattern << 48) | (round & 0xffff) << 32 | (register.wrapping_mul(0x9e37) & 0xffff) << 16 | pattern
}

fn filled(pattern: u64, round: u64) -> Registers {
    let mut registers = EMPTY;
    for (number, vector) in (0x100..).step_by(4).zip(&mut registers.vectors) {
        *vector = core::array::from_fn(|part| value(pattern, round, number + part as u64));
    }
    registers.general = core::array::from_fn(|index| value(pattern, round, index as u64));
    // Not turned on, so any address will do; canonical ones, in the lower half.
    registers.debug = core::array::from_fn(|index| value(pattern, round, 0x80 + index as u64) & 0xffff_ffff);
    registers
}

/// A VP begins with registers that say nothing of anybody.
fn at_first() {
    let found = current_vectors();
    for (number, vector) in found.iter().enumerate() {
        if *vector != [0; 4] {
            println!("registers: at first YMM{number} holds {vector:x?}");
        }
    }
    for (number, value) in debug().into_iter().enumerate() {
        if value != 0 {
            println!("registers: at first DR{number} holds {value:#x}");
        }
    }
    for &(name, msr, _) in MSRS {
        match read_msr(msr) {
            0 => {}
            value => println!("registers: at first {name} holds {value:#x}"),
        }
    }
}

/// Loads the registers, lets others have their turns, and returns what is in them then.
fn hold(wanted: &Registers) -> Registers {
    let mut found = *wanted;
    set_debug(wanted.debug);
    let area: *mut Registers = &mut found;
    // SAFETY: all registers that are changed are saved or declared; RSP, RBX and RBP stay what they are, and interrupts,
    // which are off, could use the stack below.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "mov rbx, rdi",
            "mov ebp, esi",
            "vmovdqu ymm0, [rbx]",
            "vmovdqu ymm1, [rbx + 32]",
            "vmovdqu ymm2, [rbx + 64]",
            "vmovdqu ymm3, [rbx + 96]",
            "vmovdqu ymm4, [rbx + 128]",
            "vmovdqu ymm5, [rbx + 160]",
            "vmovdqu ymm6, [rbx + 192]",
            "vmovdqu ymm7, [rbx + 224]",
            "vmovdqu ymm8, [rbx + 256]",
            "vmovdqu ymm9, [rbx + 288]",
            "vmovdqu ymm10, [rbx + 320]",
            "vmovdqu ymm11, [rbx + 352]",
            "vmovdqu ymm12, [rbx + 384]",
            "vmovdqu ymm13, [rbx + 416]",
            "vmovdqu ymm14, [rbx + 448]",
            "vmovdqu ymm15, [rbx + 480]",
            "mov rax, [rbx + 512]",
            "mov rcx, [rbx + 520]",
            "mov rdx, [rbx + 528]",
            "mov rsi, [rbx + 536]",
            "mov rdi, [rbx + 544]",
            "mov r8, [rbx + 552]",
            "mov r9, [rbx + 560]",
            "mov r10, [rbx + 568]",
            "mov r11, [rbx + 576]",
            "mov r12, [rbx + 584]",
            "mov r13, [rbx + 592]",
            "mov r14, [rbx + 600]",
            "mov r15, [rbx + 608]",
            "2: dec rbp",
            "jnz 2b",
            "mov [rbx + 512], rax",
            "mov [rbx + 520], rcx",
            "mov [rbx + 528], rdx",
            "mov [rbx + 536], rsi",
            "mov [rbx + 544], rdi",
            "mov [rbx + 552], r8",
            "mov [rbx + 560], r9",
            "mov [rbx + 568], r10",
            "mov [rbx + 576], r11",
            "mov [rbx + 584], r12",
            "mov [rbx + 592], r13",
            "mov [rbx + 600], r14",
            "mov [rbx + 608], r15",
            // Once more across an exit that the hypervisor handles.
            "mov eax, 0x40000000",
            "xor ecx, ecx",
            "mov rbp, rbx",
            "cpuid",
            "mov rbx, rbp",
            "vmovdqu [rbx], ymm0",
            "vmovdqu [rbx + 32], ymm1",
            "vmovdqu [rbx + 64], ymm2",
            "vmovdqu [rbx + 96], ymm3",
            "vmovdqu [rbx + 128], ymm4",
            "vmovdqu [rbx + 160], ymm5",
            "vmovdqu [rbx + 192], ymm6",
            "vmovdqu [rbx + 224], ymm7",
            "vmovdqu [rbx + 256], ymm8",
            "vmovdqu [rbx + 288], ymm9",
            "vmovdqu [rbx + 320], ymm10",
            "vmovdqu [rbx + 352], ymm11",
            "vmovdqu [rbx + 384], ymm12",
            "vmovdqu [rbx + 416], ymm13",
            "vmovdqu [rbx + 448], ymm14",
            "vmovdqu [rbx + 480], ymm15",
            "vzeroupper",
            "pop rbp",
            "pop rbx",
            inout("rdi") area => _,
            inout("rsi") SPINS => _,
            out("rax") _, out("rcx") _, out("rdx") _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            out("r12") _, out("r13") _, out("r14") _, out("r15") _,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
            out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
        );
    }
    found.debug = debug();
    black_box(__cpuid(0x4000_0000));
    spin_loop();
    found
}

/// What YMM0 to YMM15 hold now.
fn current_vectors() -> [[u64; 4]; 16] {
    let mut area = [[0u64; 4]; 16];
    // SAFETY: the area is as long as the sixteen registers.
    unsafe {
        asm!(
            "vmovdqu [rdi], ymm0",
            "vmovdqu [rdi + 32], ymm1",
            "vmovdqu [rdi + 64], ymm2",
            "vmovdqu [rdi + 96], ymm3",
            "vmovdqu [rdi + 128], ymm4",
            "vmovdqu [rdi + 160], ymm5",
            "vmovdqu [rdi + 192], ymm6",
            "vmovdqu [rdi + 224], ymm7",
            "vmovdqu [rdi + 256], ymm8",
            "vmovdqu [rdi + 288], ymm9",
            "vmovdqu [rdi + 320], ymm10",
            "vmovdqu [rdi + 352], ymm11",
            "vmovdqu [rdi + 384], ymm12",
            "vmovdqu [rdi + 416], ymm13",
            "vmovdqu [rdi + 448], ymm14",
            "vmovdqu [rdi + 480], ymm15",
            in("rdi") area.as_mut_ptr(),
            options(nostack),
        );
    }
    // The lower halves are the compiler's, which has used them by now.
    area.map(|[_, _, low, high]| [0, 0, low, high])
}

fn debug() -> [u64; 4] {
    let (d0, d1, d2, d3): (u64, u64, u64, u64);
    // SAFETY: the moves change nothing.
    unsafe {
        asm!("mov {}, dr0", "mov {}, dr1", "mov {}, dr2", "mov {}, dr3",
            out(reg) d0, out(reg) d1, out(reg) d2, out(reg) d3, options(nomem, nostack));
    }
    [d0, d1, d2, d3]
}

fn set_debug([d0, d1, d2, d3]: [u64; 4]) {
    // SAFETY: DR7 enables none of them.
    unsafe {
        asm!("mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}",
            in(reg) d0, in(reg) d1, in(reg) d2, in(reg) d3, options(nomem, nostack));
    }
}

fn compare(wanted: &Registers, found: &Registers) -> u32 {
    let mut failed = 0;
    for (name, (seen, put)) in GENERAL.iter().zip(found.general.iter().zip(&wanted.general)) {
        failed += report(name, *seen, *put);
    }
    for (seen, put) in found.vectors.iter().zip(&wanted.vectors) {
        for (seen, put) in seen.iter().zip(put) {
            failed += report("a YMM register", *seen, *put);
        }
    }
    for (seen, put) in found.debug.iter().zip(&wanted.debug) {
        failed += report("a debug register", *seen, *put);
    }
    failed
}

fn report(name: &str, seen: u64, put: u64) -> u32 {
    if seen == put {
        return 0;
    }
    println!("registers: FAIL {name}: holds {seen:#x}, was given {put:#x}");
    1
}
