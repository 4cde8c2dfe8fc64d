//! Waiting: for one thing by one task, or for any change by several.

use alloc::vec::Vec;
use core::future::poll_fn;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::{Context, Poll, Waker};
use spin::Mutex;

/// Something that one task waits for. Raising it twice before it is seen counts once.
#[derive(Debug, Default)]
pub struct Signal {
    raised: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Signal {
    /// Not raised.
    pub const fn new() -> Self {
        Self {
            raised: AtomicBool::new(false),
            waker: Mutex::new(None),
        }
    }

    /// Wakes the task.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        let waker = self.waker.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Completes once it has been raised, and lowers it.
    pub async fn wait(&self) {
        poll_fn(|context| self.poll(context)).await;
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.raised.swap(false, Ordering::AcqRel) {
            return Poll::Ready(());
        }
        let mut waker = self.waker.lock();
        if !waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(context.waker()))
        {
            *waker = Some(context.waker().clone());
        }
        drop(waker);
        // Raised between the two looks: nobody was there to be woken.
        match self.raised.swap(false, Ordering::AcqRel) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

/// Something whose changes several tasks wait for.
#[derive(Debug, Default)]
pub struct Changes {
    count: AtomicU64,
    wakers: Mutex<Vec<Waker>>,
}

impl Changes {
    /// Tells that something has changed.
    pub fn tell(&self) {
        self.count.fetch_add(1, Ordering::Release);
        let wakers = {
            let mut wakers = self.wakers.lock();
            match wakers.is_empty() {
                true => return,
                false => core::mem::take(&mut *wakers),
            }
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Completes with what `look` finds, now or after a change.
    pub async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        poll_fn(|context| self.poll(context, &mut look)).await
    }

    /// As [`until`](Self::until), for a poll function.
    pub fn poll<T>(&self, context: &mut Context<'_>, mut look: impl FnMut() -> Option<T>) -> Poll<T> {
        loop {
            let count = self.count.load(Ordering::Acquire);
            if let Some(found) = look() {
                return Poll::Ready(found);
            }
            let mut wakers = self.wakers.lock();
            if self.count.load(Ordering::Acquire) != count {
                continue;
            }
            if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                wakers.push(context.waker().clone());
            }
            return Poll::Pending;
        }
    }
}

/// Lets other tasks run, and comes back.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if core::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::task::Wake;

    #[derive(Default)]
    struct Counter(AtomicU32);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_signal_wakes_its_task_and_is_seen_once() {
        let counter = Arc::new(Counter::default());
        let waker = Waker::from(counter.clone());
        let mut context = Context::from_waker(&waker);
        let signal = Signal::default();
        assert_eq!(signal.poll(&mut context), Poll::Pending);
        signal.raise();
        signal.raise();
        assert_eq!(counter.0.load(Ordering::Relaxed), 1);
        assert_eq!(signal.poll(&mut context), Poll::Ready(()));
        assert_eq!(signal.poll(&mut context), Poll::Pending);
    }

    #[test]
    fn a_change_wakes_all_who_wait_and_only_what_is_looked_for_ends_the_wait() {
        let counter = Arc::new(Counter::default());
        let waker = Waker::from(counter.clone());
        let mut context = Context::from_waker(&waker);
        let (changes, value) = (Changes::default(), AtomicU32::new(0));
        let look = || Some(value.load(Ordering::Relaxed)).filter(|value| *value > 1);
        let mut wait = pin!(changes.until(look));
        assert_eq!(wait.as_mut().poll(&mut context), Poll::Pending);
        value.store(1, Ordering::Relaxed);
        changes.tell();
        assert_eq!(wait.as_mut().poll(&mut context), Poll::Pending);
        value.store(2, Ordering::Relaxed);
        changes.tell();
        assert_eq!(wait.as_mut().poll(&mut context), Poll::Ready(2));
        assert_eq!(counter.0.load(Ordering::Relaxed), 2);
    }
}
