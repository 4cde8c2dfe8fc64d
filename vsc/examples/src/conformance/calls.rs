//! Calls that any guest makes: messages, events, IPIs, TLB flushes.

use crate::Context;
use crate::access::{self, PAGES};
use crate::hypercall::NO_CONNECTION;
use crate::machine::{self, Work};
use crate::report::{equal, holds, skip};
use core::sync::atomic::{AtomicU64, Ordering};
use hypercall_api::call::GuestCalls;
use hypercall_api::code::HypercallCode as Code;
use hypercall_api::control::HypercallInput;
use hypercall_api::flush::{FlushFlags, FlushVirtualAddressSpaceEx, GvaRange, SendIpiEx, VpSet};
use hypercall_api::id::VpIndex;
use hypercall_api::message::MessageType;
use hypercall_api::port::{ConnectionId, PostMessage, SignalEvent};
use hypercall_api::status::HvStatus;
use vsc_runtime::memory::paging::{self, Access};
use vsc_runtime::processor::probe::{self, Fault};
use vsc_runtime::{interrupt, processor};
use zerocopy::{FromZeros, IntoBytes};

const IPI_VECTOR: u8 = 0x60;

/// Checks the calls.
pub(crate) fn check(context: &Context) {
    post_message(context);
    signal_event(context);
    send_ipi(context);
    flush(context);
    flush_is_seen(context);
    let spun = context.hypercalls.notify_long_spin_wait(1000);
    equal("HvCallNotifyLongSpinWait", "it succeeds", spun, Ok(()));
}

fn slow(context: &Context, code: Code, bytes: &[u8]) -> HvStatus {
    PAGES.fill(0, bytes);
    access::call(
        context.hypercalls,
        HypercallInput::simple(code),
        PAGES.address(),
        0,
    )
    .status()
}

fn post_message(context: &Context) {
    let name = "HvCallPostMessage";
    let calls = context.hypercalls;
    let missing = calls.post_message(NO_CONNECTION, MessageType(1), &[1, 2, 3]);
    equal(
        name,
        "a connection that does not exist is refused",
        missing,
        Err(HvStatus::INVALID_CONNECTION_ID),
    );
    let longest = calls.post_message(NO_CONNECTION, MessageType(1), &[0; 240]);
    equal(
        name,
        "240 bytes are not too many",
        longest,
        Err(HvStatus::INVALID_CONNECTION_ID),
    );
    let mut message = PostMessage::new_zeroed();
    message.connection = NO_CONNECTION;
    message.message_type = MessageType(1);
    message.payload_size = 241;
    let status = slow(context, Code::POST_MESSAGE, message.as_bytes());
    equal(
        name,
        "241 bytes are too many",
        status,
        HvStatus::INVALID_PARAMETER,
    );
    message.payload_size = u32::MAX;
    let status = slow(context, Code::POST_MESSAGE, message.as_bytes());
    equal(name, "4 GiB are too many", status, HvStatus::INVALID_PARAMETER);
    let own = calls.post_message(NO_CONNECTION, MessageType::TIMER_EXPIRED, &[]);
    equal(
        name,
        "the hypervisor's own types are refused",
        own,
        Err(HvStatus::INVALID_PARAMETER),
    );
    let wide = calls.post_message(ConnectionId(0x0100_0001), MessageType(1), &[]);
    holds(
        name,
        "a connection id of more than 24 bits is refused",
        wide.is_err(),
    );
}

fn signal_event(context: &Context) {
    let name = "HvCallSignalEvent";
    let invalid = HvStatus::INVALID_CONNECTION_ID;
    let fast = context.hypercalls.signal_event(NO_CONNECTION, 0);
    equal(
        name,
        "a connection that does not exist is refused, fast",
        fast,
        Err(invalid),
    );
    let input = SignalEvent {
        connection: NO_CONNECTION,
        flag: 3,
        reserved: 0,
    };
    let status = slow(context, Code::SIGNAL_EVENT, input.as_bytes());
    equal(
        name,
        "a connection that does not exist is refused, slow",
        status,
        invalid,
    );
    let wide = context.hypercalls.signal_event(ConnectionId(0xff00_0001), 0);
    holds(
        name,
        "a connection id of more than 24 bits is refused",
        wide.is_err(),
    );
}

