//! Moving VPs between logical processors: one that has nothing to do takes over a VP that waits elsewhere, and so does one
//! that has two less to run than another. A move then makes both have as much, so none is ever undone by the next.
//!
//! A VP belongs to one LP at a time ([`VpShared::lp`](crate::partition::shared::VpShared::lp)). Who asks something of it writes
//! down what, then looks where it is and pokes that processor; who moves it writes down where it is, and the new processor
//! looks at everything that was asked before it runs it. So no request is lost, whichever comes first. Moves take turns with
//! each other and with deletions. The root's VPs stay where they are: devices interrupt there.

use crate::partition::shared::VpSlot;
use crate::platform::clock;
use crate::platform::registers::tsc;
use crate::processor::interrupts;
use crate::processor::local::Processor;
use crate::scheduler::MAX_VPS;
use core::sync::atomic::Ordering;
use hypercall_api::counter::LP_MIGRATIONS;
use spin::{Mutex, MutexGuard};

/// Moves and deletions take turns.
static TURN: Mutex<()> = Mutex::new(());
/// How long a VP waits before another processor takes it, in 100 ns: 1 ms. Moving costs it its translations, and what makes
/// it wait is mostly the root, which soon sleeps again.
const PATIENCE: u64 = 10_000;

/// How often a busy processor looks whether others have more to do, in 100 ns: 20 ms.
const INTERVAL: u64 = 200_000;
/// How many more VPs another must have to run.
const UNEVEN: usize = 2;

/// Keeps all VPs where they are while it lives.
pub fn hold() -> MutexGuard<'static, ()> {
    TURN.lock()
}

/// Since when (TSC) `slot` has waited for its processor, where it has waited so long at `now` that another may take it.
pub fn waits_since(slot: &VpSlot, now: u64) -> Option<u64> {
    let since = slot.shared.schedule.waiting_since.load(Ordering::Relaxed);
    let movable = since != 0 && !slot.shared.partition.is_root() && !slot.shared.is_called_off();
    (movable && now.saturating_sub(since) >= clock::tsc_ticks(PATIENCE)).then_some(since)
}

/// Tells one processor that sleeps that a VP waits here.
pub fn offer() {
    if let Some(idle) = Processor::all().find(|processor| processor.sleeping.load(Ordering::Relaxed)) {
        interrupts::poke(idle);
    }
}

/// Takes the VP that has waited longest elsewhere over to this processor, which is idle. Returns whether there was one.
pub fn take_over(idle: &Processor) -> bool {
    take_from(idle, 1)
}

/// Takes a VP over to this processor, which is busy, from one that has more to do; at TSC `now`, and seldom.
pub fn even_out(busy: &Processor, now: u64) {
    if now < busy.next_look.get() {
        return;
    }
    busy.next_look.set(now.saturating_add(clock::tsc_ticks(INTERVAL)));
    let enough = busy.runnable.load(Ordering::Relaxed) + UNEVEN;
    if Processor::all().any(|other| other.runnable.load(Ordering::Relaxed) >= enough) {
        take_from(busy, enough);
    }
}

/// Takes the VP over that has waited longest on the processors that have at least so many to run.
fn take_from(taker: &Processor, runnable: usize) -> bool {
    let Some(_turn) = TURN.try_lock() else {
        return false;
    };
    if taker.queue.lock().len() >= MAX_VPS {
        return false;
    }
    let now = tsc();
    let others = Processor::all()
        .filter(|other| other.index != taker.index && other.runnable.load(Ordering::Relaxed) >= runnable);
    let longest = others
        .filter_map(|processor| {
            let (since, slot) = processor.queue.lock().longest_waiting(now)?;
            Some((since, slot, processor))
        })
        .min_by_key(|(since, ..)| *since);
    let Some((_, slot, from)) = longest else {
        return false;
    };
    // Where it is locked, it does not wait any more.
    let Some(mut guard) = slot.try_lock() else {
        return false;
    };
    let Some(vp) = guard.as_mut() else { return false };
    from.queue.lock().remove(slot);
    vp.forget_processor();
    slot.shared.statistics.add(LP_MIGRATIONS, 1);
    slot.shared.move_to(taker.index);
    let schedule = &slot.shared.schedule;
    let time = taker.virtual_now.load(Ordering::Relaxed);
    schedule.virtual_time.store(time, Ordering::Relaxed);
    schedule.waiting_since.store(0, Ordering::Relaxed);
    // There is room: it was looked for above, and VPs that are created meanwhile go where there are fewest.
    taker.queue.lock().add(slot)
}
