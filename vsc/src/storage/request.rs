//! A request from when it is sent to its completion.

use super::error::StorageError;
use super::queue::Queue;
use crate::memory::Buffer;
use alloc::sync::Arc;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use vmbus::protocol::storage::Packet;

/// The part of a buffer that a request is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Data<'a> {
    pub(super) buffer: &'a Arc<Buffer>,
    pub(super) offset: usize,
    pub(super) length: usize,
}

/// The slot of a request that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    pub(super) index: u16,
    /// Which of the slot's requests it is.
    pub(super) generation: u32,
}

/// A request of which nothing but its ticket is kept. Dropped, nobody waits for it any more.
pub(super) struct Request<'a> {
    queue: &'a Queue,
    /// Once it was sent, until its result was taken.
    ticket: Option<Ticket>,
}

impl<'a> Request<'a> {
    #[inline(always)]
    pub(super) const fn new(queue: &'a Queue) -> Self {
        Self { queue, ticket: None }
    }

    /// Sends the request if it was not, about `data` and with the message that `make` gives; else takes its result, which `read` makes of the answer.
    #[inline(always)]
    pub(super) fn poll<T>(
        &mut self,
        context: &Context<'_>,
        data: Option<Data<'_>>,
        make: impl FnOnce() -> Packet,
        read: impl FnOnce(&Packet) -> T,
    ) -> Poll<Result<T, StorageError>> {
        match self.ticket {
            Some(ticket) => {
                let result = ready!(self.queue.result(context, ticket, read));
                self.ticket = None;
                Poll::Ready(result)
            }
            None => {
                // Whoever takes its completion finds the task's waker.
                self.ticket = Some(ready!(self.queue.submit(context, &make(), data))?);
                Poll::Pending
            }
        }
    }
}

impl Drop for Request<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.queue.abandon(ticket);
        }
    }
}

/// A request and its whole answer.
pub(super) struct Transaction<'a> {
    request: Request<'a>,
    data: Option<Data<'a>>,
    message: Packet,
}

impl<'a> Transaction<'a> {
    pub(super) const fn new(queue: &'a Queue, message: Packet, data: Option<Data<'a>>) -> Self {
        Self {
            request: Request::new(queue),
            data,
            message,
        }
    }
}

impl Future for Transaction<'_> {
    type Output = Result<Packet, StorageError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self {
            request,
            data,
            message,
        } = self.get_mut();
        request.poll(context, *data, || *message, |answer| *answer)
    }
}