fn send_ipi(context: &Context) {
    let name = "HvCallSendSyntheticClusterIpi";
    let calls = context.hypercalls;
    for vector in [0, 15] {
        let status = calls.send_ipi(vector, 1);
        let rule = format_args!("vector {vector} is refused");
        equal(name, rule, status, Err(HvStatus::INVALID_PARAMETER));
    }
    let before = interrupt::count(IPI_VECTOR);
    let sent = calls.send_ipi(IPI_VECTOR, 1 << processor().index);
    let came = machine::wait_until(|| interrupt::count(IPI_VECTOR) == before + 1);
    holds(name, "it reaches the sender itself", sent.is_ok() && came);
    let before = interrupt::count(IPI_VECTOR);
    let some = calls.send_ipi(IPI_VECTOR, 1 << processor().index | 1 << 63);
    equal(
        name,
        "a VP that is not there is refused",
        some,
        Err(HvStatus::INVALID_VP_INDEX),
    );
    machine::pause(2);
    equal(
        name,
        "and then nobody is interrupted",
        interrupt::count(IPI_VECTOR),
        before,
    );
    let nobody = calls.send_ipi(IPI_VECTOR, 0);
    equal(name, "an empty mask is no error", nobody, Ok(()));

    let name_ex = "HvCallSendSyntheticClusterIpiEx";
    let Some(other) = machine::other() else {
        skip(name, "it reaches another VP", "there is one processor");
        skip(name_ex, "it reaches another VP", "there is one processor");
        return;
    };
    HANDLED_BY.store(0, Ordering::Release);
    interrupt::set_handler(IPI_VECTOR, |_| {
        HANDLED_BY.fetch_or(1 << processor().index, Ordering::AcqRel);
    });
    let reached = |bits: u64| {
        let came = machine::wait_until(|| HANDLED_BY.load(Ordering::Acquire) == bits);
        HANDLED_BY.store(0, Ordering::Release);
        came
    };
    let sent = calls.send_ipi(IPI_VECTOR, 1 << other.index);
    holds(
        name,
        "it reaches another VP",
        sent.is_ok() && reached(1 << other.index),
    );
    let mut set = VpSet::empty();
    set.insert(VpIndex(other.index));
    let sent = calls.send_ipi_ex(IPI_VECTOR, &set);
    holds(
        name_ex,
        "it reaches another VP",
        sent.is_ok() && reached(1 << other.index),
    );
    let everybody = vsc_runtime::processor::local::all()
        .filter(|other| other.running.load(Ordering::Acquire))
        .fold(0, |bits, other| bits | 1 << other.index);
    let sent = calls.send_ipi_ex(IPI_VECTOR, &VpSet::all());
    holds(name_ex, "it reaches all VPs", sent.is_ok() && reached(everybody));
    interrupt::clear_handler(IPI_VECTOR);
    let input = SendIpiEx {
        vector: u32::from(IPI_VECTOR),
        reserved: 0,
        set_format: 2,
        valid_banks: 0,
    };
    let status = slow(context, Code::SEND_SYNTHETIC_CLUSTER_IPI_EX, input.as_bytes());
    holds(
        name_ex,
        "an unknown format of the set is refused",
        status != HvStatus::SUCCESS,
    );
}

static HANDLED_BY: AtomicU64 = AtomicU64::new(0);

