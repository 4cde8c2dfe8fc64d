//! What everybody may touch of a VP: requests to it, its state.

use super::Partition;
use super::statistics::Statistics;
use super::synic::SynicRegisters;
use super::virtual_apic::VirtualApic;
use super::vp::Vp;
use crate::memory::address::Frame;
use crate::platform::registers::tsc;
use crate::processor::interrupts;
use crate::processor::local::Processor;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use hypercall_api::id::{LpIndex, VpIndex};
use hypercall_api::port::PortId;
use hypercall_api::processor::InitialVpContext;
use spin::{Mutex, MutexGuard};

/// A VP: its shared part, and its owned part for whoever locks it. The LP that runs it holds the lock.
pub struct VpSlot {
    /// What everybody may touch.
    pub shared: VpShared,
    /// What only its LP touches, and whoever has stopped it.
    owned: Mutex<Option<Vp>>,
}

impl VpSlot {
    /// A VP that has only its shared part yet.
    pub const fn new(shared: VpShared) -> Self {
        Self {
            shared,
            owned: Mutex::new(None),
        }
    }

    /// Gives it its owned part.
    pub fn complete(&self, vp: Vp) {
        *self.owned.lock() = Some(vp);
    }

    /// The owned part, unless somebody has it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, Option<Vp>>> {
        self.owned.try_lock().filter(|vp| vp.is_some())
    }

    /// The owned part, as soon as its LP lets go of it. Not for the VP that runs on this LP.
    pub fn stop_and_lock(&self) -> Stopped<'_> {
        self.shared.wanted.fetch_add(1, Ordering::SeqCst);
        self.shared.poke();
        let vp = self.owned.lock();
        self.shared.wanted.fetch_sub(1, Ordering::SeqCst);
        Stopped {
            vp,
            _tells: TellsLp(&self.shared),
        }
    }
}

/// The owned part of a VP that does not run meanwhile.
pub struct Stopped<'a> {
    vp: MutexGuard<'a, Option<Vp>>,
    // Dropped after the lock was given back.
    _tells: TellsLp<'a>,
}

impl Deref for Stopped<'_> {
    type Target = Option<Vp>;

    fn deref(&self) -> &Option<Vp> {
        &self.vp
    }
}

impl DerefMut for Stopped<'_> {
    fn deref_mut(&mut self) -> &mut Option<Vp> {
        &mut self.vp
    }
}

/// Has the LP look again at a VP that it passed over because somebody had it: it may sleep, and nobody else would wake it.
struct TellsLp<'a>(&'a VpShared);

impl Drop for TellsLp<'_> {
    fn drop(&mut self) {
        if !self.0.is_called_off() || self.0.wants_attention(tsc()) {
            self.0.poke();
        }
    }
}

/// What a VP waits for, as others see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum VpState {
    /// Never started, or reset by INIT.
    WaitForStart = 0,
    /// Runs, or would if a processor were free.
    Runnable = 1,
    /// Halted until an interrupt.
    Halted = 2,
}

impl VpState {
    /// TSC at which the timer of a VP that does not run has to wake its LP, if the earliest is due at `deadline`.
    ///
    /// A timer ends a halt, and nothing else: what becomes due while the VP waits for its parent is seen to when it runs again. An alarm
    /// for that would ring for ever, and the parent could not answer.
    pub fn alarm(self, suspended: u8, deadline: u64) -> Option<u64> {
        (self == Self::Halted && suspended == 0).then_some(deadline)
    }
}

/// Why a VP does not run although its state would let it.
pub mod suspension {
    /// Its parent has stopped it (`HvRegisterExplicitSuspend`).
    pub const EXPLICIT: u8 = 1;
    /// It waits for its parent's answer to an intercept (`HvRegisterInterceptSuspend`).
    pub const INTERCEPT: u8 = 2;
    /// It is being deleted.
    pub const DELETED: u8 = 4;
}

