//! What the library needs of the system that it becomes part of.
#![allow(unsafe_code)]

use core::ptr::NonNull;
use hypercall_api::address::Gpa;
use hypercall_api::call::GuestCalls;
use hypercall_api::id::VpIndex;
use hypercall_api::message::Message;

/// What a guest system gives the library: hypercalls, pages, the SynIC of its VPs, and time.
///
/// Before the bus is used, the guest has established the hypercall page, and on each VP that is to take messages or events the
/// SynIC's message page and event flags page, with [`SINT`](vmbus::protocol::id::SINT) unmasked. Its interrupt handler need not do
/// more than end the interrupt and make [`wait`](Self::wait) return; the work is done by [`Bus::poll`](crate::bus::Bus::poll).
///
/// `vsc-runtime`, the smallest guest kernel, has an implementation to begin from (`vsc_runtime::hal`, feature `hal`).
///
/// # Safety
/// The library reads and writes the pages that it is given, and tells the host where they are; so they must be as
/// [`allocate_pages`](Self::allocate_pages) and [`physical`](Self::physical) say.
pub unsafe trait Hal: Send + Sync + 'static {
    /// The way to make hypercalls.
    type Hypercalls: GuestCalls;

    /// The way to make hypercalls.
    fn hypercalls(&self) -> &Self::Hypercalls;

    /// Takes `count` zeroed pages of 4096 bytes, in a row for the processor and for the host, aligned to a page. `None` where so
    /// many are not left.
    fn allocate_pages(&self, count: usize) -> Option<NonNull<u8>>;

    /// Gives pages back.
    ///
    /// # Safety
    /// They came from [`allocate_pages`](Self::allocate_pages) with the same `count`, and nobody, the host included, uses them any
    /// more.
    unsafe fn free_pages(&self, start: NonNull<u8>, count: usize);

    /// The guest-physical address of a byte of such pages.
    fn physical(&self, address: NonNull<u8>) -> Gpa;

    /// The running VP.
    fn vp(&self) -> VpIndex;

    /// Takes the message out of the running VP's slot of [`SINT`](vmbus::protocol::id::SINT): copies it, marks the slot empty, and
    /// writes EOM if the message was flagged as having others behind it. `None` where the slot is empty.
    fn take_message(&self) -> Option<Message>;

    /// Reads and clears, as one atomic operation, 64 of the running VP's event flags of
    /// [`SINT`](vmbus::protocol::id::SINT): those from `64 * word` on. `word` is less than 32.
    fn take_events(&self, word: usize) -> u64;

    /// Waits for an interrupt of the running VP. Returns at once if one came since the last time, and after some milliseconds
    /// at most, so that limits of time can be kept.
    fn wait(&self);

    /// Time that has passed since some moment, in 100 ns.
    fn now(&self) -> u64;
}
