//! The measuring guest: what the ways into the hypervisor cost a guest, in TSC ticks. On a machine that counts instructions
//! a tick is an instruction, the same on every host.
//!
//! Prints `bench: first instruction at N ticks` and a line `bench: NAME MINIMUM MEDIAN` for each way, then `bench: done`,
//! and powers off. What reading the TSC costs is not counted. SignalEvent goes to a port of the guest's own
//! (`loopback = true` in its description), whose SINT is masked: what the call costs, and not what comes of it.
#![no_std]
#![no_main]
#![allow(unsafe_code)]

use core::arch::x86_64::__cpuid;
use core::hint::{black_box, spin_loop};
use core::sync::atomic::{AtomicU64, Ordering};
use hypercall_api::call::GuestCalls;
use hypercall_api::code::HypercallCode;
use hypercall_api::control::HypercallInput;
use hypercall_api::cpuid::LEAF_VENDOR;
use hypercall_api::msr::{EOM, StimerConfig, TIME_REF_COUNT, VP_INDEX};
use hypercall_api::port::loopback;
use vsc_runtime::boot::BootInfo;
use vsc_runtime::hypervisor::{self, HypercallPage, synic, time, timer};
use vsc_runtime::processor::instruction::{read_msr, tsc, write_msr};
use vsc_runtime::{apic, interrupt, println};
use x86_64::instructions::port::Port;

/// Unused: the runtime is built with what the guests that have devices need.
#[global_allocator]
static HEAP: vsc_runtime::memory::heap::Heap = vsc_runtime::memory::heap::new();

vsc_runtime::guest_main!(main);

/// Samples of a measurement; odd, so that one of them is the median.
const ROUNDS: usize = 301;
/// A code that no hypercall has.
const NO_SUCH_CALL: HypercallCode = HypercallCode(0x7fff);
/// A port that no device has: the root answers it.
const NO_PORT: u16 = 0x700;
const VECTOR: u8 = 0x60;
/// How far ahead the timer is set, in 100 ns: 1 us.
const AHEAD: u64 = 10;

/// When the handler of [`VECTOR`] was entered; 0 before.
static HANDLED: AtomicU64 = AtomicU64::new(0);

fn main(_: &BootInfo) {
    println!("bench: first instruction at {} ticks", tsc());
    let Some(hypercalls) = hypervisor::init() else {
        println!("bench: not under Partita");
        return;
    };
    interrupt::set_handler(VECTOR, |_| HANDLED.store(tsc(), Ordering::Release));
    timer::configure(0, StimerConfig::direct_one_shot(VECTOR));
    measure("cpuid", cpuid);
    measure("hypercall", || invalid_hypercall(hypercalls));
    measure("vp-index", || read(VP_INDEX));
    measure("reference-counter", || read(TIME_REF_COUNT));
    measure("eom", end_of_message);
    signal_event(hypercalls);
    report(
        "self-ipi",
        sample(|| until_handled(|| apic::send_self(VECTOR))),
        0,
    );
    report("timer", sample(direct_timer), 0);
    measure("port", port);
    println!("bench: done");
}

fn cpuid() {
    black_box(__cpuid(LEAF_VENDOR));
}

fn invalid_hypercall(hypercalls: HypercallPage) {
    // SAFETY: no call has this code, and a fast call has no parameters in memory.
    black_box(unsafe { hypercalls.call(HypercallInput::fast(NO_SUCH_CALL).0, 0, 0) });
}

fn read(msr: u32) {
    black_box(read_msr(msr));
}

fn end_of_message() {
    // SAFETY: no message is in any slot.
    unsafe { write_msr(EOM, 0) };
}

/// SignalEvent to a connected port, whose flag is clear each time.
fn signal_event(hypercalls: HypercallPage) {
    let flag = usize::from(loopback::FIRST_FLAG);
    if hypercalls.signal_event(loopback::EVENTS, 0).is_err() {
        println!("bench: signal-event needs loopback = true in the description");
        return;
    }
    let around = |signal: bool| {
        synic::take_event(loopback::EVENT_SINT.into(), flag);
        let start = tsc();
        if signal {
            black_box(hypercalls.signal_event(loopback::EVENTS, 0)).unwrap_or_default();
        }
        tsc() - start
    };
    let overhead = sample(|| around(false))[0];
    report("signal-event", sample(|| around(true)), overhead);
}

fn port() {
    // SAFETY: no device has this port.
    black_box(unsafe { Port::<u8>::new(NO_PORT).read() });
}

/// Ticks from arming a timer 1 us ahead to its handler.
fn direct_timer() -> u64 {
    until_handled(|| timer::set_count(0, time::now() + AHEAD))
}

/// Ticks from before `cause` until the handler that it causes is entered.
fn until_handled(cause: impl FnOnce()) -> u64 {
    HANDLED.store(0, Ordering::Release);
    let start = tsc();
    cause();
    loop {
        match HANDLED.load(Ordering::Acquire) {
            0 => spin_loop(),
            end => return end - start,
        }
    }
}

/// Measures `operation`, from before it to behind it.
fn measure(name: &str, operation: impl Fn()) {
    let around = |operation: &dyn Fn()| {
        let start = tsc();
        operation();
        tsc() - start
    };
    let overhead = sample(|| around(&|| {}))[0];
    report(name, sample(|| around(&operation)), overhead);
}

fn report(name: &str, samples: [u64; ROUNDS], overhead: u64) {
    let [minimum, median] = [samples[0], samples[ROUNDS / 2]].map(|ticks| ticks.saturating_sub(overhead));
    println!("bench: {name} {minimum} {median}");
}

/// Samples, sorted.
fn sample(take: impl Fn() -> u64) -> [u64; ROUNDS] {
    let mut samples = [0; ROUNDS];
    for sample in &mut samples {
        *sample = take();
    }
    samples.sort_unstable();
    samples
}
