//! Synthetic MSRs (TLFS, "Synthetic MSRs"): who may read and write which, and which values are refused.

use crate::Context;
use crate::access::write_msr;
use crate::machine;
use crate::report::{equal, holds, skip};
use hypercall_api::cpuid::Features;
use hypercall_api::msr::{self, StimerConfig};
use hypercall_api::privilege::Privileges;
use vsc_runtime::hypervisor::{time, timer, vp_index};
use vsc_runtime::processor::probe::{self, Fault};
use vsc_runtime::{apic, interrupt, processor};

/// What happens at a write.
#[derive(Clone, Copy, PartialEq)]
enum Write {
    /// It raises #GP.
    Refused,
    /// The value that was read can be written back.
    Back,
    /// Zero can be written.
    Zero,
    /// It is not tried.
    Untried,
}

struct Register {
    name: &'static str,
    number: u32,
    privilege: Privileges,
    is_readable: bool,
    write: Write,
}

macro_rules! registers {
    ($($number:ident $name:literal $privilege:ident $readable:literal $write:ident;)*) => {
        &[$(Register {
            name: $name,
            number: msr::$number,
            privilege: Privileges::$privilege,
            is_readable: $readable,
            write: Write::$write,
        },)*]
    };
}

const REGISTERS: &[Register] = registers! {
    // number            name                              privilege                          readable  write
    GUEST_OS_ID          "HV_X64_MSR_GUEST_OS_ID"          ACCESS_HYPERCALL_MSRS              true      Back;
    HYPERCALL            "HV_X64_MSR_HYPERCALL"            ACCESS_HYPERCALL_MSRS              true      Back;
    VP_INDEX             "HV_X64_MSR_VP_INDEX"             ACCESS_VP_INDEX                    true      Refused;
    RESET                "HV_X64_MSR_RESET"                ACCESS_RESET_REG                   true      Zero;
    VP_RUNTIME           "HV_X64_MSR_VP_RUNTIME"           ACCESS_VP_RUN_TIME                 true      Refused;
    TIME_REF_COUNT       "HV_X64_MSR_TIME_REF_COUNT"       ACCESS_PARTITION_REFERENCE_COUNTER true      Refused;
    REFERENCE_TSC        "HV_X64_MSR_REFERENCE_TSC"        ACCESS_PARTITION_REFERENCE_TSC     true      Back;
    TSC_FREQUENCY        "HV_X64_MSR_TSC_FREQUENCY"        ACCESS_FREQUENCY_REGS              true      Refused;
    APIC_FREQUENCY       "HV_X64_MSR_APIC_FREQUENCY"       ACCESS_FREQUENCY_REGS              true      Refused;
    EOI                  "HV_X64_MSR_EOI"                  ACCESS_INTR_CTRL_REGS              false     Zero;
    ICR                  "HV_X64_MSR_ICR"                  ACCESS_INTR_CTRL_REGS              true      Untried;
    TPR                  "HV_X64_MSR_TPR"                  ACCESS_INTR_CTRL_REGS              true      Back;
    VP_ASSIST_PAGE       "HV_X64_MSR_VP_ASSIST_PAGE"       ACCESS_INTR_CTRL_REGS              true      Back;
    SCONTROL             "HV_X64_MSR_SCONTROL"             ACCESS_SYNIC_REGS                  true      Back;
    SVERSION             "HV_X64_MSR_SVERSION"             ACCESS_SYNIC_REGS                  true      Refused;
    SIEFP                "HV_X64_MSR_SIEFP"                ACCESS_SYNIC_REGS                  true      Back;
    SIMP                 "HV_X64_MSR_SIMP"                 ACCESS_SYNIC_REGS                  true      Back;
    SINT0                "HV_X64_MSR_SINT0"                ACCESS_SYNIC_REGS                  true      Back;
    SINT15               "HV_X64_MSR_SINT15"               ACCESS_SYNIC_REGS                  true      Back;
    STIMER0_CONFIG       "HV_X64_MSR_STIMER0_CONFIG"       ACCESS_SYNTHETIC_TIMER_REGS        true      Back;
    STIMER0_COUNT        "HV_X64_MSR_STIMER0_COUNT"        ACCESS_SYNTHETIC_TIMER_REGS        true      Back;
    STIMER3_COUNT        "HV_X64_MSR_STIMER3_COUNT"        ACCESS_SYNTHETIC_TIMER_REGS        true      Back;
    GUEST_IDLE           "HV_X64_MSR_GUEST_IDLE"           ACCESS_GUEST_IDLE_REG              false     Untried;
    REENLIGHTENMENT_CONTROL "HV_X64_MSR_REENLIGHTENMENT_CONTROL" ACCESS_REENLIGHTENMENT_CONTROLS true   Back;
    TSC_EMULATION_CONTROL "HV_X64_MSR_TSC_EMULATION_CONTROL" ACCESS_REENLIGHTENMENT_CONTROLS  true      Back;
    TSC_INVARIANT_CONTROL "HV_X64_MSR_TSC_INVARIANT_CONTROL" ACCESS_TSC_INVARIANT_CONTROLS    true      Back;
};

