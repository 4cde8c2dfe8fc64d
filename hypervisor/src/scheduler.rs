//! The run loop of a logical processor, and the choice of the VP that runs next.
//!
//! Each VP belongs to one LP, until one with less to do takes it over ([`migration`]). Among those that can run, the one with the least run time by weight is next (its *virtual
//! time*); one that has had less than its partition's reserve comes before all others, and one that has had its cap waits
//! for the next accounting window. Interrupts are off throughout but for the windows in [`interrupts`]. Whoever gives a VP
//! work pokes its processor, and the processor looks at everything again before it runs a guest or sleeps.

use crate::exit;
use crate::migration;
use crate::partition::shared::{VpSlot, VpState};
use crate::partition::vp::{Resume, Vp};
use crate::platform::clock;
use crate::platform::registers::tsc;
use crate::processor::interrupts;
use crate::processor::local::Processor;
use crate::virtualization::VirtualProcessor;
use arrayvec::ArrayVec;
use core::sync::atomic::Ordering;

/// Most VPs of one LP.
pub const MAX_VPS: usize = 384;
/// Weight of a partition that nobody has given one.
pub const DEFAULT_WEIGHT: u64 = 100;
/// How long a VP runs while others wait, in 100 ns: 5 ms.
const SLICE: u64 = 50_000;
/// The accounting window of caps and reserves, in 100 ns: 20 ms.
const WINDOW: u64 = 200_000;
/// How long a VP runs alone before its run time is told, in 100 ns: 100 ms.
const REPORT: u64 = 1_000_000;
/// How far the running VP may be ahead of another before that one takes its place, in 100 ns: 1 ms.
const GRANULARITY: u64 = 10_000;

/// The VPs of one LP.
pub struct RunQueue {
    slots: ArrayVec<&'static VpSlot, MAX_VPS>,
}

impl RunQueue {
    /// No VPs.
    pub const fn new() -> Self {
        Self {
            slots: ArrayVec::new_const(),
        }
    }

    /// Number of VPs.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Adds a VP. Returns whether there was room.
    pub fn add(&mut self, slot: &'static VpSlot) -> bool {
        self.slots.try_push(slot).is_ok()
    }

    /// The VP that has waited longest at TSC `now` and may be moved, and since when.
    pub fn longest_waiting(&self, now: u64) -> Option<(u64, &'static VpSlot)> {
        let waiting = self.slots.iter();
        waiting
            .filter_map(|&slot| Some((migration::waits_since(slot, now)?, slot)))
            .min_by_key(|(since, _)| *since)
    }

    /// Removes a VP.
    pub fn remove(&mut self, slot: &'static VpSlot) {
        self.slots.retain(|other| !core::ptr::eq(*other, slot));
    }
}

impl Default for RunQueue {
    fn default() -> Self {
        Self::new()
    }
}

/// What the queue says about what to do next.
struct Choice {
    next: Option<&'static VpSlot>,
    /// TSC at which the choice must be made anew: a timer of a VP that does not run, the end of a slice or of a window.
    until: u64,
}

/// Runs the VPs of this processor, for ever.
pub fn run(processor: &'static Processor) -> ! {
    let mut current = core::ptr::null();
    loop {
        processor.poked.store(false, Ordering::SeqCst);
        let choice = choose(processor, current);
        current = choice.next.map_or(core::ptr::null(), core::ptr::from_ref);
        match choice.next {
            Some(slot) => {
                migration::even_out(processor, tsc());
                run_slot(processor, slot, choice.until);
            }
            None if migration::take_over(processor) => {}
            None => idle(processor, choice.until),
        }
    }
}

