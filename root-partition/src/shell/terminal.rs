//! The byte stream that the shell talks over.

use core::task::{Context, Poll};

/// A serial line, a socket, or a test's script.
pub trait Terminal: Send {
    /// The next byte from the user; `None` when no more will come (a pipe's end). Where none is there yet, `context`'s
    /// waker is woken once one is.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Option<u8>>;

    /// Sends `bytes` to the user, all of them. Newlines have become CRLF already.
    fn write(&mut self, bytes: &[u8]);
}