/// What everybody may touch.
pub struct VpShared {
    /// Its partition, which outlives it.
    pub partition: &'static Partition,
    /// Index in its partition.
    pub index: VpIndex,
    /// Its virtual APIC id.
    pub apic_id: u32,
    /// The LP that it was created on; the root's VP of that LP hears of its news.
    pub home: LpIndex,
    /// The LP that runs it now.
    lp: AtomicU32,
    /// Interrupts requested and not yet delivered, a bit a vector.
    requests: [AtomicU32; 8],
    /// Whether there is anything in `requests`, or for its SynIC, that the owner has not looked at.
    requested: AtomicBool,
    /// An NMI is pending.
    pub nmi: AtomicBool,
    /// The state in which it is to start.
    start: Mutex<Option<InitialVpContext>>,
    /// It is to go back to its state after INIT; so until it has.
    pub reset: AtomicBool,
    state: AtomicU8,
    suspended: AtomicU8,
    /// How many want its owned part.
    wanted: AtomicU32,
    /// TSC of its earliest timer, while it does not run.
    pub deadline: AtomicU64,
    /// What the scheduler knows of it.
    pub schedule: Schedule,
    /// Its SynIC registers.
    pub synic: SynicRegisters,
    /// Ports whose messages wait for its message slots. Locked after the partition's ports.
    pub waiting_ports: Mutex<PortList>,
    /// Children's VPs with news that wait for this VP's message slot.
    pub news: Mutex<NewsQueue>,
    /// The next in a queue of news.
    next_news: Mutex<Option<&'static VpSlot>>,
    /// It has sent an intercept that its parent has not heard of.
    intercept_news: AtomicBool,
    /// Level-triggered interrupts, a bit a vector, from their request to their end.
    level: [AtomicU32; 8],
    /// Of these, those that have ended without the parent having heard of it.
    ended: [AtomicU32; 8],
    /// Where the message of its own intercept is written; only children have one.
    pub intercept_page: Option<Frame>,
    /// Its statistics page.
    pub statistics: Statistics,
}

/// What the scheduler knows of a VP. Only the VP's LP writes it.
#[derive(Default)]
pub struct Schedule {
    /// Run time by weight.
    pub virtual_time: AtomicU64,
    /// The accounting window that `used` is of.
    pub window: AtomicU64,
    /// TSC ticks that it ran in that window.
    pub used: AtomicU64,
    /// Whether it could run when the scheduler looked last.
    pub queued: AtomicBool,
    /// TSC since when it could run while another does, or 0.
    pub waiting_since: AtomicU64,
}

impl VpShared {
    /// A VP that waits to be started.
    pub fn new(
        partition: &'static Partition,
        index: VpIndex,
        lp: LpIndex,
        apic_id: u32,
        statistics: Frame,
    ) -> Self {
        Self {
            partition,
            index,
            apic_id,
            home: lp,
            lp: AtomicU32::new(lp.0),
            requests: [const { AtomicU32::new(0) }; 8],
            requested: AtomicBool::new(false),
            nmi: AtomicBool::new(false),
            start: Mutex::new(None),
            reset: AtomicBool::new(false),
            state: AtomicU8::new(VpState::WaitForStart as u8),
            suspended: AtomicU8::new(0),
            wanted: AtomicU32::new(0),
            deadline: AtomicU64::new(u64::MAX),
            schedule: Schedule::default(),
            synic: SynicRegisters::new(),
            waiting_ports: Mutex::new(PortList {
                first: None,
                last: None,
            }),
            news: Mutex::new(NewsQueue::new()),
            next_news: Mutex::new(None),
            intercept_news: AtomicBool::new(false),
            level: [const { AtomicU32::new(0) }; 8],
            ended: [const { AtomicU32::new(0) }; 8],
            intercept_page: None,
            statistics: Statistics::new(statistics),
        }
    }

    /// Its state.
    pub fn state(&self) -> VpState {
        match self.state.load(Ordering::Acquire) {
            1 => VpState::Runnable,
            2 => VpState::Halted,
            _ => VpState::WaitForStart,
        }
    }

    /// Changes its state and makes its LP see that.
    pub fn set_state(&self, state: VpState) {
        self.state.store(state as u8, Ordering::Release);
        self.poke();
    }

    /// Halts it, as its own LP does: nobody needs to be told.
    pub fn halt(&self) {
        self.change(VpState::Runnable, VpState::Halted);
    }

    /// Ends a halt.
    pub fn wake(&self) {
        self.change(VpState::Halted, VpState::Runnable);
    }

