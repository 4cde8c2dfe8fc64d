//! Tasks that cannot move between processors, as those of `embassy-net`, whose stack is shared without locks.
#![allow(unsafe_code)]

use super::queue::start_task;
use super::{Task, spawn_on};
use crate::processor::local;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

/// Starts the future that `make` returns as a task of VP `vp`, by the rules of [`spawn_on`]. It is made there, too.
pub fn spawn_local<F>(vp: u32, make: impl FnOnce() -> F + Send + 'static) -> Task<F::Output>
where
    F: Future<Output: Send> + 'static,
{
    spawn_on(vp, async move { Stays(make()).await })
}

/// Starts `future` as a task of this processor, where it was made.
pub fn spawn_here<F>(future: F) -> Task<F::Output>
where
    F: Future<Output: Send> + 'static,
{
    start_task(Stays(future), local())
}

/// A future that stays where it was made.
struct Stays<F>(F);

// SAFETY: `spawn_local` makes it inside a task, which is polled and dropped by one processor's executor and no other; `spawn_here`
// hands it to the executor of the processor that it is on.
unsafe impl<F> Send for Stays<F> {}

impl<F: Future> Future for Stays<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: the inner future is pinned whenever the outer one is, and is not moved out.
        unsafe { self.map_unchecked_mut(|stays| &mut stays.0) }.poll(context)
    }
}
