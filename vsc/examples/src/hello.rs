//! The first guest: starts every processor it has, lets each wait for its timer and call the next by an interrupt, and says
//! so on the console.
//!
//! Lines that tests may wait for: `hello: VP N says hello` for each VP, `hello: VP N was called by the one before`, and at
//! the end `hello: done`, after which it powers off.
//!
//! One word on the command line makes it end otherwise, for tests of what a parent can do about a guest:
//!
//! | word | instead of the end |
//! |---|---|
//! | `forever` | `hello: tick N` every 100 ms, for good |
//! | `stuck` | every processor spins with interrupts off |
//! | `halted` | every processor halts with interrupts off |
//! | `reset` | resets the machine |
//! | `panic` | a panic: reported, then power off |
//! | `fault` | an exception that nobody handles: reported, then power off |
//! | `triple-fault` | a triple fault |
//! | `crash` | tells the hypervisor that it has crashed, with a text of two lines |
//! | `beyond` | an access past its memory that no VM worker emulates |
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use hypercall_api::msr::{self, StimerConfig};
use vsc_runtime::boot::BootInfo;
use vsc_runtime::hypervisor::{self, time, timer};
use vsc_runtime::processor::instruction::write_msr;
use vsc_runtime::processor::local;
use vsc_runtime::processor::start::start_others;
use vsc_runtime::{Processor, apic, interrupt, println, processor};

/// Unused: the runtime is built with what the guests that have devices need.
#[global_allocator]
static HEAP: vsc_runtime::memory::heap::Heap = vsc_runtime::memory::heap::new();

vsc_runtime::guest_main!(main);

const TIMER_VECTOR: u8 = 0x50;
const CALL_VECTOR: u8 = 0x51;
/// Expiries of the timer that each processor waits for.
const TICKS: u64 = 3;
/// Between two of them, in 100 ns: 10 ms.
const INTERVAL: u64 = 100_000;

/// Processors that have finished.
static FINISHED: AtomicU32 = AtomicU32::new(0);
/// Processors that run, once it is known.
static RUNNING: AtomicU32 = AtomicU32::new(0);
/// Bit n: processor n has been called.
static CALLED: AtomicU64 = AtomicU64::new(0);

fn main(boot: &BootInfo) {
    println!("hello: command line '{}'", boot.command_line);
    let memory: u64 = boot.ram().map(|range| range.end - range.start).sum();
    println!("hello: {} KiB of memory", memory >> 10);
    match hypervisor::init() {
        Some(_) => println!("hello: running as a child partition, at {} x 100 ns", time::now()),
        None => println!("hello: not under Partita"),
    }
    interrupt::set_handler(CALL_VECTOR, |_| {
        CALLED.fetch_or(1 << processor().index, Ordering::AcqRel);
    });
    let count = start_others(boot, work);
    println!("hello: {count} processors");
    RUNNING.store(count as u32, Ordering::Release);
    work(processor());
    while FINISHED.load(Ordering::Acquire) < count as u32 {
        core::hint::spin_loop();
    }
    end(boot);
    println!("hello: done");
}

/// Ends as the command line says, if it says so.
fn end(boot: &BootInfo) {
    let asked = |word| boot.has_option(word);
    if asked("forever") {
        for tick in 1u64.. {
            println!("hello: tick {tick}");
            for _ in 0..10 {
                sleep();
            }
        }
    }
    for (word, what) in [("stuck", STUCK), ("halted", HALTED)] {
        if asked(word) {
            println!("hello: {word}");
            ENDING.store(what, Ordering::Release);
            // To all others.
            apic::command(0, 3 << 18 | u64::from(CALL_VECTOR));
            stay();
        }
    }
    match () {
        () if asked("reset") => vsc_runtime::power::reset(),
        () if asked("panic") => panic!("as the command line asks"),
        () if asked("fault") => vsc_runtime::stop::provoke_fault(),
        () if asked("triple-fault") => vsc_runtime::stop::triple_fault(),
        () if asked("beyond") => beyond(),
        () if asked("crash") => crash(),
        () => {}
    }
}

