//! The local APIC (SDM 3, "Advanced Programmable Interrupt Controller").

use crate::access;
use crate::machine::{self, Work};
use crate::report::{equal, holds, skip};
use core::sync::atomic::{AtomicU64, Ordering};
use vsc_runtime::apic::{self, register};
use vsc_runtime::interrupt::{self, End};
use vsc_runtime::processor::local;
use vsc_runtime::processor::probe::{self, Fault};
use vsc_runtime::{println, processor};
use x86_64::instructions::interrupts::{disable, enable};

const NAME: &str = "Local APIC";
const LOW: u8 = 0x40;
const HIGH: u8 = 0x90;
const TIMER: u8 = 0x91;

/// Vectors in the order in which they came, a byte each, the last one lowest.
static ORDER: AtomicU64 = AtomicU64::new(0);
/// Bit n: processor n has been called.
static CALLED: AtomicU64 = AtomicU64::new(0);

/// Checks the APIC.
pub(crate) fn check() {
    for vector in [LOW, HIGH] {
        interrupt::set_handler(vector, |frame| {
            let order = ORDER.load(Ordering::Acquire);
            ORDER.store(order << 8 | frame.vector, Ordering::Release);
            CALLED.fetch_or(1 << processor().index, Ordering::AcqRel);
        });
    }
    identity();
    own_interrupts();
    priorities();
    in_service();
    commands();
    errors();
    timer();
    disabled();
    if apic::is_x2apic() {
        x2apic();
    }
    interrupt::clear_handler(LOW);
    interrupt::clear_handler(HIGH);
}

fn bit_of(set: u32, vector: u8) -> bool {
    apic::read(set + u32::from(vector) / 32) & 1 << (vector % 32) != 0
}

fn came(vector: u8, before: u64) -> bool {
    machine::wait_until(|| interrupt::count(vector) > before)
}

fn identity() {
    equal(
        NAME,
        "the first VP has APIC id 0",
        apic::id(),
        processor().apic_id.load(Ordering::Acquire),
    );
    let version = apic::read(register::VERSION);
    holds(
        NAME,
        "its version is that of an integrated one",
        (0x10..0x20).contains(&(version & 0xff)),
    );
    holds(
        NAME,
        "it has at least five LVT entries",
        version >> 16 & 0xff >= 4,
    );
    let base = probe::read_msr(0x1b).unwrap_or_default();
    equal(
        "IA32_APIC_BASE",
        "it is enabled, at its usual address, on the first VP",
        base & !(1 << 10),
        0xfee0_0900,
    );
}

fn own_interrupts() {
    let before = interrupt::count(LOW);
    apic::send_self(LOW);
    holds(NAME, "an IPI to itself comes", came(LOW, before));
    let before = interrupt::count(LOW);
    apic::command(0, 1 << 18 | u64::from(LOW));
    holds(NAME, "an IPI by the shorthand 'self' comes", came(LOW, before));
    let before = interrupt::count(LOW);
    disable();
    apic::send_self(LOW);
    apic::send_self(LOW);
    let requested = bit_of(register::IRR, LOW);
    let early = interrupt::count(LOW) != before;
    enable();
    let came = came(LOW, before);
    machine::pause(1);
    holds(
        NAME,
        "with interrupts off it waits in the IRR",
        requested && !early && came,
    );
    equal(
        NAME,
        "two requests at one vector are one interrupt",
        interrupt::count(LOW),
        before + 1,
    );
}

fn priorities() {
    disable();
    ORDER.store(0, Ordering::Release);
    apic::send_self(LOW);
    apic::send_self(HIGH);
    enable();
    let both = machine::wait_until(|| ORDER.load(Ordering::Acquire) > 0xff);
    equal(
        NAME,
        "the higher vector comes first",
        (both, ORDER.load(Ordering::Acquire)),
        (true, u64::from(HIGH) << 8 | u64::from(LOW)),
    );
    let name = "TPR";
    let before = (interrupt::count(LOW), interrupt::count(HIGH));
    apic::write(register::TPR, 0x50);
    apic::send_self(LOW);
    apic::send_self(HIGH);
    let high = came(HIGH, before.1);
    machine::pause(2);
    let held = interrupt::count(LOW) == before.0;
    equal(name, "it reads back", apic::read(register::TPR), 0x50);
    equal(name, "PPR is no lower", apic::read(register::PPR) & 0xf0, 0x50);
    equal(name, "CR8 is its upper half", task_priority(), 5);
    apic::write(register::TPR, 0);
    let low = came(LOW, before.0);
    holds(
        name,
        "it holds lower classes back, and lets them go",
        high && held && low,
    );
}

