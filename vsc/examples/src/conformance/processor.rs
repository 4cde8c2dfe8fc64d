//! The processor: halting, events, extended state control, control registers (SDM 3, APM 2).

use crate::access;
use crate::machine;
use crate::report::{equal, holds, skip};
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::sync::atomic::{AtomicU64, Ordering};
use vsc_runtime::processor::instruction;
use vsc_runtime::processor::probe::{self, Fault};
use vsc_runtime::{apic, interrupt};
use x86_64::registers::control::{Cr4, Cr4Flags, Efer};

const VECTOR: u8 = 0x62;
const GENERAL_PROTECTION: Result<(), u8> = Err(Fault::GENERAL_PROTECTION);

fn vector(result: Result<(), Fault>) -> Result<(), u8> {
    result.map_err(|fault| fault.vector)
}

/// Checks the processor.
pub(crate) fn check() {
    halting();
    events();
    extended_control();
    control_registers();
}

fn halting() {
    let before = interrupt::count(VECTOR);
    x86_64::instructions::interrupts::disable();
    apic::send_self(VECTOR);
    instruction::wait();
    equal(
        "HLT",
        "an interrupt that was pending wakes the VP at once",
        interrupt::count(VECTOR),
        before + 1,
    );
    let Some(other) = machine::other() else {
        skip("HLT", "an IPI wakes a VP", "there is one processor");
        return;
    };
    static WOKEN: AtomicU64 = AtomicU64::new(0);
    static HALT: machine::Work = || {
        x86_64::instructions::interrupts::disable();
        instruction::wait();
        WOKEN.fetch_add(1, Ordering::AcqRel);
    };
    machine::begin_on(other, &HALT);
    machine::pause(5);
    let id = other.apic_id.load(Ordering::Acquire);
    // On a busy host it may not have halted yet, and takes the first IPI before that.
    let woken = machine::wait_until(|| {
        apic::send(id, VECTOR);
        machine::pause(5);
        WOKEN.load(Ordering::Acquire) == 1
    });
    holds("HLT", "an IPI wakes a VP", woken && machine::finish_on(other));
}

fn events() {
    let before = interrupt::count(3);
    interrupt::set_handler(3, |_| {});
    x86_64::instructions::interrupts::int3();
    interrupt::clear_handler(3);
    equal("#BP", "INT3 comes at vector 3", interrupt::count(3), before + 1);
    let before = interrupt::count(2);
    apic::send_nmi(apic::id());
    let came = machine::wait_until(|| interrupt::count(2) == before + 1);
    holds("NMI", "a VP can send one to itself", came);
    x86_64::instructions::interrupts::disable();
    let before = interrupt::count(2);
    apic::send_nmi(apic::id());
    let came = machine::wait_until(|| interrupt::count(2) == before + 1);
    x86_64::instructions::interrupts::enable();
    holds("NMI", "it comes with interrupts off", came);
    let fault = probe::read(0).map_err(|fault| fault.vector);
    equal("#PF", "a page that is not present", fault, Err(Fault::PAGE_FAULT));
    let fault = probe::read(1 << 63).map_err(|fault| fault.vector);
    equal(
        "#GP",
        "an address that is not canonical",
        fault,
        Err(Fault::GENERAL_PROTECTION),
    );
    if let Some(after) = crate::state::shadow_ends_after_exit(VECTOR) {
        holds(
            "STI",
            "the instruction after it comes before the interrupt, also where it exits",
            after,
        );
    }
}

fn extended_control() {
    let name = "XSETBV";
    if __cpuid_count(1, 0).ecx & 1 << 26 == 0 {
        skip(name, "its rules", "there is no XSAVE");
        return;
    }
    if !Cr4::read().contains(Cr4Flags::OSXSAVE) {
        equal(
            name,
            "without CR4.OSXSAVE it raises #UD",
            vector(access::xsetbv(0, 1)),
            Err(Fault::INVALID_OPCODE),
        );
    }
    let leaf = __cpuid_count(0xd, 0);
    let supported = u64::from(leaf.edx) << 32 | u64::from(leaf.eax);
    instruction::enable_xsave(0b11);
    equal(name, "1 (x87) is taken", vector(access::xsetbv(0, 1)), Ok(()));
    equal(
        name,
        "3 (x87, SSE) is taken",
        vector(access::xsetbv(0, 3)),
        Ok(()),
    );
    for (register, value, rule) in [
        (0, 0, "x87 state cannot be left out"),
        (0, 2, "x87 state cannot be left out, with SSE"),
        (0, 5, "AVX state needs SSE state"),
        (
            0,
            !supported & !0x3ff | 3,
            "components that are not there are refused",
        ),
        (1, 1, "XCR1 does not exist"),
        (9, 1, "XCR9 does not exist"),
    ] {
        equal(
            name,
            rule,
            vector(access::xsetbv(register, value)),
            GENERAL_PROTECTION,
        );
    }
    equal(
        "CPUID",
        "D.EBX is the size of what XCR0 has on",
        __cpuid_count(0xd, 0).ebx,
        576,
    );
    if supported & 4 != 0 {
        equal(
            name,
            "7 (x87, SSE, AVX) is taken",
            vector(access::xsetbv(0, 7)),
            Ok(()),
        );
        equal("CPUID", "D.EBX grows with AVX", __cpuid_count(0xd, 0).ebx, 832);
    }
}

fn control_registers() {
    let cr4 = Cr4::read_raw();
    // QEMU's own processors execute the instruction again and again.
    let is_emulated = __cpuid(0x8000_0002).eax == u32::from_le_bytes(*b"QEMU");
    if is_emulated {
        skip("CR4", "VMXE cannot be set", "this emulator does not survive it");
    }
    for (bit, what) in [(13, "VMXE"), (14, "SMXE"), (31, "a reserved bit")]
        .into_iter()
        .filter(|_| !is_emulated)
    {
        let written = vector(access::write_cr4(cr4 | 1 << bit));
        equal(
            "CR4",
            format_args!("{what} cannot be set"),
            written,
            GENERAL_PROTECTION,
        );
    }
    let efer = Efer::read_raw();
    for (bit, what) in [(12, "SVME"), (1, "a reserved bit"), (63, "bit 63")] {
        let written = vector(access::write_msr(0xc000_0080, efer | 1 << bit));
        equal(
            "EFER",
            format_args!("{what} cannot be set"),
            written,
            GENERAL_PROTECTION,
        );
    }
    equal("EFER", "it keeps its value", Efer::read_raw(), efer);
    equal(
        "DR7",
        "its upper half is reserved",
        vector(access::write_dr7(1 << 32)),
        GENERAL_PROTECTION,
    );
    equal(
        "PAT",
        "a type that does not exist is refused",
        vector(access::write_msr(0x277, 2)),
        GENERAL_PROTECTION,
    );
}
