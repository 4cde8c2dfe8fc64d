//! State that must survive exits, and never be another VP's: general, XMM and YMM registers, debug registers, single steps.
#![allow(unsafe_code)]

use crate::machine::{self, Work};
use crate::report::{equal, holds, skip};
use core::arch::global_asm;
use core::arch::x86_64::__cpuid_count;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use hypercall_api::code::HypercallCode as Code;
use hypercall_api::control::HypercallInput;
use vsc_runtime::processor::exception::Frame;
use vsc_runtime::processor::instruction::{enable_xsave, tsc};
use vsc_runtime::processor::probe;
use vsc_runtime::{apic, interrupt, processor};
use x86_64::registers::debug::{DebugAddressRegister, Dr0, Dr1, Dr2, Dr3, Dr7};

// conformance_ymm(in, out, rounds): loads YMM0–YMM15 from `in`, exits `rounds` times, stores them to `out`.
// conformance_xmm: the same with XMM0–XMM15, 32 bytes apart too.
// conformance_general(seed, rounds): fills the general registers with seed + n, exits, returns how many have changed.
// conformance_hypercall(control): makes a fast call and returns a mask of registers that have changed.
// conformance_store(out): stores YMM0–YMM15.
// conformance_step: executes CPUID with the trap flag set.
// conformance_shadow: STI, then CPUID.
global_asm!(
    r#"
    .text
    .macro conformance_exits
1:  mov eax, 0x40000000
    xor ecx, ecx
    cpuid
    mov dx, 0x80
    in al, dx
    dec r8d
    jnz 1b
    .endm

conformance_ymm:
    push rbx
    mov r8d, edx
    vmovdqu ymm0, [rdi]
    vmovdqu ymm1, [rdi + 32]
    vmovdqu ymm2, [rdi + 64]
    vmovdqu ymm3, [rdi + 96]
    vmovdqu ymm4, [rdi + 128]
    vmovdqu ymm5, [rdi + 160]
    vmovdqu ymm6, [rdi + 192]
    vmovdqu ymm7, [rdi + 224]
    vmovdqu ymm8, [rdi + 256]
    vmovdqu ymm9, [rdi + 288]
    vmovdqu ymm10, [rdi + 320]
    vmovdqu ymm11, [rdi + 352]
    vmovdqu ymm12, [rdi + 384]
    vmovdqu ymm13, [rdi + 416]
    vmovdqu ymm14, [rdi + 448]
    vmovdqu ymm15, [rdi + 480]
    conformance_exits
    vmovdqu [rsi], ymm0
    vmovdqu [rsi + 32], ymm1
    vmovdqu [rsi + 64], ymm2
    vmovdqu [rsi + 96], ymm3
    vmovdqu [rsi + 128], ymm4
    vmovdqu [rsi + 160], ymm5
    vmovdqu [rsi + 192], ymm6
    vmovdqu [rsi + 224], ymm7
    vmovdqu [rsi + 256], ymm8
    vmovdqu [rsi + 288], ymm9
    vmovdqu [rsi + 320], ymm10
    vmovdqu [rsi + 352], ymm11
    vmovdqu [rsi + 384], ymm12
    vmovdqu [rsi + 416], ymm13
    vmovdqu [rsi + 448], ymm14
    vmovdqu [rsi + 480], ymm15
    vzeroupper
    pop rbx
    ret

conformance_store:
    vmovdqu [rdi], ymm0
    vmovdqu [rdi + 32], ymm1
    vmovdqu [rdi + 64], ymm2
    vmovdqu [rdi + 96], ymm3
    vmovdqu [rdi + 128], ymm4
    vmovdqu [rdi + 160], ymm5
    vmovdqu [rdi + 192], ymm6
    vmovdqu [rdi + 224], ymm7
    vmovdqu [rdi + 256], ymm8
    vmovdqu [rdi + 288], ymm9
    vmovdqu [rdi + 320], ymm10
    vmovdqu [rdi + 352], ymm11
    vmovdqu [rdi + 384], ymm12
    vmovdqu [rdi + 416], ymm13
    vmovdqu [rdi + 448], ymm14
    vmovdqu [rdi + 480], ymm15
    ret

conformance_xmm:
    push rbx
    mov r8d, edx
    movdqu xmm0, [rdi]
    movdqu xmm1, [rdi + 32]
    movdqu xmm2, [rdi + 64]
    movdqu xmm3, [rdi + 96]
    movdqu xmm4, [rdi + 128]
    movdqu xmm5, [rdi + 160]
    movdqu xmm6, [rdi + 192]
    movdqu xmm7, [rdi + 224]
    movdqu xmm8, [rdi + 256]
    movdqu xmm9, [rdi + 288]
    movdqu xmm10, [rdi + 320]
    movdqu xmm11, [rdi + 352]
    movdqu xmm12, [rdi + 384]
    movdqu xmm13, [rdi + 416]
    movdqu xmm14, [rdi + 448]
    movdqu xmm15, [rdi + 480]
    conformance_exits
    movdqu [rsi], xmm0
    movdqu [rsi + 32], xmm1
    movdqu [rsi + 64], xmm2
    movdqu [rsi + 96], xmm3
    movdqu [rsi + 128], xmm4
    movdqu [rsi + 160], xmm5
    movdqu [rsi + 192], xmm6
    movdqu [rsi + 224], xmm7
    movdqu [rsi + 256], xmm8
    movdqu [rsi + 288], xmm9
    movdqu [rsi + 320], xmm10
    movdqu [rsi + 352], xmm11
    movdqu [rsi + 384], xmm12
    movdqu [rsi + 416], xmm13
    movdqu [rsi + 448], xmm14
    movdqu [rsi + 480], xmm15
    pop rbx
    ret

    .macro conformance_differs register, number
    lea rax, [rdi + \number]
    xor rax, \register
    neg rax
    sbb rax, rax
    neg rax
    shl rax, \number
    or rsi, rax
    .endm

conformance_general:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov r8d, esi
    xor esi, esi
    lea rbp, [rdi + 5]
    lea r9, [rdi + 9]
    lea r10, [rdi + 10]
    lea r11, [rdi + 11]
    lea r12, [rdi + 12]
    lea r13, [rdi + 13]
    lea r14, [rdi + 14]
    lea r15, [rdi + 15]
    conformance_exits
    conformance_differs rbp, 5
    conformance_differs r9, 9
    conformance_differs r10, 10
    conformance_differs r11, 11
    conformance_differs r12, 12
    conformance_differs r13, 13
    conformance_differs r14, 14
    conformance_differs r15, 15
    mov rax, rsi
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

conformance_hypercall:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov rcx, rdi
    mov rdi, rsi
    lea rbx, [rdi + 3]
    lea rbp, [rdi + 5]
    lea r12, [rdi + 12]
    lea r13, [rdi + 13]
    lea r14, [rdi + 14]
    lea r15, [rdi + 15]
    movq xmm0, rbx
    movq xmm5, r15
    xor esi, esi
    mov edx, 0xabcdef
    xor r8d, r8d
    call guest_hypercall_page
    conformance_differs rbx, 3
    conformance_differs rbp, 5
    conformance_differs r12, 12
    conformance_differs r13, 13
    conformance_differs r14, 14
    conformance_differs r15, 15
    movq rcx, xmm0
    conformance_differs rcx, 3
    movq rcx, xmm5
    conformance_differs rcx, 15
    mov rax, rsi
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

conformance_step:
    push rbx
    xor eax, eax
    xor ecx, ecx
    pushfq
    or qword ptr [rsp], 0x100
    popfq
    cpuid
conformance_step_after:
    nop
    pushfq
    and qword ptr [rsp], ~0x100
    popfq
    nop
    pop rbx
    ret

conformance_shadow:
    push rbx
    xor eax, eax
    xor ecx, ecx
    sti
    cpuid
conformance_shadow_after:
    nop
    nop
    pop rbx
    ret
"#
);