fn flush(context: &Context) {
    let calls = context.hypercalls;
    let everything = FlushFlags::ALL_PROCESSORS | FlushFlags::ALL_VIRTUAL_ADDRESS_SPACES;
    let name = "HvCallFlushVirtualAddressSpace";
    let all = calls.flush_address_space(0, everything, 0);
    equal(name, "all spaces on all VPs", all, Ok(()));
    let one = calls.flush_address_space(paging::root(), FlushFlags::empty(), 1);
    equal(name, "one space on one VP", one, Ok(()));
    let local = calls.flush_address_space(paging::root(), FlushFlags::NON_GLOBAL_MAPPINGS_ONLY, 1);
    equal(name, "non-global mappings", local, Ok(()));
    let reserved = calls.flush_address_space(0, FlushFlags::from_bits_retain(1 << 63), 1);
    equal(
        name,
        "a reserved flag is refused",
        reserved,
        Err(HvStatus::INVALID_PARAMETER),
    );

    let name = "HvCallFlushVirtualAddressList";
    let ranges = [GvaRange::new(PAGES.address(), 2), GvaRange::new(0x20_0000, 4096)];
    let list = calls.flush_address_list(paging::root(), FlushFlags::ALL_PROCESSORS, 0, &ranges);
    equal(name, "a list on all VPs", list, Ok(()));
    let long = [GvaRange::new(0x20_0000, 1); 600];
    let list = calls.flush_address_list(paging::root(), FlushFlags::empty(), 1, &long);
    equal(name, "a list of several calls", list, Ok(()));

    let name = "HvCallFlushVirtualAddressListEx";
    let list = calls.flush_address_list_ex(paging::root(), FlushFlags::empty(), &VpSet::all(), &ranges);
    equal(name, "a list on the set of all VPs", list, Ok(()));
    let list =
        calls.flush_address_list_ex(paging::root(), FlushFlags::empty(), &VpSet::from_mask(1), &ranges);
    equal(name, "a list on a sparse set", list, Ok(()));

    let name = "HvCallFlushVirtualAddressSpaceEx";
    let all = calls.flush_address_space_ex(0, everything, &VpSet::all());
    equal(name, "the set of all VPs", all, Ok(()));
    let sparse = calls.flush_address_space_ex(paging::root(), FlushFlags::empty(), &VpSet::from_mask(1));
    equal(name, "a sparse set", sparse, Ok(()));
    let mut input = FlushVirtualAddressSpaceEx {
        address_space: 0,
        flags: 0,
        set_format: 7,
        valid_banks: 0,
    };
    let status = slow(context, Code::FLUSH_VIRTUAL_ADDRESS_SPACE_EX, input.as_bytes());
    holds(
        name,
        "an unknown format of the set is refused",
        status != HvStatus::SUCCESS,
    );
    input.set_format = VpSet::SPARSE;
    input.valid_banks = 0b11;
    let status = slow(context, Code::FLUSH_VIRTUAL_ADDRESS_SPACE_EX, input.as_bytes());
    holds(
        name,
        "banks that are missing are refused",
        status != HvStatus::SUCCESS,
    );
}

/// Another VP must not go on using a translation that was flushed.
fn flush_is_seen(context: &Context) {
    let name = "HvCallFlushVirtualAddressSpace";
    let rule = "another VP no longer uses what was flushed";
    let Some(other) = machine::other() else {
        skip(name, rule, "there is one processor");
        return;
    };
    static OUTCOME: AtomicU64 = AtomicU64::new(0);
    static TOUCH: Work = || {
        let result = probe::read(PAGES.address());
        let outcome = result.map_or_else(|fault| u64::from(fault.vector), |_| 1 << 8);
        OUTCOME.store(outcome, Ordering::Release);
    };
    let first = machine::run_on(other, &TOUCH) && OUTCOME.load(Ordering::Acquire) == 1 << 8;
    access::protect(PAGES.address(), Access::None);
    let flags = FlushFlags::ALL_PROCESSORS;
    let flushed = context.hypercalls.flush_address_space(paging::root(), flags, 0);
    let second =
        machine::run_on(other, &TOUCH) && OUTCOME.load(Ordering::Acquire) == u64::from(Fault::PAGE_FAULT);
    access::protect(PAGES.address(), Access::Data);
    holds(name, rule, first && flushed.is_ok() && second);
}
