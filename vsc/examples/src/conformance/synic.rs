//! The SynIC (TLFS, "Virtual Interrupt Control", "Inter-Partition Communication"), by the messages that synthetic timers send.

use crate::Context;
use crate::machine::{self, Work};
use crate::report::{equal, holds, skip, within};
use core::sync::atomic::{AtomicU64, Ordering};
use hypercall_api::message::{Message, MessageType, TimerMessage};
use hypercall_api::msr::{self, Sint, StimerConfig};
use vsc_runtime::apic::{self, register};
use vsc_runtime::hypervisor::{synic, time, timer};
use vsc_runtime::interrupt::{self, End};
use vsc_runtime::processor::instruction::read_msr;

const VECTOR: u8 = 0x70;
const AUTO_VECTOR: u8 = 0x71;
/// SINT that the tests use.
const SINT: usize = 3;
const MESSAGES: &str = "SynIC message";

/// Checks the SynIC.
pub(crate) fn check(context: &Context) {
    if !context.offer.privileges.contains(
        hypercall_api::privilege::Privileges::ACCESS_SYNIC_REGS
            | hypercall_api::privilege::Privileges::ACCESS_SYNTHETIC_TIMER_REGS,
    ) {
        skip(
            MESSAGES,
            "timer messages",
            "this partition has no SynIC or no timers",
        );
        return;
    }
    reset_values();
    message();
    pending();
    masked();
    polling();
    auto_end();
    timer::stop(1);
    synic::set_sint(SINT, Sint::RESET);
}

/// A timer that sends messages to [`SINT`] once.
fn message_timer() -> StimerConfig {
    StimerConfig(StimerConfig::AUTO_ENABLE | (SINT as u64) << 16)
}

fn arm(index: u32) -> u64 {
    let at = time::now() + 10_000;
    timer::configure(index, message_timer());
    timer::set_count(index, at);
    at
}

fn reset_values() {
    let name = "HV_X64_MSR_SINTx";
    let Some(other) = machine::other() else {
        equal(name, "it is masked at first", synic::sint(9), Sint::RESET);
        return;
    };
    static SEEN: AtomicU64 = AtomicU64::new(0);
    static LOOK: Work = || {
        let sints = (0..16).filter(|&index| synic::sint(index) != Sint::RESET).count();
        SEEN.store(sints as u64, Ordering::Release);
    };
    let done = machine::run_on(other, &LOOK);
    holds(
        name,
        "all are masked at first, on each VP",
        done && SEEN.load(Ordering::Acquire) == 0,
    );
    equal(
        "HV_X64_MSR_SCONTROL",
        "it is on once it was turned on",
        read_msr(msr::SCONTROL) & 1,
        1,
    );
}

fn arrived() -> Option<Message> {
    machine::wait_until(|| synic::message_type(SINT) != MessageType::NONE);
    synic::peek(SINT)
}

fn message() {
    synic::set_sint(SINT, Sint::new(VECTOR, false));
    let before = interrupt::count(VECTOR);
    let at = arm(1);
    let message = arrived();
    holds(MESSAGES, "it arrives in the slot of its SINT", message.is_some());
    let Some(message) = message else { return };
    equal(
        MESSAGES,
        "a timer's is of type HvMessageTimerExpired",
        message.message_type,
        MessageType::TIMER_EXPIRED,
    );
    equal(MESSAGES, "a timer's has 24 bytes", message.payload_size, 24);
    let payload = message.payload_as::<TimerMessage>();
    equal(
        MESSAGES,
        "a timer's tells which timer",
        payload.map(|timer| timer.timer_index),
        Some(1),
    );
    let told = payload.map_or(0, |timer| timer.expiration_time);
    equal(MESSAGES, "a timer's tells when it was to expire", told, at);
    let delivered = payload.map_or(0, |timer| timer.delivery_time);
    within(
        MESSAGES,
        "a timer's tells when it was delivered",
        delivered,
        at,
        time::now(),
    );
    let raised = machine::wait_until(|| interrupt::count(VECTOR) == before + 1);
    holds(MESSAGES, "it raises the vector of its SINT", raised);
    synic::free(SINT);
}

fn pending() {
    let name = "SynIC msg_pending, EOM";
    arm(1);
    let first = arrived().is_some();
    arm(2);
    let flagged = machine::wait_until(|| synic::is_pending(SINT));
    holds(
        name,
        "a message that finds its slot taken sets msg_pending",
        first && flagged,
    );
    let index = synic::peek(SINT)
        .and_then(|message| message.payload_as::<TimerMessage>())
        .map(|timer| timer.timer_index);
    equal(name, "the one in the slot stays as it is", index, Some(1));
    let before = interrupt::count(VECTOR);
    synic::free(SINT);
    let second = arrived();
    let index = second
        .and_then(|message| message.payload_as::<TimerMessage>())
        .map(|timer| timer.timer_index);
    equal(name, "EOM delivers the one that waits", index, Some(2));
    let raised = machine::wait_until(|| interrupt::count(VECTOR) == before + 1);
    holds(name, "and raises the vector again", raised);
    synic::free(SINT);
    holds(
        name,
        "then nothing waits any more",
        synic::message_type(SINT) == MessageType::NONE,
    );
    synic::end_of_message();
    holds(
        name,
        "EOM with nothing waiting does nothing",
        synic::message_type(SINT) == MessageType::NONE,
    );
    timer::stop(2);
}

fn masked() {
    let name = "HV_X64_MSR_SINTx.Masked";
    synic::set_sint(SINT, Sint(Sint::new(VECTOR, false).0 | Sint::RESET.0));
    let before = interrupt::count(VECTOR);
    arm(1);
    machine::pause(20);
    equal(name, "no interrupt comes", interrupt::count(VECTOR), before);
    timer::stop(1);
    synic::set_sint(SINT, Sint::new(VECTOR, false));
    machine::pause(5);
    if synic::message_type(SINT) != MessageType::NONE {
        synic::free(SINT);
    }
}

fn polling() {
    let name = "HV_X64_MSR_SINTx.Polling";
    synic::set_sint(SINT, Sint(Sint::new(VECTOR, false).0 | 1 << 18));
    let before = interrupt::count(VECTOR);
    arm(1);
    let came = arrived().is_some();
    machine::pause(5);
    holds(
        name,
        "the message comes, and no interrupt",
        came && interrupt::count(VECTOR) == before,
    );
    synic::free(SINT);
}

fn auto_end() {
    let name = "HV_X64_MSR_SINTx.AutoEOI";
    interrupt::set_end(AUTO_VECTOR, End::Manual);
    synic::set_sint(SINT, Sint::new(AUTO_VECTOR, true));
    let before = interrupt::count(AUTO_VECTOR);
    let mut came = true;
    for expected in 1..=2 {
        arm(1);
        came &= machine::wait_until(|| interrupt::count(AUTO_VECTOR) == before + expected);
        if synic::message_type(SINT) != MessageType::NONE {
            synic::free(SINT);
        }
    }
    holds(name, "the next interrupt comes without an EOI", came);
    let word = u32::from(AUTO_VECTOR) / 32;
    let bit = 1 << (AUTO_VECTOR % 32);
    equal(
        name,
        "nothing stays in service",
        apic::read(register::ISR + word) & bit,
        0,
    );
    if apic::read(register::ISR + word) & bit != 0 {
        apic::end_of_interrupt();
    }
    interrupt::set_end(AUTO_VECTOR, End::Automatic);
}
