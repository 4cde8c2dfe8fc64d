//! The SynIC of a processor (TLFS, "Virtual Interrupt Control", "Inter-Partition Communication"): a page of messages and a
//! page of event flags, a slot and an area a SINT.
#![allow(unsafe_code)]

use crate::processor::instruction::{read_msr, write_msr};
use crate::processor::local::processor;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use hypercall_api::address::Gpfn;
use hypercall_api::message::{EVENT_FLAGS, MESSAGE_PENDING, Message, MessageType, SINT_COUNT};
use hypercall_api::msr::{self, PageMsr, Sint};

/// Turns the SynIC of this processor on, with its pages. Every SINT stays masked.
pub fn enable() {
    let processor = processor();
    // SAFETY: the pages are this processor's, for this alone.
    unsafe {
        write_msr(msr::SIMP, PageMsr::enable(Gpfn(processor.message_page / 4096)).0);
        write_msr(msr::SIEFP, PageMsr::enable(Gpfn(processor.event_page / 4096)).0);
        write_msr(msr::SCONTROL, 1);
    }
}

/// Sets SINT `index` of this processor. An unmasked one needs a vector of at least 16.
pub fn set_sint(index: usize, sint: Sint) {
    assert!(index < SINT_COUNT);
    // SAFETY: every vector has an entry point.
    unsafe { write_msr(msr::SINT0 + index as u32, sint.0) };
}

/// SINT `index` of this processor.
pub fn sint(index: usize) -> Sint {
    assert!(index < SINT_COUNT);
    Sint(read_msr(msr::SINT0 + index as u32))
}

/// Type of the message in slot `index` of this processor.
pub fn message_type(index: usize) -> MessageType {
    MessageType(slot_type(index).load(Ordering::Acquire))
}

/// The message in slot `index` of this processor, copied; `None` where the slot is empty.
pub fn peek(index: usize) -> Option<Message> {
    let message_type = message_type(index);
    if message_type == MessageType::NONE {
        return None;
    }
    // SAFETY: the page is this processor's; the hypervisor does not touch a slot that is taken but for its flags, and
    // every bit pattern is a message.
    let mut message = unsafe { slot(index).cast::<Message>().read_volatile() };
    message.message_type = message_type;
    Some(message)
}

/// Frees slot `index` of this processor, and tells the hypervisor where another message waits for it.
pub fn free(index: usize) {
    slot_type(index).store(MessageType::NONE.0, Ordering::SeqCst);
    // SAFETY: the flags are in this processor's page.
    let flags = unsafe { slot(index).add(5).read_volatile() };
    if flags & MESSAGE_PENDING != 0 {
        end_of_message();
    }
}

/// Takes the message out of slot `index` of this processor.
pub fn take(index: usize) -> Option<Message> {
    let message = peek(index)?;
    free(index);
    Some(message)
}

/// Whether the message in slot `index` says that another waits.
pub fn is_pending(index: usize) -> bool {
    // SAFETY: as in `free`.
    unsafe { slot(index).add(5).read_volatile() & MESSAGE_PENDING != 0 }
}

/// Tells the hypervisor that a slot was freed.
pub fn end_of_message() {
    // SAFETY: the write has no effect on memory but that of slots that are free.
    unsafe { write_msr(msr::EOM, 0) };
}

/// Clears event flag `flag` of SINT `index` of this processor, and says whether it was set.
pub fn take_event(index: usize, flag: usize) -> bool {
    let bit = 1 << (flag % 64);
    events(index, flag / 64).fetch_and(!bit, Ordering::AcqRel) & bit != 0
}

/// Reads and clears 64 event flags of SINT `index` of this processor, from `64 * word` on.
pub fn take_events(index: usize, word: usize) -> u64 {
    let flags = events(index, word);
    match flags.load(Ordering::Acquire) {
        0 => 0,
        _ => flags.swap(0, Ordering::AcqRel),
    }
}

fn events(index: usize, word: usize) -> &'static AtomicU64 {
    assert!(index < SINT_COUNT && word < EVENT_FLAGS / 64);
    let address = processor().event_page + (index * EVENT_FLAGS / 8 + word * 8) as u64;
    // SAFETY: the word is aligned and in this processor's page, which is never freed, and which both sides change by atomic
    // operations.
    unsafe { AtomicU64::from_ptr(address as *mut u64) }
}

fn slot(index: usize) -> *mut u8 {
    assert!(index < SINT_COUNT);
    (processor().message_page + (index * size_of::<Message>()) as u64) as *mut u8
}

fn slot_type(index: usize) -> &'static AtomicU32 {
    // SAFETY: the word is aligned and in this processor's page, which is never freed; it is used as an atomic only.
    unsafe { AtomicU32::from_ptr(slot(index).cast()) }
}