    fn change(&self, from: VpState, to: VpState) {
        // Where it is in another state, somebody has started or reset it meanwhile, and that counts.
        let _ = self
            .state
            .compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// The reasons why it is suspended, [`suspension`] bits.
    pub fn suspended(&self) -> u8 {
        self.suspended.load(Ordering::Acquire)
    }

    /// Suspends it for `reason`; its LP stops it before it would run again.
    pub fn suspend(&self, reason: u8) {
        self.suspended.fetch_or(reason, Ordering::SeqCst);
        self.poke();
    }

    /// Ends the suspension for `reason`.
    pub fn resume(&self, reason: u8) {
        self.suspended.fetch_and(!reason, Ordering::SeqCst);
        self.poke();
    }

    /// Whether its LP is to let go of it.
    #[inline]
    pub fn is_called_off(&self) -> bool {
        self.state.load(Ordering::Acquire) != VpState::Runnable as u8
            || self.suspended.load(Ordering::SeqCst) != 0
            || self.wanted.load(Ordering::SeqCst) != 0
            || self.reset.load(Ordering::Acquire)
    }

    /// Whether its LP has to look at it although it does not run: something was asked of it, or a timer is due at TSC `now`.
    #[inline]
    pub fn wants_attention(&self, now: u64) -> bool {
        self.has_requests()
            || self.nmi.load(Ordering::Acquire)
            || self.reset.load(Ordering::Acquire)
            || now >= self.deadline.load(Ordering::Relaxed)
            || (self.state() == VpState::WaitForStart && self.start.lock().is_some())
    }

    /// Requests an interrupt.
    pub fn request_interrupt(&self, vector: u8) {
        self.requests[vector as usize / 32].fetch_or(1 << (vector % 32), Ordering::AcqRel);
        self.request_attention();
    }

    /// Withdraws the request for an interrupt that has not been taken in.
    pub fn withdraw_interrupt(&self, vector: u8) {
        self.requests[vector as usize / 32].fetch_and(!(1 << (vector % 32)), Ordering::AcqRel);
    }

    /// Makes its LP look at what was requested.
    pub fn request_attention(&self) {
        self.requested.store(true, Ordering::Release);
        self.poke();
    }

    /// Raises the interrupts of the SINTs that messages and events have arrived at.
    pub fn raise_sints(&self) {
        self.synic
            .take_raised()
            .for_each(|vector| self.request_interrupt(vector));
    }

    /// Requests an NMI.
    pub fn request_nmi(&self) {
        self.nmi.store(true, Ordering::Release);
        self.poke();
    }

    /// Makes its LP look at it again.
    pub fn poke(&self) {
        // What was asked of it is written down before it is looked where it is; see `migration`.
        fence(Ordering::SeqCst);
        if let Some(processor) = Processor::get(self.lp()) {
            interrupts::poke(processor);
        }
    }

    /// The LP that runs it. It may move at any time, unless it is the root's or [`migration`](crate::migration) is held.
    #[inline]
    pub fn lp(&self) -> LpIndex {
        LpIndex(self.lp.load(Ordering::Relaxed))
    }

    /// Takes note that it has moved; the new LP looks at it from now on.
    pub fn move_to(&self, lp: LpIndex) {
        self.lp.store(lp.0, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Whether something was requested since the last [`take_requests`](Self::take_requests).
    #[inline]
    pub fn has_requests(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    /// Moves the requests into the VP's own APIC. Returns whether there were any, for the APIC or the SynIC.
    pub fn take_requests(&self, apic: &mut VirtualApic) -> bool {
        let requested = self.requested.swap(false, Ordering::AcqRel);
        if requested {
            let taken = core::array::from_fn(|word| self.requests[word].swap(0, Ordering::AcqRel));
            apic.request_all(&taken);
        }
        requested
    }

    /// Puts it back into its state after INIT, as soon as its LP looks at it. A start that it has not made is forgotten.
    pub fn request_reset(&self) {
        *self.start.lock() = None;
        self.reset.store(true, Ordering::Release);
        self.poke();
    }

    /// Lets a VP that waits to be started, or will once its LP has reset it, run from `context`. Returns whether it does.
    pub fn start(&self, context: InitialVpContext) -> bool {
        let mut start = self.start.lock();
        // In this order: a reset that is done has left its state behind. A startup IPI follows INIT at once.
        let waits = self.reset.load(Ordering::Acquire) || self.state() == VpState::WaitForStart;
        if !waits || start.is_some() {
            return false;
        }
        *start = Some(context);
        drop(start);
        self.poke();
        true
    }

    /// The state in which the VP is to start, if somebody has asked for that.
    pub fn take_start(&self) -> Option<InitialVpContext> {
        self.start.lock().take()
    }
}

/// Ports of one partition, chained through themselves.
pub struct PortList {
    /// The first.
    pub first: Option<PortId>,
    /// The last.
    pub last: Option<PortId>,
}

/// What a VP has to tell its parent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// An intercept, whose message is in its page.
    Intercept,
    /// The end of a level-triggered interrupt.
    EndOfInterrupt(u8),
}

impl VpShared {
    /// Takes note that interrupt `vector` is level-triggered, or not.
    pub fn set_level(&self, vector: u8, is_level: bool) {
        let (word, bit) = (&self.level[vector as usize / 32], 1 << (vector % 32));
        if is_level {
            word.fetch_or(bit, Ordering::AcqRel);
        } else {
            word.fetch_and(!bit, Ordering::AcqRel);
        }
    }

    /// Takes note that an interrupt has ended. Returns whether the parent wants to hear of that.
    pub fn end_level(&self, vector: u8) -> bool {
        let (word, bit) = (vector as usize / 32, 1 << (vector % 32));
        if self.level[word].load(Ordering::Relaxed) & bit == 0 {
            return false;
        }
        self.level[word].fetch_and(!bit, Ordering::AcqRel);
        self.ended[word].fetch_or(bit, Ordering::AcqRel);
        true
    }

    /// Whether an interrupt is level-triggered and has not ended.
    pub fn is_level(&self, vector: u8) -> bool {
        self.level[vector as usize / 32].load(Ordering::Relaxed) & 1 << (vector % 32) != 0
    }

    /// Words of the trigger mode register.
    pub fn level_words(&self) -> [u32; 8] {
        core::array::from_fn(|word| self.level[word].load(Ordering::Relaxed))
    }

    /// The next of its news.
    pub fn next_news(&self) -> Option<News> {
        if self.intercept_news.load(Ordering::Acquire) {
            return Some(News::Intercept);
        }
        let words = self
            .ended
            .iter()
            .map(|word| word.load(Ordering::Acquire))
            .enumerate();
        let (word, bits) = words.into_iter().find(|(_, bits)| *bits != 0)?;
        Some(News::EndOfInterrupt(
            (word as u32 * 32 + bits.trailing_zeros()) as u8,
        ))
    }

    /// The parent has heard of it.
    pub fn news_told(&self, news: News) {
        match news {
            News::Intercept => self.intercept_news.store(false, Ordering::Release),
            News::EndOfInterrupt(vector) => {
                self.ended[vector as usize / 32].fetch_and(!(1 << (vector % 32)), Ordering::AcqRel);
            }
        }
    }
}

impl VpSlot {
    /// Tells the parent, by its VP `parent`, that this VP has news; `intercept` where that is an intercept.
    pub fn announce(&'static self, parent: &VpShared, intercept: bool) {
        let mut queue = parent.news.lock();
        if !queue.contains(self) {
            queue.push(self);
        }
        if intercept {
            self.shared.intercept_news.store(true, Ordering::Release);
        }
        drop(queue);
        parent.request_attention();
    }
}

/// VPs with news, first come first served, chained through the VPs themselves.
pub struct NewsQueue {
    ends: Option<(&'static VpSlot, &'static VpSlot)>,
}

impl NewsQueue {
    /// None waits.
    pub const fn new() -> Self {
        Self { ends: None }
    }

    /// Adds a VP at the end; it must not be in the queue.
    fn push(&mut self, slot: &'static VpSlot) {
        *slot.shared.next_news.lock() = None;
        self.ends = match self.ends {
            None => Some((slot, slot)),
            Some((first, last)) => {
                *last.shared.next_news.lock() = Some(slot);
                Some((first, slot))
            }
        };
    }

    fn contains(&self, slot: &VpSlot) -> bool {
        let mut cursor = self.first();
        while let Some(found) = cursor {
            if core::ptr::eq(found, slot) {
                return true;
            }
            cursor = *found.shared.next_news.lock();
        }
        false
    }

    /// The first.
    pub fn first(&self) -> Option<&'static VpSlot> {
        self.ends.map(|(first, _)| first)
    }

    /// Removes the first.
    pub fn pop(&mut self) -> Option<&'static VpSlot> {
        let (first, last) = self.ends?;
        let next = first.shared.next_news.lock().take();
        self.ends = next.map(|next| (next, last));
        Some(first)
    }

    /// Removes `slot`, wherever it is: the VP goes away.
    pub fn remove(&mut self, slot: &'static VpSlot) {
        let mut kept = Self::new();
        while let Some(next) = self.pop() {
            if !core::ptr::eq(next, slot) {
                kept.push(next);
            }
        }
        *self = kept;
    }
}

impl Default for NewsQueue {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_halted_vp_that_nobody_has_suspended_is_woken_by_its_timer() {
        assert_eq!(VpState::Halted.alarm(0, 7), Some(7));
        for reason in [suspension::EXPLICIT, suspension::INTERCEPT, suspension::DELETED] {
            assert_eq!(VpState::Halted.alarm(reason, 7), None);
            assert_eq!(VpState::Runnable.alarm(reason, 7), None);
        }
        assert_eq!(VpState::WaitForStart.alarm(0, 7), None);
    }
}