/// Attends to the VPs that want it and picks the next to run; `current` is the one that ran last.
fn choose(processor: &Processor, current: *const VpSlot) -> Choice {
    let queue = processor.queue.lock();
    let now = tsc();
    let (window, window_end) = window_of(now);
    let mut until = u64::MAX;
    let mut best: Option<(bool, u64, &'static VpSlot)> = None;
    let mut runnable = 0;
    let mut least = None;
    let mut overdue = false;
    for &slot in &queue.slots {
        let shared = &slot.shared;
        if shared.state() != VpState::Runnable || shared.reset.load(Ordering::Acquire) {
            attend(slot, now);
        }
        if shared.is_called_off() {
            shared.schedule.queued.store(false, Ordering::Relaxed);
            shared.schedule.waiting_since.store(0, Ordering::Relaxed);
            let deadline = shared.deadline.load(Ordering::Relaxed);
            if let Some(alarm) = shared.state().alarm(shared.suspended(), deadline) {
                until = until.min(alarm);
            }
            continue;
        }
        let Some(share) = share_of(slot, window) else {
            shared.schedule.waiting_since.store(0, Ordering::Relaxed);
            until = until.min(window_end);
            continue;
        };
        runnable += 1;
        match shared.schedule.waiting_since.load(Ordering::Relaxed) {
            0 => shared.schedule.waiting_since.store(now, Ordering::Relaxed),
            _ => overdue |= migration::waits_since(slot, now).is_some(),
        }
        if !shared.schedule.queued.swap(true, Ordering::Relaxed) {
            catch_up(slot);
        }
        let mut time = shared.schedule.virtual_time.load(Ordering::Relaxed);
        if share == Share::Fair {
            least = Some(least.map_or(time, |least: u64| least.min(time)));
        }
        if core::ptr::eq(current, slot) {
            time = time.saturating_sub(GRANULARITY);
        }
        let key = (share == Share::UnderReserve, time, slot);
        if best.is_none_or(|best| (key.0 && !best.0) || (key.0 == best.0 && key.1 < best.1)) {
            best = Some(key);
        }
    }
    processor.runnable.store(runnable, Ordering::Relaxed);
    if runnable > 1 {
        until = until.min(now.saturating_add(clock::tsc_ticks(SLICE)));
    }
    // One that runs by its reserve says nothing about what the others have had.
    if let Some(least) = least {
        processor.virtual_now.fetch_max(least, Ordering::Relaxed);
    }
    let next = best.map(|(_, _, slot)| slot);
    if overdue {
        migration::offer();
    }
    if let Some(slot) = next {
        slot.shared.schedule.waiting_since.store(0, Ordering::Relaxed);
        until = until.min(end_of_share(slot, now, window_end));
    }
    Choice { next, until }
}

/// Lets a VP that does not run take in what was asked of it.
fn attend(slot: &'static VpSlot, now: u64) {
    if slot.shared.wants_attention(now)
        && let Some(mut vp) = slot.try_lock()
        && let Some(vp) = vp.as_mut()
    {
        vp.attend();
    }
}

/// A VP that can run again, after a halt or an intercept, does not get the time that it could not.
fn catch_up(slot: &VpSlot) {
    let now = Processor::current().virtual_now.load(Ordering::Relaxed);
    slot.shared
        .schedule
        .virtual_time
        .fetch_max(now.saturating_sub(SLICE / 2), Ordering::Relaxed);
}

/// How much a VP has had in this window.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Share {
    UnderReserve,
    Fair,
}

/// Number of the accounting window that TSC `now` is in, and the TSC of its end.
fn window_of(now: u64) -> (u64, u64) {
    let length = clock::tsc_ticks(WINDOW).max(1);
    let window = now / length;
    (window, (window + 1).saturating_mul(length))
}

/// Cap and reserve of a VP's partition, in per mille of a processor; 0 where there is none.
fn limits(slot: &VpSlot) -> (u64, u64) {
    let partition = slot.shared.partition;
    (
        partition.cap.load(Ordering::Relaxed),
        partition.reserve.load(Ordering::Relaxed),
    )
}

/// What a VP is due in this window; `None` where it has had its cap.
fn share_of(slot: &VpSlot, window: u64) -> Option<Share> {
    let (cap, reserve) = limits(slot);
    if (cap, reserve) == (0, 0) {
        return Some(Share::Fair);
    }
    let schedule = &slot.shared.schedule;
    let length = clock::tsc_ticks(WINDOW).max(1);
    let last = schedule.window.swap(window, Ordering::Relaxed);
    if last != window {
        // What it has had beyond its cap or reserve, because its processor came late, it has had of the next windows. It may
        // well have more than its reserve where nobody else wants it: that costs it one window at most.
        let due = |limit| length.saturating_mul(limit) / 1000;
        let had = schedule.used.load(Ordering::Relaxed);
        let beyond = |limit| had.saturating_sub(due(limit).saturating_mul(window.saturating_sub(last)));
        let debt = match cap {
            0 => beyond(reserve).min(due(reserve)),
            _ => beyond(cap),
        };
        schedule.used.store(debt, Ordering::Relaxed);
    }
    let used = schedule.used.load(Ordering::Relaxed).saturating_mul(1000) / length;
    match (cap, reserve) {
        (cap, _) if cap != 0 && used >= cap => None,
        (_, reserve) if used < reserve => Some(Share::UnderReserve),
        _ => Some(Share::Fair),
    }
}

