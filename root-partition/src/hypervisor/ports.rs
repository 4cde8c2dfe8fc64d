//! SINT 2: what children send and signal to ports of the root (TLFS, "Inter-Partition Communication").
//!
//! A port of messages leads to a [`Sink`], one of events to a [`Signal`], by an event flag of one processor.
#![allow(unsafe_code)]

use super::slot::Slot;
use crate::interrupt::PORT_VECTOR;
use crate::processor::Local;
use crate::processor::instruction::write_msr;
use crate::vm::signal::Signal;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use hypercall_api::message::{EVENT_FLAGS, MESSAGE_PAYLOAD};
use hypercall_api::msr::{self, Sint};
use hypercall_api::port::PortId;
use spin::Mutex;
use zerocopy::IntoBytes;

/// The SINT of all ports.
pub const PORT_SINT: u8 = 2;
/// Messages that are taken before tasks may run.
const BATCH: usize = 32;
/// Words of the flags of a SINT.
const FLAG_WORDS: usize = EVENT_FLAGS / 64;

/// Who takes a port's messages.
pub trait Sink: Send + Sync {
    /// A message has come.
    fn message(&self, payload: &[u8]);
}

/// Ports that are in use: what each leads to. Ids are small, as the hypervisor keeps neighbours together.
static PORTS: Mutex<Vec<Option<Port>>> = Mutex::new(Vec::new());
/// Event flags that are in use, by processor and flag.
static FLAGS: Mutex<Vec<Vec<Option<Arc<Signal>>>>> = Mutex::new(Vec::new());

#[derive(Clone)]
enum Port {
    /// Its id is taken, and nobody listens.
    Silent,
    Messages(Arc<dyn Sink>),
}

/// Lets SINT 2 of this processor raise its vector.
pub(super) fn init() {
    // SAFETY: the vector has an entry point, which ends the interrupt itself.
    unsafe { write_msr(msr::SINT0 + u32::from(PORT_SINT), Sint::new(PORT_VECTOR, false).0) };
}

/// The id of a port that is not in use, which it is from now on.
pub fn take_port() -> PortId {
    let mut ports = PORTS.lock();
    let free = ports.iter().position(Option::is_none).unwrap_or(ports.len());
    match ports.get_mut(free) {
        Some(port) => *port = Some(Port::Silent),
        None => ports.push(Some(Port::Silent)),
    }
    PortId(free as u32 + 1)
}

/// Sends the messages of a port to `sink` from now on.
pub fn listen(port: PortId, sink: Arc<dyn Sink>) {
    if let Some(entry) = PORTS.lock().get_mut(port.0.wrapping_sub(1) as usize) {
        *entry = Some(Port::Messages(sink));
    }
}

/// Gives the id of a port back that has been deleted.
pub fn give_back_port(port: PortId) {
    let before = PORTS
        .lock()
        .get_mut(port.0.wrapping_sub(1) as usize)
        .and_then(Option::take);
    // Whatever the sink's end leads to happens without the lock.
    drop(before);
}

/// An event flag of processor `vp` that is not in use, which raises `signal` from now on; `None` where all are in use.
pub fn take_flag(vp: u32, signal: Arc<Signal>) -> Option<u16> {
    let mut flags = FLAGS.lock();
    let wanted = vp as usize + 1;
    if flags.len() < wanted {
        flags.resize_with(wanted, Vec::new);
    }
    let flags = flags.get_mut(vp as usize)?;
    let free = flags.iter().position(Option::is_none).unwrap_or(flags.len());
    match flags.get_mut(free) {
        Some(flag) => *flag = Some(signal),
        None if free < EVENT_FLAGS => flags.push(Some(signal)),
        None => return None,
    }
    u16::try_from(free).ok()
}

/// Gives an event flag back whose port has been deleted.
pub fn give_back_flag(vp: u32, flag: u16) {
    let mut flags = FLAGS.lock();
    let flag = flags
        .get_mut(vp as usize)
        .and_then(|flags| flags.get_mut(usize::from(flag)));
    let before = flag.and_then(Option::take);
    drop(flags);
    drop(before);
}

/// Takes the messages and events that have come to this processor. Called by its executor, not in interrupt context.
pub fn receive(local: &Local) {
    take_events(local);
    let Some(slot) = Slot::of(local.message_page.load(Ordering::Relaxed), PORT_SINT) else {
        return;
    };
    for _ in 0..BATCH {
        let Some(message) = slot.take::<{ MESSAGE_PAYLOAD / 8 }>() else {
            return;
        };
        let port = u32::try_from(message.origin).unwrap_or(0).wrapping_sub(1);
        let listener = PORTS.lock().get(port as usize).cloned().flatten();
        // A port that has just been deleted may have had its last.
        if let Some(Port::Messages(sink)) = listener {
            let payload = message.payload.as_bytes();
            sink.message(payload.get(..message.size).unwrap_or(payload));
        }
    }
    // More may be there: looked at again once tasks have run.
    local.raise(PORT_VECTOR);
}

fn take_events(local: &Local) {
    let page = local.event_page.load(Ordering::Relaxed);
    if page == 0 {
        return;
    }
    let area = page + u64::from(PORT_SINT) * (EVENT_FLAGS / 8) as u64;
    for index in 0..FLAG_WORDS {
        // SAFETY: the page is this processor's own SynIC event flags page, which stays enabled, and both sides change its
        // words by atomic operations.
        let word = unsafe { AtomicU64::from_ptr((area as *mut u64).add(index)) };
        if word.load(Ordering::Relaxed) == 0 {
            continue;
        }
        let mut set = word.swap(0, Ordering::AcqRel);
        while set != 0 {
            let flag = index * 64 + set.trailing_zeros() as usize;
            set &= set - 1;
            let signal = FLAGS
                .lock()
                .get(local.vp as usize)
                .and_then(|flags| flags.get(flag).cloned().flatten());
            if let Some(signal) = signal {
                signal.raise();
            }
        }
    }
}