unsafe extern "C" {
    static conformance_step_after: u8;
    static conformance_shadow_after: u8;
    fn conformance_ymm(from: *const Registers, to: *mut Registers, rounds: u32);
    fn conformance_xmm(from: *const Registers, to: *mut Registers, rounds: u32);
    fn conformance_store(to: *mut Registers);
    fn conformance_general(seed: u64, rounds: u32) -> u64;
    fn conformance_hypercall(control: u64, seed: u64) -> u64;
    fn conformance_step();
    fn conformance_shadow();
}

/// Sixteen registers of 32 bytes.
type Registers = [[u64; 4]; 16];

/// Exits of each kind that state has to survive.
const ROUNDS: u32 = 50;

static AVX: AtomicBool = AtomicBool::new(false);
/// Bit n: processor n has seen a value that was not its own.
static BROKEN: AtomicU64 = AtomicU64::new(0);

fn has_avx() -> bool {
    const XSAVE_AND_AVX: u32 = 1 << 26 | 1 << 28;
    __cpuid_count(1, 0).ecx & XSAVE_AND_AVX == XSAVE_AND_AVX && __cpuid_count(0xd, 0).eax & 4 != 0
}

/// Whether the upper halves of the YMM registers are zero, on a processor that has not used them; `None` without AVX. XCR0
/// and CR4.OSXSAVE are as before afterwards.
pub(crate) fn upper_halves_are_zero() -> Option<bool> {
    use x86_64::registers::control::{Cr4, Cr4Flags};
    if !has_avx() {
        return None;
    }
    enable_xsave(0b111);
    let mut registers = [[0; 4]; 16];
    // SAFETY: AVX is on, and the function stores as much as its type says.
    unsafe { conformance_store(&mut registers) };
    enable_xsave(0b1);
    // SAFETY: nothing uses XSAVE yet.
    unsafe { Cr4::update(|flags| flags.remove(Cr4Flags::OSXSAVE)) };
    Some(registers.iter().all(|[_, _, upper @ ..]| *upper == [0; 2]))
}