/// TSC at which a VP that runs from `now` on has had its cap or its reserve, or must be looked at anew.
fn end_of_share(slot: &VpSlot, now: u64, window_end: u64) -> u64 {
    let (cap, reserve) = limits(slot);
    if (cap, reserve) == (0, 0) {
        return now.saturating_add(clock::tsc_ticks(REPORT));
    }
    let used = slot.shared.schedule.used.load(Ordering::Relaxed);
    let ends = [cap, reserve].into_iter().filter(|&limit| limit != 0);
    let left = ends
        .map(|limit| clock::tsc_ticks(WINDOW).saturating_mul(limit) / 1000)
        .filter_map(|due| due.checked_sub(used).filter(|&left| left != 0))
        .min();
    left.map_or(window_end, |left| window_end.min(now.saturating_add(left)))
}

/// Runs a VP until it leaves, somebody pokes the processor for it, or TSC `until`.
fn run_slot(processor: &Processor, slot: &'static VpSlot, until: u64) {
    let Some(mut guard) = slot.try_lock() else {
        // Whoever has it gives it back soon.
        core::hint::spin_loop();
        return;
    };
    let Some(vp) = guard.as_mut() else { return };
    if slot.shared.lp() != processor.index {
        // Another processor has taken it since it was chosen.
        return;
    }
    let start = tsc();
    vp.load(processor, start);
    run_vp(processor, vp, until);
    let end = tsc();
    vp.unload(end);
    let weight = vp.partition.weight.load(Ordering::Relaxed).max(1);
    let used = end.wrapping_sub(start);
    let schedule = &slot.shared.schedule;
    schedule.used.fetch_add(used, Ordering::Relaxed);
    let virtual_units = clock::reference_units(used).saturating_mul(DEFAULT_WEIGHT) / weight;
    schedule.virtual_time.fetch_add(virtual_units, Ordering::Relaxed);
}

fn run_vp(processor: &Processor, vp: &mut Vp, until: u64) {
    loop {
        if processor.poked.swap(false, Ordering::SeqCst) {
            // The poke may have been for another VP.
            processor.poked.store(true, Ordering::SeqCst);
            if vp.shared.is_called_off() || processor.queue.lock().len() > 1 {
                return;
            }
            processor.poked.store(false, Ordering::SeqCst);
        }
        vp.prepare();
        set_alarm(processor, vp.deadline.min(until));
        processor.guest_epoch.fetch_add(1, Ordering::SeqCst);
        vp.follow_memory();
        let exit = vp.hardware.enter(&mut vp.registers);
        processor.guest_epoch.fetch_add(1, Ordering::Release);
        let left = tsc();
        match exit::handle(vp, exit) {
            Resume::Guest => {}
            Resume::AfterInterrupt => interrupts::take_pending(),
            Resume::Leave => return,
        }
        let now = tsc();
        vp.account(now, now.wrapping_sub(left));
        if now >= until {
            return;
        }
    }
}

/// Sleeps until an interrupt, unless somebody has poked the processor since it last looked.
fn idle(processor: &Processor, until: u64) {
    set_alarm(processor, until);
    let start = tsc();
    processor.sleeping.store(true, Ordering::SeqCst);
    processor.guest_epoch.fetch_add(1, Ordering::SeqCst);
    if !processor.poked.load(Ordering::SeqCst) {
        interrupts::wait();
    }
    processor.guest_epoch.fetch_add(1, Ordering::SeqCst);
    processor.sleeping.store(false, Ordering::SeqCst);
    processor
        .idle_ticks
        .fetch_add(tsc().wrapping_sub(start), Ordering::Relaxed);
}

#[inline]
fn set_alarm(processor: &Processor, deadline: u64) {
    if processor.alarm.get() != deadline {
        processor.alarm.set(deadline);
        clock::set_alarm(deadline);
    }
}

/// Gives a VP's slot to the LP that it names. Returns whether there was room.
pub fn attach(slot: &'static VpSlot) -> bool {
    let Some(processor) = Processor::get(slot.shared.lp()) else {
        return false;
    };
    slot.shared
        .schedule
        .virtual_time
        .store(processor.virtual_now.load(Ordering::Relaxed), Ordering::Relaxed);
    let added = processor.queue.lock().add(slot);
    interrupts::poke(processor);
    added
}

/// Takes a VP from its LP. It must be suspended, and nobody may run it any more.
pub fn detach(slot: &'static VpSlot) {
    let _stays = migration::hold();
    if let Some(processor) = Processor::get(slot.shared.lp()) {
        processor.queue.lock().remove(slot);
    }
}

/// The LP with the fewest VPs, if it has room for another.
pub fn least_loaded() -> Option<&'static Processor> {
    let (vps, processor) = Processor::all()
        .map(|processor| (processor.queue.lock().len(), processor))
        .min_by_key(|(vps, _)| *vps)?;
    (vps < MAX_VPS).then_some(processor)
}