fn task_priority() -> u64 {
    access::cr8()
}

fn in_service() {
    static STATE: AtomicU64 = AtomicU64::new(0);
    const MANUAL: u8 = 0x45;
    let name = "EOI";
    interrupt::set_end(MANUAL, End::Manual);
    interrupt::set_handler(MANUAL, |_| {
        STATE.store(
            1 | u64::from(bit_of(register::ISR, MANUAL)) << 1 | u64::from(bit_of(register::IRR, MANUAL)) << 2,
            Ordering::Release,
        );
    });
    let before = interrupt::count(MANUAL);
    apic::send_self(MANUAL);
    came(MANUAL, before);
    equal(
        name,
        "in its handler an interrupt is in service and not requested",
        STATE.load(Ordering::Acquire),
        0b011,
    );
    apic::send_self(LOW);
    let lower = interrupt::count(LOW);
    let before = interrupt::count(HIGH);
    apic::send_self(HIGH);
    let higher = came(HIGH, before);
    holds(
        name,
        "what is in service holds its class back, and no higher one",
        higher && interrupt::count(LOW) == lower && bit_of(register::IRR, LOW),
    );
    apic::end_of_interrupt();
    holds(
        name,
        "it ends what is in service",
        came(LOW, lower) && !bit_of(register::ISR, MANUAL),
    );
    apic::end_of_interrupt();
    holds(name, "with nothing in service it does nothing", true);
    interrupt::clear_handler(MANUAL);
    interrupt::set_end(MANUAL, End::Automatic);
}

fn reached(bits: u64) -> bool {
    let came = machine::wait_until(|| CALLED.load(Ordering::Acquire) & bits == bits);
    machine::pause(2);
    let exact = CALLED.swap(0, Ordering::AcqRel) == bits;
    came && exact
}

fn commands() {
    let name = "ICR";
    let me = processor();
    let running = || local::all().filter(|other| other.running.load(Ordering::Acquire));
    let everybody = running().fold(0, |bits, other| bits | 1 << other.index);
    CALLED.store(0, Ordering::Release);
    apic::command(0, 2 << 18 | u64::from(LOW));
    holds(name, "the shorthand 'all' reaches all", reached(everybody));
    let Some(other) = machine::other() else {
        skip(name, "IPIs to other VPs", "there is one processor");
        return;
    };
    let id = other.apic_id.load(Ordering::Acquire);
    apic::send(id, LOW);
    holds(
        name,
        "a physical destination reaches one VP",
        reached(1 << other.index),
    );
    apic::command(0, 3 << 18 | u64::from(LOW));
    holds(
        name,
        "the shorthand 'all but self' reaches the others",
        reached(everybody & !(1 << me.index)),
    );
    if apic::is_x2apic() {
        let logical = (id >> 4) << 16 | 1 << (id & 0xf);
        apic::command(logical, 1 << 11 | u64::from(LOW));
        holds(
            name,
            "a logical destination reaches its VP",
            reached(1 << other.index),
        );
        apic::command(u32::MAX, u64::from(LOW));
        holds(name, "the broadcast destination reaches all", reached(everybody));
    }
    // To a VP that is not there.
    apic::send(0xfe, LOW);
    machine::pause(2);
    equal(
        name,
        "a destination that is not there reaches nobody",
        CALLED.load(Ordering::Acquire),
        0,
    );
    // A startup IPI without INIT before it.
    apic::command(id, 6 << 8 | 1 << 14 | 8);
    static NOTHING: Work = || {};
    holds(
        name,
        "a startup IPI to a running VP does nothing",
        machine::run_on(other, &NOTHING),
    );
    let before = interrupt::count(2);
    apic::send_nmi(id);
    let came = machine::wait_until(|| interrupt::count(2) == before + 1);
    holds("NMI", "it reaches another VP, halted or not", came);
}

fn errors() {
    let name = "ESR";
    apic::write(register::ESR, 0);
    // An emulator that delivers it would stop the guest.
    interrupt::set_handler(5, |_| {});
    apic::command(0, 1 << 18 | 5);
    apic::write(register::ESR, 0);
    let error = apic::read(register::ESR);
    holds(
        name,
        "an IPI at vector 5 is an error",
        error & (1 << 5 | 1 << 6) != 0,
    );
    interrupt::clear_handler(5);
    apic::write(register::ESR, 0);
    apic::write(register::ESR, 0);
    equal(name, "writing it clears it", apic::read(register::ESR), 0);
}

