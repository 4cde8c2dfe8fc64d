//! Running futures without an executor, and the tasks that wait for something.

use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::convert::Infallible;
use core::future::Future;
use core::pin::pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};

/// Whether the future was woken since it was last polled.
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// Runs `future` to its end, on this processor; calls `idle` again and again while it waits.
pub fn block_on<F: Future>(future: F, mut idle: impl FnMut()) -> F::Output {
    let Ok(output) = block_on_while::<_, Infallible>(future, || {
        idle();
        Ok(())
    });
    output
}

/// As [`block_on`], as long as `idle` does not end it by an error; the future is dropped then.
pub fn block_on_while<F: Future, E>(
    future: F,
    mut idle: impl FnMut() -> Result<(), E>,
) -> Result<F::Output, E> {
    let flag = Arc::new(Flag(AtomicBool::new(true)));
    let waker = Waker::from(flag.clone());
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if flag.0.swap(false, Ordering::AcqRel)
            && let Poll::Ready(output) = future.as_mut().poll(&mut context)
        {
            return Ok(output);
        }
        idle()?;
    }
}

/// Tasks that wait for the same thing.
#[derive(Default, Debug)]
pub(crate) struct Waiting(Vec<Waker>);

impl Waiting {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a task, once.
    pub(crate) fn add(&mut self, waker: &Waker) {
        if !self.0.iter().any(|known| known.will_wake(waker)) {
            self.0.push(waker.clone());
        }
    }

    /// As [`take`](Self::take), if there are any.
    #[inline(always)]
    pub(crate) fn take_any(&mut self) -> Option<Self> {
        (!self.0.is_empty()).then(|| self.take())
    }

    /// All of them, to be woken once no lock is held.
    pub(crate) fn take(&mut self) -> Self {
        core::mem::take(self)
    }

    pub(crate) fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}