/// Checks the state.
pub(crate) fn check() {
    AVX.store(has_avx(), Ordering::Release);
    registers();
    debug_registers();
    watchpoint();
    single_step();
}

fn pattern(seed: u64) -> Registers {
    core::array::from_fn(|register| {
        core::array::from_fn(|word| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (register * 4 + word) as u64)
    })
}

/// Whether what this processor puts into its registers stays there.
fn is_kept() -> bool {
    let seed = tsc() ^ u64::from(processor().index) << 56;
    let from = pattern(seed);
    let mut to = [[0; 4]; 16];
    // SAFETY: the functions read and write as much as the types say, and keep to the calling convention; AVX is on where it is
    // used.
    let general = unsafe {
        match AVX.load(Ordering::Acquire) {
            true => conformance_ymm(&from, &mut to, ROUNDS),
            false => conformance_xmm(&from, &mut to, ROUNDS),
        }
        conformance_general(seed, ROUNDS)
    };
    let words = if AVX.load(Ordering::Acquire) { 4 } else { 2 };
    general == 0
        && from
            .iter()
            .zip(&to)
            .all(|(from, to)| from[..words] == to[..words])
}

/// What each processor does, all at once.
static TRY: Work = || {
    if AVX.load(Ordering::Acquire) {
        enable_xsave(0b111);
    }
    for _ in 0..4 {
        if !is_kept() {
            BROKEN.fetch_or(1 << processor().index, Ordering::AcqRel);
        }
    }
};

fn registers() {
    let others = || {
        let me = processor().index;
        vsc_runtime::processor::local::all()
            .filter(move |other| other.index != me && other.running.load(Ordering::Acquire))
    };
    others().for_each(|other| machine::begin_on(other, &TRY));
    TRY();
    let done = others().all(machine::finish_on);
    let what = if AVX.load(Ordering::Acquire) { "YMM" } else { "XMM" };
    equal(
        "VP state",
        format_args!("general and {what} registers survive exits, on all VPs at once"),
        (done, BROKEN.load(Ordering::Acquire)),
        (true, 0),
    );
}

/// Whether a hypercall leaves RBX, RBP, R12 to R15, XMM0 and XMM5 as they are.
pub(crate) fn registers_survive_a_hypercall() -> bool {
    let control = HypercallInput::fast(Code::SIGNAL_EVENT).0;
    // SAFETY: the function keeps to the calling convention; the call finds no connection and does nothing.
    unsafe { conformance_hypercall(control, 0x1234_5678_9abc_0000) == 0 }
}