fn timer() {
    let name = "Local APIC timer";
    apic::write(register::DIVIDE, apic::DIVIDE_BY_1);
    apic::write(register::LVT_TIMER, u32::from(TIMER));
    equal(
        name,
        "its LVT entry reads back",
        apic::read(register::LVT_TIMER) & 0x700ff,
        u32::from(TIMER),
    );
    let before = interrupt::count(TIMER);
    apic::write(register::INITIAL_COUNT, 200_000);
    let left = apic::read(register::CURRENT_COUNT);
    holds(name, "it counts down", left <= 200_000);
    holds(name, "one-shot: its interrupt comes", came(TIMER, before));
    machine::pause(5);
    equal(name, "one-shot: once", interrupt::count(TIMER), before + 1);
    equal(
        name,
        "one-shot: the count is 0 then",
        apic::read(register::CURRENT_COUNT),
        0,
    );
    apic::write(register::LVT_TIMER, u32::from(TIMER) | apic::LVT_PERIODIC);
    let before = interrupt::count(TIMER);
    apic::write(register::INITIAL_COUNT, 200_000);
    let often = machine::wait_until(|| interrupt::count(TIMER) >= before + 4);
    holds(name, "periodic: it goes on", often);
    apic::write(
        register::LVT_TIMER,
        u32::from(TIMER) | apic::LVT_PERIODIC | apic::LVT_MASKED,
    );
    machine::pause(2);
    let before = interrupt::count(TIMER);
    machine::pause(10);
    equal(
        name,
        "masked: no interrupt comes",
        interrupt::count(TIMER),
        before,
    );
    // Stopped before it is unmasked, and then far from its end: a guest that loses its processor here must not see it expire.
    apic::write(register::INITIAL_COUNT, 0);
    apic::write(register::LVT_TIMER, u32::from(TIMER));
    apic::write(register::INITIAL_COUNT, u32::MAX);
    apic::write(register::INITIAL_COUNT, 0);
    machine::pause(10);
    equal(
        name,
        "an initial count of 0 stops it",
        interrupt::count(TIMER),
        before,
    );
    apic::write(register::LVT_TIMER, apic::LVT_MASKED);
}

fn disabled() {
    let name = "SVR";
    let before = apic::read(register::SVR);
    equal(name, "it reads back", before & 0x1ff, 0x1ff);
    let count = interrupt::count(LOW);
    apic::write(register::SVR, before & !(1 << 8));
    let masked = apic::read(register::LVT_TIMER) & apic::LVT_MASKED != 0;
    apic::write(register::SVR, before);
    apic::send_self(LOW);
    holds(
        name,
        "software-disabled, LVT entries are masked; enabled, interrupts come again",
        masked && came(LOW, count),
    );
}

fn x2apic() {
    let name = "x2APIC MSRs";
    let refused = |result: Result<(), Fault>| result.map_err(|fault| fault.vector);
    let expected = Err(Fault::GENERAL_PROTECTION);
    for number in [0x800, 0x804, 0x80e, 0x831, 0x83a, 0x8ff] {
        let read = probe::read_msr(number).map(drop);
        equal(
            name,
            format_args!("{number:x} does not exist"),
            refused(read),
            expected,
        );
    }
    let read = probe::read_msr(0x83f).map(drop);
    equal(name, "83f cannot be read", refused(read), expected);
    for (number, value, rule) in [
        (0x802, 0, "the id cannot be written"),
        (0x803, 0, "the version cannot be written"),
        (0x80b, 1, "EOI takes only 0"),
        (0x828, 1, "ESR takes only 0"),
        (0x808, 0x100, "TPR has 8 bits"),
        (0x808, 1 << 32, "TPR has no upper half"),
        (0x80f, 1 << 32, "SVR has no upper half"),
    ] {
        let before = probe::read_msr(number);
        equal(name, rule, refused(access::write_msr(number, value)), expected);
        // What was taken after all must not spoil the rules that follow.
        let _ = before.map(|before| access::write_msr(number, before));
    }
    let base = probe::read_msr(0x1b).unwrap_or_default();
    for (value, rule) in [
        (base & !(1 << 10), "x2APIC mode does not go back to xAPIC mode"),
        (base & !(1 << 11), "x2APIC mode without the enable bit is refused"),
        (base | 1, "a reserved bit is refused"),
    ] {
        equal(
            "IA32_APIC_BASE",
            rule,
            refused(access::write_msr(0x1b, value)),
            expected,
        );
    }
    if probe::read_msr(0x1b) != Ok(base) {
        println!("conformance: the APIC is no longer what it was");
    }
}
