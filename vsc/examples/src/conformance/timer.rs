//! Synthetic timers in direct mode (TLFS, "Synthetic Timers"). Their messages are the SynIC's part.

use crate::Context;
use crate::machine::{self, Work};
use crate::report::{equal, holds, skip};
use core::sync::atomic::{AtomicU64, Ordering};
use hypercall_api::cpuid::Features;
use hypercall_api::msr::StimerConfig;
use vsc_runtime::hypervisor::{time, timer};
use vsc_runtime::{interrupt, processor};

const NAME: &str = "Synthetic timer";
const CONFIG: &str = "HV_X64_MSR_STIMERx_CONFIG";
const COUNT: &str = "HV_X64_MSR_STIMERx_COUNT";
const VECTOR: u8 = 0x74;

/// Reference time of the last expiry.
static EXPIRED_AT: AtomicU64 = AtomicU64::new(0);

/// Checks the timers.
pub(crate) fn check(context: &Context) {
    configuration();
    if !context.offer.features.contains(Features::DIRECT_SYNTHETIC_TIMERS) {
        skip(NAME, "direct mode", "the hypervisor does not offer it");
        return;
    }
    interrupt::set_handler(VECTOR, |_| EXPIRED_AT.store(time::now(), Ordering::Release));
    one_shot();
    past();
    stopped();
    not_automatic();
    periodic();
    lazy();
    all_of_them();
    of_each_vp();
    halted();
    interrupt::clear_handler(VECTOR);
}

fn configuration() {
    timer::stop(0);
    equal(CONFIG, "zero reads back as zero", timer::config(0).0, 0);
    let lazy = StimerConfig(StimerConfig::LAZY | StimerConfig::AUTO_ENABLE | 5 << 16);
    timer::configure(0, lazy);
    equal(CONFIG, "what is written reads back", timer::config(0), lazy);
    timer::configure(0, StimerConfig(StimerConfig::ENABLED));
    holds(
        CONFIG,
        "in message mode with SINT 0 it is not enabled",
        !timer::config(0).is_enabled(),
    );
    timer::configure(0, StimerConfig(5 << 16));
    timer::set_count(0, time::now() + 1_000_000_000);
    holds(
        COUNT,
        "without AutoEnable it does not enable the timer",
        !timer::config(0).is_enabled(),
    );
    timer::configure(0, StimerConfig(StimerConfig::AUTO_ENABLE | 5 << 16));
    let at = time::now() + 1_000_000_000;
    timer::set_count(0, at);
    holds(
        COUNT,
        "with AutoEnable it enables it",
        timer::config(0).is_enabled(),
    );
    equal(COUNT, "it reads back", timer::count(0), at);
    timer::set_count(0, 0);
    holds(COUNT, "zero disables it", !timer::config(0).is_enabled());
    timer::stop(0);
}

fn direct() -> StimerConfig {
    StimerConfig::direct_one_shot(VECTOR)
}

fn came(before: u64) -> bool {
    machine::wait_until(|| interrupt::count(VECTOR) > before)
}

fn one_shot() {
    let before = interrupt::count(VECTOR);
    timer::configure(0, direct());
    let at = time::now() + time::milliseconds(2);
    timer::set_count(0, at);
    let enabled = timer::config(0).is_enabled() || time::now() >= at;
    let came = came(before);
    holds(NAME, "direct mode raises its vector", enabled && came);
    holds(
        NAME,
        "it does not expire early",
        EXPIRED_AT.load(Ordering::Acquire) >= at,
    );
    holds(
        NAME,
        "it is disabled once it has expired",
        !timer::config(0).is_enabled(),
    );
    machine::pause(5);
    equal(
        NAME,
        "a one-shot timer expires once",
        interrupt::count(VECTOR),
        before + 1,
    );
}

fn past() {
    let before = interrupt::count(VECTOR);
    timer::set_count(0, time::now().saturating_sub(1000).max(1));
    holds(NAME, "with a time in the past it expires at once", came(before));
    let before = interrupt::count(VECTOR);
    timer::set_count(0, 1);
    holds(NAME, "with the time 1 it expires at once", came(before));
}

fn stopped() {
    let before = interrupt::count(VECTOR);
    timer::set_count(0, time::now() + time::milliseconds(5));
    timer::set_count(0, 0);
    machine::pause(15);
    equal(NAME, "a count of 0 stops it", interrupt::count(VECTOR), before);
    timer::set_count(0, time::now() + time::milliseconds(5));
    timer::configure(0, StimerConfig(direct().0 & !StimerConfig::ENABLED));
    machine::pause(15);
    equal(NAME, "disabling it stops it", interrupt::count(VECTOR), before);
    timer::set_count(0, time::now() + time::milliseconds(2));
    timer::set_count(0, time::now() + time::milliseconds(4));
    machine::pause(20);
    equal(
        NAME,
        "setting it anew takes the place of the old time",
        interrupt::count(VECTOR),
        before + 1,
    );
}

