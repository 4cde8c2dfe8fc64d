//! SINT 0: what the hypervisor tells the root about its children (TLFS, "Inter-Partition Communication").
#![allow(unsafe_code)]

use super::faults;
use super::slot::Slot;
use crate::interrupt::MESSAGE_VECTOR;
use crate::processor::Local;
use crate::processor::instruction::write_msr;
use crate::vm::host::Listener;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use hypercall_api::id::{PartitionId, VpIndex};
use hypercall_api::intercept::{ApicEoiMessage, OpaqueIntercept};
use hypercall_api::message::MessageType;
use hypercall_api::msr::{self, Sint};
use spin::Mutex;

/// Messages that are taken before tasks may run.
const BATCH: usize = 32;

/// Who hears of which partition, sorted by id.
static LISTENERS: Mutex<Vec<(PartitionId, Arc<dyn Listener>)>> = Mutex::new(Vec::new());

/// Lets SINT 0 of this processor raise its vector.
pub(super) fn init() {
    // SAFETY: the vector has an entry point, which ends the interrupt itself.
    unsafe { write_msr(msr::SINT0, Sint::new(MESSAGE_VECTOR, false).0) };
}

/// Sends the messages about `partition` to `listener` from now on, or to nobody.
pub fn listen(partition: PartitionId, listener: Option<Arc<dyn Listener>>) {
    let mut listeners = LISTENERS.lock();
    let place = listeners.binary_search_by_key(&partition, |(id, _)| *id);
    let before = match (place, listener) {
        (Ok(index), Some(listener)) => Some(core::mem::replace(&mut listeners[index], (partition, listener))),
        (Ok(index), None) => Some(listeners.remove(index)),
        (Err(index), Some(listener)) => {
            listeners.insert(index, (partition, listener));
            None
        }
        (Err(_), None) => None,
    };
    drop(listeners);
    // Whatever the listener's end leads to happens without the lock.
    drop(before);
}

/// Takes the messages that have come to this processor. Called by its executor, not in interrupt context.
pub fn receive(local: &Local) {
    let Some(slot) = Slot::of(local.message_page.load(Ordering::Relaxed), 0) else {
        return;
    };
    for _ in 0..BATCH {
        let Some(message) = slot.take::<1>() else {
            return;
        };
        let [payload] = message.payload;
        deliver(
            message.kind,
            PartitionId(message.origin),
            [payload as u32, (payload >> 32) as u32],
        );
    }
    // More may be there: looked at again once tasks have run.
    local.raise(MESSAGE_VECTOR);
}

fn deliver(kind: MessageType, origin: PartitionId, payload: [u32; 2]) {
    if kind == MessageType::PARTITA_DMA_FAULT {
        return faults::told();
    }
    let listener = {
        let listeners = LISTENERS.lock();
        let place = listeners.binary_search_by_key(&origin, |(id, _)| *id);
        place.ok().map(|index| listeners[index].1.clone())
    };
    // A partition that has just been destroyed may have sent its last.
    let Some(listener) = listener else {
        return;
    };
    match kind {
        MessageType::OPAQUE_INTERCEPT => {
            const { assert!(size_of::<OpaqueIntercept>() == 4) };
            listener.intercept(VpIndex(payload[0]));
        }
        MessageType::APIC_EOI => {
            const { assert!(size_of::<ApicEoiMessage>() == 8) };
            listener.end_of_interrupt(payload[1] as u8);
        }
        other => log::debug!("partition {origin}: message of type {:#x}", other.0),
    }
}
