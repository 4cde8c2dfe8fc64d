//! The other processors: each waits for work and does it.

use core::sync::atomic::{AtomicPtr, Ordering};
use vsc_runtime::boot::BootInfo;
use vsc_runtime::hypervisor::time;
use vsc_runtime::processor::local::{self, MAX_PROCESSORS};
use vsc_runtime::processor::start::start_others;
use vsc_runtime::{Processor, apic, processor};

/// By which a waiting processor is told of work.
const WORK_VECTOR: u8 = 0x21;
/// How long anything may take, in 100 ns: ten seconds, for slow emulators on busy hosts.
const PATIENCE: u64 = 100_000_000;

/// A piece of work.
pub(crate) type Work = fn();

static WORK: [AtomicPtr<Work>; MAX_PROCESSORS] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_PROCESSORS];

/// Starts the others, and returns how many processors there are.
pub(crate) fn start(boot: &BootInfo) -> usize {
    start_others(boot, |me| {
        loop {
            run_work(me);
        }
    })
}

fn run_work(me: &'static Processor) {
    x86_64::instructions::interrupts::disable();
    let work = WORK[me.index as usize].load(Ordering::Acquire);
    match super::access::static_ref(work) {
        None => vsc_runtime::processor::instruction::wait(),
        Some(work) => {
            x86_64::instructions::interrupts::enable();
            work();
            WORK[me.index as usize].store(core::ptr::null_mut(), Ordering::Release);
        }
    }
}

/// A processor other than this one, if there is one.
pub(crate) fn other() -> Option<&'static Processor> {
    local::all().find(|other| other.index != processor().index && other.running.load(Ordering::Acquire))
}

/// Lets `other` do `work` without waiting for its end.
pub(crate) fn begin_on(other: &Processor, work: &'static Work) {
    let place = core::ptr::from_ref(work).cast_mut();
    WORK[other.index as usize].store(place, Ordering::Release);
    apic::send(other.apic_id.load(Ordering::Acquire), WORK_VECTOR);
}

/// Waits until `other` has done its work; false where that takes too long.
pub(crate) fn finish_on(other: &Processor) -> bool {
    wait_until(|| WORK[other.index as usize].load(Ordering::Acquire).is_null())
}

/// Lets `other` do `work` and waits for its end; false where that takes too long.
pub(crate) fn run_on(other: &Processor, work: &'static Work) -> bool {
    begin_on(other, work);
    finish_on(other)
}

/// Waits until `condition` holds; false where that takes too long.
pub(crate) fn wait_until(condition: impl Fn() -> bool) -> bool {
    let start = time::now();
    while !condition() {
        if time::now().wrapping_sub(start) > PATIENCE {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

/// Waits for `milliseconds`, in which something should not happen.
pub(crate) fn pause(milliseconds: u64) {
    time::wait(time::milliseconds(milliseconds));
}