/// Numbers that no version of the specification gives a meaning for a guest.
const UNKNOWN: [u32; 8] = [
    0x4000_0004,
    0x4000_0011,
    0x4000_0030,
    0x4000_0074,
    0x4000_00a0,
    0x4000_00b8,
    0x4000_0200,
    0x4000_0fff,
];

const REFUSED: Result<(), u8> = Err(Fault::GENERAL_PROTECTION);

fn vector<T>(result: Result<T, Fault>) -> Result<(), u8> {
    result.map(drop).map_err(|fault| fault.vector)
}

/// Checks the MSRs.
pub(crate) fn check(context: &Context) {
    for register in REGISTERS {
        let offered = context.offer.privileges.contains(register.privilege);
        match offered {
            true => check_offered(register),
            false => check_withheld(register.name, register.number),
        }
    }
    check_withheld("HV_X64_MSR_SIRBP", msr::SIRBP);
    for number in UNKNOWN {
        check_withheld("unknown synthetic MSR", number);
    }
    crash_registers(context);
    reserved_bits();
    pages_outside();
    equal(
        "HV_X64_MSR_VP_INDEX",
        "it is the VP's index",
        vp_index().0,
        processor().index,
    );
    equal(
        "HV_X64_MSR_SVERSION",
        "it is 1",
        probe::read_msr(msr::SVERSION).ok(),
        Some(1),
    );
}

fn check_offered(register: &Register) {
    let Register { name, number, .. } = *register;
    if number == msr::GUEST_IDLE {
        return guest_idle(name);
    }
    let read = probe::read_msr(number);
    match register.is_readable {
        true => equal(name, "it can be read", vector(read), Ok(())),
        false => equal(name, "reading it raises #GP", vector(read), REFUSED),
    }
    match register.write {
        Write::Refused => equal(
            name,
            "writing it raises #GP",
            vector(write_msr(number, 0)),
            REFUSED,
        ),
        Write::Back => {
            let value = read.unwrap_or_default();
            let written = vector(write_msr(number, value));
            equal(name, "what was read can be written", written, Ok(()));
            equal(
                name,
                "it keeps its value",
                probe::read_msr(number).ok(),
                Some(value),
            );
        }
        Write::Zero => equal(name, "it can be written", vector(write_msr(number, 0)), Ok(())),
        Write::Untried => {}
    }
}

