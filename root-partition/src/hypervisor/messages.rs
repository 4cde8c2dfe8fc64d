//! SINT 0: what the hypervisor tells the root about its children (TLFS, "Inter-Partition Communication").
#![allow(unsafe_code)]

use crate::interrupt::MESSAGE_VECTOR;
use crate::processor::Local;
use crate::processor::instruction::write_msr;
use crate::vm::host::Listener;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering, fence};
use hypercall_api::id::{PartitionId, VpIndex};
use hypercall_api::intercept::{ApicEoiMessage, OpaqueIntercept};
use hypercall_api::message::{MESSAGE_PENDING, MessageType};
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
    let slot = Slot(local.message_page.load(Ordering::Relaxed));
    for _ in 0..BATCH {
        let Some((kind, origin, payload)) = slot.take() else {
            return;
        };
        deliver(kind, PartitionId(origin), payload);
    }
    // More may be there: looked at again once tasks have run.
    local.raise(MESSAGE_VECTOR);
}

fn deliver(kind: MessageType, origin: PartitionId, payload: [u32; 2]) {
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

/// Slot 0 of a message page, by its address; 0 before there is one.
struct Slot(u64);

impl Slot {
    /// Takes the message: its type, who sent it, and the first two words of its payload, which is all that is looked at.
    fn take(&self) -> Option<(MessageType, u64, [u32; 2])> {
        if self.0 == 0 {
            return None;
        }
        // SAFETY: the page is this processor's own SynIC message page, which stays enabled; a type is 4 bytes.
        let kind = unsafe { AtomicU32::from_ptr(self.0 as *mut u32) };
        let found = kind.load(Ordering::Acquire);
        if found == MessageType::NONE.0 {
            return None;
        }
        // SAFETY: as above, inside the slot of 256 bytes; the hypervisor leaves a slot alone that is not empty.
        let (origin, payload) = unsafe {
            (
                ((self.0 + 8) as *const u64).read_volatile(),
                ((self.0 + 16) as *const [u32; 2]).read_volatile(),
            )
        };
        kind.store(MessageType::NONE.0, Ordering::Release);
        // The slot is free before the flag is looked at: the hypervisor sets it where it finds the slot taken.
        fence(Ordering::SeqCst);
        // SAFETY: as above.
        let flags = unsafe { ((self.0 + 5) as *const u8).read_volatile() };
        if flags & MESSAGE_PENDING != 0 {
            // SAFETY: the slot is free.
            unsafe { write_msr(msr::EOM, 0) };
        }
        Some((MessageType(found), origin, payload))
    }
}
