//! `embassy-time` on synthetic timer 0: a tick is 100 ns, the unit of the reference time.
//!
//! Each processor has a list and a timer of its own, used by the tasks that run on it. The list is unsorted, with one entry
//! a task, like embassy's own, but without a fixed capacity.

use crate::hypervisor::{synthetic_timer, time};
use crate::processor::local;
use alloc::vec::Vec;
use core::task::Waker;
use embassy_time_driver::Driver;
use spin::Mutex;

/// Tasks of one processor that wait for a time.
#[derive(Default)]
pub struct Timers(Mutex<List>);

impl Timers {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self(Mutex::new(List { entries: Vec::new() }))
    }

    /// Wakes the tasks whose time has come and arms the timer for the next. To be called on the processor itself.
    pub fn expire(&self) {
        loop {
            let now = time::now();
            let due = self.0.lock().take_due(now);
            if due.is_empty() {
                break;
            }
            due.into_iter().for_each(Waker::wake);
        }
        self.arm();
    }

    fn schedule(&self, at: u64, waker: &Waker) {
        let sooner = self.0.lock().schedule(at, waker);
        if sooner {
            self.arm();
        }
    }

    fn arm(&self) {
        if let Some(at) = self.0.lock().next() {
            synthetic_timer::arm(at);
        }
    }
}

/// Who waits until when.
#[derive(Default)]
struct List {
    entries: Vec<(u64, Waker)>,
}

impl List {
    /// Notes that `waker` is to be woken at `at`, or earlier where it was to be already. Returns whether the next time changed.
    fn schedule(&mut self, at: u64, waker: &Waker) -> bool {
        let before = self.next();
        match self.entries.iter_mut().find(|(_, other)| other.will_wake(waker)) {
            Some(entry) => entry.0 = entry.0.min(at),
            None => self.entries.push((at, waker.clone())),
        }
        self.next() != before
    }

    fn take_due(&mut self, now: u64) -> Vec<Waker> {
        self.entries
            .extract_if(.., |(at, _)| *at <= now)
            .map(|(_, waker)| waker)
            .collect()
    }

    fn next(&self) -> Option<u64> {
        self.entries.iter().map(|(at, _)| *at).min()
    }
}

struct SyntheticTimers;

impl Driver for SyntheticTimers {
    fn now(&self) -> u64 {
        time::now()
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        local().timers.schedule(at, waker);
    }
}

mod driver {
    #![allow(unsafe_code)] // the macro exports symbols

    use super::SyntheticTimers;
    embassy_time_driver::time_driver_impl!(static DRIVER: SyntheticTimers = SyntheticTimers);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Counter(AtomicU32);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_task_is_woken_once_at_the_earliest_of_its_times() {
        let counter = Arc::new(Counter::default());
        let waker = Waker::from(counter.clone());
        let mut list = List::default();
        assert!(list.schedule(50, &waker));
        assert!(!list.schedule(70, &waker));
        assert!(list.schedule(30, &waker));
        assert!(list.take_due(29).is_empty());
        list.take_due(30).into_iter().for_each(Waker::wake);
        assert_eq!(counter.0.load(Ordering::Relaxed), 1);
        assert_eq!(list.next(), None);
    }

    #[test]
    fn the_next_time_is_the_earliest_of_all_tasks() {
        let mut list = List::default();
        assert!(list.schedule(50, &Waker::from(Arc::new(Counter::default()))));
        assert!(!list.schedule(60, &Waker::from(Arc::new(Counter::default()))));
        assert_eq!(list.take_due(50).len(), 1);
        assert_eq!(list.next(), Some(60));
    }
}