/// Where no machine has memory or a device.
const NOTHING: u64 = 0xd000_0000;

/// Compares and exchanges what is not there: no device register is used so.
#[allow(unsafe_code)]
fn beyond() {
    // SAFETY: the address is aligned and mapped, and no memory of the program is there.
    let word = unsafe { AtomicU64::from_ptr(NOTHING as *mut u64) };
    let found = word.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire);
    println!("hello: beyond its memory is {found:x?}");
}

/// Tells the hypervisor of a crash, by the MSRs of which the last two are address and length of a text.
#[allow(unsafe_code)]
fn crash() {
    static TEXT: &[u8] = b"hello: what was going on\nhello: and how it ended\n";
    let parameters = [0, 0, 0, TEXT.as_ptr() as u64, TEXT.len() as u64];
    for (number, parameter) in (msr::CRASH_P0..).zip(parameters) {
        // SAFETY: the text lives as long as the program, and memory is mapped to itself.
        unsafe { write_msr(number, parameter) };
    }
    // SAFETY: as above.
    unsafe { write_msr(msr::CRASH_CTL, msr::crash::NOTIFY | msr::crash::NOTIFY_MESSAGE) };
    println!("hello: nobody has stopped it");
}

/// How the others are to stay: not at all, [`STUCK`] or [`HALTED`].
static ENDING: AtomicU32 = AtomicU32::new(0);
const STUCK: u32 = 1;
const HALTED: u32 = 2;

/// Stays as [`ENDING`] says, with interrupts off.
fn stay() {
    x86_64::instructions::interrupts::disable();
    match ENDING.load(Ordering::Acquire) {
        STUCK => loop {
            core::hint::spin_loop();
        },
        _ => vsc_runtime::processor::instruction::stop(),
    }
}

/// What each processor does.
fn work(me: &'static Processor) {
    println!("hello: VP {} says hello", me.index);
    for _ in 0..TICKS {
        sleep();
    }
    println!("hello: VP {} has waited for its timer", me.index);
    let count = loop {
        match RUNNING.load(Ordering::Acquire) {
            0 => core::hint::spin_loop(),
            count => break count,
        }
    };
    let next = local::all().nth(((me.index + 1) % count) as usize).unwrap_or(me);
    apic::send(next.apic_id.load(Ordering::Acquire), CALL_VECTOR);
    while CALLED.load(Ordering::Acquire) & 1 << me.index == 0 {
        core::hint::spin_loop();
    }
    println!("hello: VP {} was called by the one before", me.index);
    FINISHED.fetch_add(1, Ordering::AcqRel);
    if me.index == 0 {
        return;
    }
    // The boot processor decides how it ends; until then, the others wait for interrupts.
    loop {
        vsc_runtime::processor::instruction::wait();
        if ENDING.load(Ordering::Acquire) != 0 {
            stay();
        }
    }
}

/// Waits for the timer, halted: the synthetic one, or without a hypervisor that of the APIC.
fn sleep() {
    static EXPIRED: [AtomicU64; local::MAX_PROCESSORS] = [const { AtomicU64::new(0) }; local::MAX_PROCESSORS];
    interrupt::set_handler(TIMER_VECTOR, |_| {
        EXPIRED[processor().index as usize].fetch_add(1, Ordering::AcqRel);
    });
    let expired = &EXPIRED[processor().index as usize];
    let before = expired.load(Ordering::Acquire);
    x86_64::instructions::interrupts::disable();
    match hypervisor::detect::find() {
        Some(_) => {
            timer::configure(0, StimerConfig::direct_one_shot(TIMER_VECTOR));
            timer::set_count(0, time::now() + INTERVAL);
        }
        None => {
            apic::write(apic::register::DIVIDE, apic::DIVIDE_BY_1);
            apic::write(apic::register::LVT_TIMER, u32::from(TIMER_VECTOR));
            apic::write(apic::register::INITIAL_COUNT, 1_000_000);
        }
    }
    while expired.load(Ordering::Acquire) == before {
        vsc_runtime::processor::instruction::wait();
        x86_64::instructions::interrupts::disable();
    }
    x86_64::instructions::interrupts::enable();
}
