//! Ports and connections (TLFS, "Inter-Partition Communication"), by those of this partition to itself.

use crate::Context;
use crate::machine;
use crate::report::{equal, holds, skip};
use hypercall_api::call::GuestCalls;
use hypercall_api::message::MessageType;
use hypercall_api::msr::Sint;
use hypercall_api::port::loopback;
use hypercall_api::status::HvStatus;
use vsc_runtime::hypervisor::synic;
use vsc_runtime::interrupt;

const MESSAGE_VECTOR: u8 = 0x73;
const EVENT_VECTOR: u8 = 0x74;
const MESSAGE_SINT: usize = loopback::MESSAGE_SINT as usize;
const EVENT_SINT: usize = loopback::EVENT_SINT as usize;
/// Messages that a port keeps.
const BUFFERS: u32 = 16;
const TYPE: MessageType = MessageType(7);
const POST: &str = "HvCallPostMessage";
const SIGNAL: &str = "HvCallSignalEvent";

/// Checks them. Runs on VP 0, whose ports they are.
pub(crate) fn check(context: &Context) {
    let there = context.hypercalls.signal_event(loopback::EVENTS, loopback::FLAGS);
    if there == Err(HvStatus::INVALID_CONNECTION_ID) {
        skip(POST, "messages to itself", "it has no loopback = true");
        return;
    }
    messages(context);
    queue(context);
    events(context);
    for sint in [MESSAGE_SINT, EVENT_SINT] {
        synic::set_sint(sint, Sint::RESET);
    }
}

/// The first four bytes of the message in the slot.
fn number() -> Option<u32> {
    let message = synic::peek(MESSAGE_SINT)?;
    message
        .payload
        .first_chunk()
        .map(|bytes| u32::from_le_bytes(*bytes))
}

fn messages(context: &Context) {
    let calls = context.hypercalls;
    synic::set_sint(MESSAGE_SINT, Sint::new(MESSAGE_VECTOR, false));
    let before = interrupt::count(MESSAGE_VECTOR);
    let payload: [u8; 240] = core::array::from_fn(|index| index as u8);
    let posted = calls.post_message(loopback::MESSAGES, TYPE, &payload);
    equal(POST, "a message to a connected port is taken", posted, Ok(()));
    let message = synic::peek(MESSAGE_SINT);
    let whole = message.is_some_and(|message| {
        (message.message_type, message.payload_size) == (TYPE, 240) && message.payload[..] == payload[..]
    });
    holds(POST, "it arrives whole, with its type and size", whole);
    let raised = machine::wait_until(|| interrupt::count(MESSAGE_VECTOR) == before + 1);
    holds(POST, "it raises the vector of the port's SINT", raised);
    let none = calls.post_message(loopback::MESSAGES, MessageType::NONE, &[]);
    equal(POST, "type 0 is refused", none, Err(HvStatus::INVALID_PARAMETER));
    let event = calls.post_message(loopback::EVENTS, TYPE, &[]);
    holds(POST, "a port of events takes no message", event.is_err());
    holds(
        POST,
        "what was refused has not been queued",
        !synic::is_pending(MESSAGE_SINT),
    );
    synic::free(MESSAGE_SINT);
    let size = |length: usize| {
        let posted = calls.post_message(loopback::MESSAGES, TYPE, &payload[..length]);
        let message = synic::take(MESSAGE_SINT);
        posted.is_ok() && message.is_some_and(|message| usize::from(message.payload_size) == length)
    };
    holds(POST, "an empty message is one", size(0));
    holds(POST, "a message of 1 byte is one", size(1));
}

/// One message is in the slot, sixteen wait at the port, and the next is refused.
fn queue(context: &Context) {
    let post = |number: u32| {
        context
            .hypercalls
            .post_message(loopback::MESSAGES, TYPE, &number.to_le_bytes())
    };
    let taken = (0..BUFFERS + 1)
        .take_while(|&number| post(number).is_ok())
        .count() as u32;
    equal(
        POST,
        "16 messages wait behind the one in the slot",
        taken,
        BUFFERS + 1,
    );
    for attempt in 0..2 {
        let rule = format_args!("a full port takes no other ({attempt})");
        equal(POST, rule, post(99), Err(HvStatus::INSUFFICIENT_BUFFERS));
    }
    holds(
        POST,
        "a full port says so by msg_pending",
        synic::is_pending(MESSAGE_SINT),
    );
    let mut order = true;
    for expected in 0..BUFFERS + 1 {
        order &= machine::wait_until(|| number().is_some()) && number() == Some(expected);
        // The last one has nothing behind it.
        order &= synic::is_pending(MESSAGE_SINT) == (expected < BUFFERS);
        synic::free(MESSAGE_SINT);
    }
    holds(POST, "they come in their order, one at each EOM", order);
    synic::end_of_message();
    equal(POST, "what was refused never comes", number(), None);
    equal(POST, "then there is room again", post(3), Ok(()));
    equal(POST, "and it comes at once", number(), Some(3));
    synic::free(MESSAGE_SINT);
}

fn events(context: &Context) {
    let calls = context.hypercalls;
    synic::set_sint(EVENT_SINT, Sint::new(EVENT_VECTOR, false));
    let first = usize::from(loopback::FIRST_FLAG);
    for flag in [0, loopback::FLAGS - 1] {
        let before = interrupt::count(EVENT_VECTOR);
        let signaled = calls.signal_event(loopback::EVENTS, flag);
        let came = machine::wait_until(|| interrupt::count(EVENT_VECTOR) == before + 1);
        holds(
            SIGNAL,
            format_args!("flag {flag} raises the vector of the port's SINT"),
            signaled.is_ok() && came,
        );
        let again = calls.signal_event(loopback::EVENTS, flag);
        machine::pause(2);
        let once = interrupt::count(EVENT_VECTOR) == before + 1;
        holds(
            SIGNAL,
            format_args!("flag {flag}, while it is set, raises nothing"),
            again.is_ok() && once,
        );
        let set = synic::take_event(EVENT_SINT, first + usize::from(flag));
        holds(
            SIGNAL,
            format_args!("flag {flag} counts from the port's base flag"),
            set,
        );
    }
    for flag in [loopback::FLAGS, u16::MAX] {
        let refused = calls.signal_event(loopback::EVENTS, flag);
        let rule = format_args!("flag {flag}, past the port's, is refused");
        equal(SIGNAL, rule, refused, Err(HvStatus::INVALID_PARAMETER));
    }
    let messages = calls.signal_event(loopback::MESSAGES, 0);
    holds(SIGNAL, "a port of messages takes no event", messages.is_err());
    let nothing = (0..32).all(|word| synic::take_events(EVENT_SINT, word) == 0);
    holds(SIGNAL, "no other flag has been set", nothing);
}