fn debug_registers() {
    let name = "Debug registers";
    let values = || [Dr0::read(), Dr1::read(), Dr2::read(), Dr3::read()];
    let wanted =
        [0x1000_0000, 0x1000_1000, 0x1000_2000, 0x1000_3000].map(|low| low | u64::from(processor().index));
    for (write, value) in [Dr0::write, Dr1::write, Dr2::write, Dr3::write]
        .into_iter()
        .zip(wanted)
    {
        write(value);
    }
    // Another VP uses its own meanwhile.
    static OWN: Work = || {
        for _ in 0..10 {
            Dr0::write(0x2000_0000);
            machine::pause(1);
        }
    };
    let other = machine::other();
    other.into_iter().for_each(|other| machine::begin_on(other, &OWN));
    for _ in 0..20 {
        crate::access::in_byte(0x80);
        x86_64::instructions::interrupts::disable();
        apic::send_self(0x63);
        vsc_runtime::processor::instruction::wait();
    }
    let done = other.is_none_or(machine::finish_on);
    equal(
        name,
        "they survive exits and halts",
        (done, values()),
        (true, wanted),
    );
    for write in [Dr0::write, Dr1::write, Dr2::write, Dr3::write] {
        write(0);
    }
}

static DEBUG_STATUS: AtomicU64 = AtomicU64::new(0);
static WATCHED: AtomicU64 = AtomicU64::new(0);

fn watchpoint() {
    interrupt::set_handler(1, |_| {
        DEBUG_STATUS.fetch_or(crate::access::take_dr6(), Ordering::AcqRel);
    });
    Dr0::write(WATCHED.as_ptr() as u64);
    let before = interrupt::count(1);
    // Global breakpoint 0, writes, 8 bytes.
    let set = probe_dr7(1 << 1 | 0b1001 << 16 | 1 << 10);
    WATCHED.store(1, Ordering::SeqCst);
    let hit = interrupt::count(1) == before + 1 && DEBUG_STATUS.load(Ordering::Acquire) & 1 != 0;
    let cleared = probe_dr7(1 << 10);
    holds(
        "Debug registers",
        "a watchpoint raises #DB",
        set && cleared && hit,
    );
    let enabled = Dr7::read_raw() & 0xff;
    equal("Debug registers", "DR7 keeps its value", enabled, 0);
    interrupt::clear_handler(1);
}

fn probe_dr7(value: u64) -> bool {
    // SAFETY: #DB has a handler.
    unsafe { probe::write_dr7(value) }.is_ok()
}

/// Traps after CPUID.
static STEPS: AtomicU64 = AtomicU64::new(0);

fn single_step() {
    interrupt::set_handler(1, |frame: &mut Frame| {
        crate::access::take_dr6();
        if frame.rip == &raw const conformance_step_after as u64 {
            STEPS.fetch_add(1, Ordering::AcqRel);
        }
    });
    // SAFETY: the function keeps to the calling convention, and #DB has a handler.
    unsafe { conformance_step() };
    interrupt::clear_handler(1);
    equal(
        "Trap flag",
        "a single step over an instruction that exits traps right after it",
        STEPS.load(Ordering::Acquire),
        1,
    );
}

/// Where the interrupt came.
static CAME_AT: AtomicU64 = AtomicU64::new(0);

/// Whether an interrupt that is pending at STI comes after the next instruction, one that exits; `None` where none came.
pub(crate) fn shadow_ends_after_exit(vector: u8) -> Option<bool> {
    CAME_AT.store(0, Ordering::Release);
    interrupt::set_handler(vector, |frame: &mut Frame| {
        CAME_AT.store(frame.rip, Ordering::Release)
    });
    x86_64::instructions::interrupts::disable();
    apic::send_self(vector);
    // SAFETY: the function keeps to the calling convention.
    unsafe { conformance_shadow() };
    let came = machine::wait_until(|| CAME_AT.load(Ordering::Acquire) != 0);
    interrupt::clear_handler(vector);
    if !came {
        skip("STI", "an interrupt after it", "none came");
        return None;
    }
    Some(CAME_AT.load(Ordering::Acquire) == &raw const conformance_shadow_after as u64)
}