/// Reading it waits for an interrupt, which comes afterwards.
fn guest_idle(name: &str) {
    const VECTOR: u8 = 0x5a;
    x86_64::instructions::interrupts::disable();
    let before = interrupt::count(VECTOR);
    apic::send_self(VECTOR);
    let read = vector(probe::read_msr(msr::GUEST_IDLE));
    let came_early = interrupt::count(VECTOR) != before;
    x86_64::instructions::interrupts::enable();
    let came = machine::wait_until(|| interrupt::count(VECTOR) == before + 1);
    equal(
        name,
        "reading it goes on at once where an interrupt is pending",
        read,
        Ok(()),
    );
    holds(name, "with interrupts off it stays pending", !came_early && came);
    x86_64::instructions::interrupts::disable();
    let at = time::now() + time::milliseconds(2);
    timer::configure(0, StimerConfig::direct_one_shot(VECTOR));
    timer::set_count(0, at);
    let read = vector(probe::read_msr(msr::GUEST_IDLE));
    let waited = time::now() >= at;
    x86_64::instructions::interrupts::enable();
    holds(name, "reading it waits for a timer", read.is_ok() && waited);
    timer::stop(0);
    equal(
        name,
        "writing it raises #GP",
        vector(write_msr(msr::GUEST_IDLE, 0)),
        REFUSED,
    );
}

fn check_withheld(name: &str, number: u32) {
    let read = vector(probe::read_msr(number));
    equal(name, format_args!("reading {number:x} raises #GP"), read, REFUSED);
    let written = vector(write_msr(number, 0));
    equal(
        name,
        format_args!("writing {number:x} raises #GP"),
        written,
        REFUSED,
    );
}

fn crash_registers(context: &Context) {
    let name = "HV_X64_MSR_CRASH_P0-P4";
    if !context.offer.features.contains(Features::GUEST_CRASH_MSRS) {
        skip(
            name,
            "each keeps what is written",
            "the hypervisor offers no crash MSRs",
        );
        return;
    }
    for index in 0..5 {
        let (number, value) = (msr::CRASH_P0 + index, 0x1234_5678_0000_0000 | u64::from(index));
        let written = vector(write_msr(number, value));
        let kept = probe::read_msr(number).ok() == Some(value);
        holds(
            name,
            format_args!("P{index} keeps what is written"),
            written.is_ok() && kept,
        );
    }
    let control = probe::read_msr(msr::CRASH_CTL).unwrap_or_default();
    holds(
        "HV_X64_MSR_CRASH_CTL",
        "bit 63 tells that crashes are noted",
        control & msr::crash::NOTIFY != 0,
    );
}

fn reserved_bits() {
    for vector_number in 0..16 {
        let written = vector(write_msr(msr::SINT0 + 8, vector_number));
        equal(
            "HV_X64_MSR_SINTx",
            format_args!("unmasked with vector {vector_number} raises #GP"),
            written,
            REFUSED,
        );
    }
    let before = probe::read_msr(msr::SINT0 + 8).ok();
    equal(
        "HV_X64_MSR_SINTx",
        "a refused write changes nothing",
        before,
        Some(msr::Sint::RESET.0),
    );
    for bit in [13, 15, 20, 63] {
        let written = vector(write_msr(msr::STIMER0_CONFIG, 1 << bit));
        equal(
            "HV_X64_MSR_STIMERx_CONFIG",
            format_args!("reserved bit {bit} raises #GP"),
            written,
            REFUSED,
        );
    }
    let direct = 1 << 12 | 15 << 4;
    equal(
        "HV_X64_MSR_STIMERx_CONFIG",
        "direct mode with vector 15 raises #GP",
        vector(write_msr(msr::STIMER0_CONFIG, direct)),
        REFUSED,
    );
}

/// Pages at addresses that the partition cannot have.
fn pages_outside() {
    const OUTSIDE: u64 = 0x000f_ffff_ffff_f000 | 1;
    for (name, number) in [
        ("HV_X64_MSR_HYPERCALL", msr::HYPERCALL),
        ("HV_X64_MSR_VP_ASSIST_PAGE", msr::VP_ASSIST_PAGE),
    ] {
        let before = probe::read_msr(number);
        let written = vector(write_msr(number, OUTSIDE));
        equal(
            name,
            "a page outside the address space raises #GP",
            written,
            REFUSED,
        );
        equal(
            name,
            "a refused write changes nothing",
            probe::read_msr(number),
            before,
        );
        if let Ok(value) = before {
            let _ = write_msr(number, value);
        }
    }
}