fn not_automatic() {
    let before = interrupt::count(VECTOR);
    let config = StimerConfig(direct().0 & !StimerConfig::AUTO_ENABLE);
    timer::configure(0, config);
    timer::set_count(0, time::now() + time::milliseconds(2));
    machine::pause(10);
    let silent = interrupt::count(VECTOR) == before;
    timer::configure(0, config.with_enabled(true));
    holds(
        NAME,
        "it expires when it is enabled after its time",
        silent && came(before),
    );
    timer::stop(0);
}

fn periodic() {
    let period = time::milliseconds(2);
    let before = interrupt::count(VECTOR);
    timer::configure(0, StimerConfig(direct().0 | StimerConfig::PERIODIC));
    let start = time::now();
    timer::set_count(0, period);
    let often = machine::wait_until(|| interrupt::count(VECTOR) >= before + 5);
    let took = time::now() - start;
    holds(NAME, "a periodic timer goes on", often);
    holds(
        NAME,
        "five periods are not shorter than four and a half",
        took >= period * 9 / 2,
    );
    holds(
        NAME,
        "a periodic timer stays enabled",
        timer::config(0).is_enabled(),
    );
    timer::set_count(0, 0);
    machine::pause(2);
    let after = interrupt::count(VECTOR);
    machine::pause(10);
    equal(
        NAME,
        "a count of 0 stops a periodic timer",
        interrupt::count(VECTOR),
        after,
    );
    timer::stop(0);
}

/// What a guest sees of a lazy timer while its VP runs: that it is as good as another. (What it misses while it does not run is the
/// hypervisor's own test.)
fn lazy() {
    let period = time::milliseconds(2);
    let config = StimerConfig(direct().0 | StimerConfig::LAZY);
    let before = interrupt::count(VECTOR);
    timer::configure(0, config);
    let at = time::now() + period;
    timer::set_count(0, at);
    let came = came(before) && EXPIRED_AT.load(Ordering::Acquire) >= at;
    holds(NAME, "a lazy one-shot timer expires, and not early", came);
    let before = interrupt::count(VECTOR);
    timer::configure(0, StimerConfig(config.0 | StimerConfig::PERIODIC));
    let start = time::now();
    timer::set_count(0, period);
    let often = machine::wait_until(|| interrupt::count(VECTOR) >= before + 3);
    let took = time::now() - start;
    holds(
        NAME,
        "a lazy periodic timer goes on, and has no period too many",
        often && took >= period * 5 / 2,
    );
    holds(
        NAME,
        "a lazy periodic timer stays enabled, and lazy",
        timer::config(0).is_enabled() && timer::config(0).is_lazy(),
    );
    timer::set_count(0, 0);
    timer::stop(0);
}

fn all_of_them() {
    const FIRST: u8 = VECTOR + 1;
    let vectors = || (0..timer::TIMERS).map(|index| FIRST + index as u8);
    let before = vectors().map(interrupt::count).sum::<u64>();
    let at = time::now() + time::milliseconds(2);
    for (index, vector) in (0..timer::TIMERS).zip(vectors()) {
        timer::configure(index, StimerConfig::direct_one_shot(vector));
        timer::set_count(index, at);
    }
    let all = machine::wait_until(|| vectors().map(interrupt::count).sum::<u64>() == before + 4);
    holds(NAME, "four run at once", all);
    (0..timer::TIMERS).for_each(timer::stop);
}

fn of_each_vp() {
    let rule = "each VP has timers of its own";
    let Some(other) = machine::other() else {
        skip(NAME, rule, "there is one processor");
        return;
    };
    static ON: AtomicU64 = AtomicU64::new(u64::MAX);
    const OTHER_VECTOR: u8 = VECTOR + 5;
    interrupt::set_handler(OTHER_VECTOR, |_| {
        ON.store(u64::from(processor().index), Ordering::Release);
    });
    static ARM: Work = || {
        timer::configure(0, StimerConfig::direct_one_shot(OTHER_VECTOR));
        timer::set_count(0, time::now() + time::milliseconds(2));
    };
    let done = machine::run_on(other, &ARM);
    let came = machine::wait_until(|| ON.load(Ordering::Acquire) == u64::from(other.index));
    holds(
        NAME,
        rule,
        done && came && !timer::config(0).is_enabled() && timer::count(0) == 0,
    );
    interrupt::clear_handler(OTHER_VECTOR);
}

fn halted() {
    timer::configure(0, direct());
    let before = interrupt::count(VECTOR);
    let start = time::now();
    x86_64::instructions::interrupts::disable();
    timer::set_count(0, start + time::milliseconds(5));
    while interrupt::count(VECTOR) == before {
        vsc_runtime::processor::instruction::wait();
        x86_64::instructions::interrupts::disable();
    }
    x86_64::instructions::interrupts::enable();
    holds(
        "HLT",
        "a timer wakes the VP, not early",
        time::now() >= start + time::milliseconds(5),
    );
    timer::stop(0);
}
