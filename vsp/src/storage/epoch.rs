//! The requests of a controller between two resets. A reset begins a new epoch and has ended when nobody works on a request of an
//! older one: then neither the guest's memory nor a disk is touched for them any more.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use spin::Mutex;

/// An epoch. Whoever works on a request of it has a share.
#[derive(Debug, Default)]
pub struct Epoch {
    over: AtomicBool,
    end: Arc<End>,
}

impl Epoch {
    /// There was a reset: what is not begun yet is not to be begun any more.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        self.end.reach();
    }
}

#[derive(Debug, Default)]
struct End(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    reached: bool,
    wakers: Vec<Waker>,
}

impl End {
    fn is_reached(&self) -> bool {
        self.0.lock().reached
    }

    fn reach(&self) {
        let wakers = {
            let mut waiting = self.0.lock();
            waiting.reached = true;
            core::mem::take(&mut waiting.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// The epoch that goes on, and the ends of those that are over and have not ended.
#[derive(Debug, Default)]
pub struct Epochs {
    current: Arc<Epoch>,
    older: Vec<Arc<End>>,
}

impl Epochs {
    /// A share of the epoch that goes on.
    pub fn current(&self) -> Arc<Epoch> {
        self.current.clone()
    }

    /// Begins a new one. What is returned completes when all older ones have ended.
    pub fn advance(&mut self) -> Ending {
        let over = core::mem::take(&mut self.current);
        over.over.store(true, Ordering::Release);
        self.older.retain(|end| !end.is_reached());
        self.older.push(over.end.clone());
        Ending(self.older.clone())
    }
}

/// Completes when the epochs that were over have ended.
#[derive(Debug)]
pub struct Ending(Vec<Arc<End>>);

impl Future for Ending {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        while let Some(end) = self.0.last() {
            let mut waiting = end.0.lock();
            if !waiting.reached {
                if !waiting
                    .wakers
                    .iter()
                    .any(|waker| waker.will_wake(context.waker()))
                {
                    waiting.wakers.push(context.waker().clone());
                }
                return Poll::Pending;
            }
            drop(waiting);
            self.0.pop();
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_done(ending: &mut Ending) -> bool {
        Pin::new(ending)
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    }

    #[test]
    fn a_reset_has_ended_when_all_older_requests_have() {
        let mut epochs = Epochs::default();
        let first = epochs.current();
        let mut reset = epochs.advance();
        let second = epochs.current();
        assert!(first.is_over() && !second.is_over());
        let mut again = epochs.advance();
        assert!(!is_done(&mut reset) && !is_done(&mut again));
        drop(second);
        assert!(!is_done(&mut again), "a request from before both is under way");
        drop(first);
        assert!(is_done(&mut reset) && is_done(&mut again));
        assert!(is_done(&mut epochs.advance()), "nothing was under way");
    }
}
