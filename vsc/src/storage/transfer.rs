//! Reads and writes of a disk. One future and no nest of them, which keeps little while it waits, as they are what a guest does most.

use super::controller::{message, outcome, transferred};
use super::disk::Disk;
use super::error::StorageError;
use super::request::{Data, Request};
use super::scsi::{self, Cdb, Sense};
use crate::block::{BlockDevice, Durability};
use crate::memory::Buffer;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use vmbus::protocol::storage::DataDirection;

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Blocks are read.
    Read,
    /// Blocks are written.
    Write(Durability),
}

/// How far a transfer is.
#[derive(Clone, Copy)]
struct Piece {
    kind: Kind,
    /// The transfer's first block.
    block: u64,
    /// The power of two of a block's bytes; zero until all was checked.
    shift: u32,
    /// Bytes that have gone.
    done: usize,
    /// Bytes of the piece that is under way.
    length: usize,
}

impl Piece {
    /// What the request for the piece asks for.
    #[inline(always)]
    fn command(self) -> (scsi::Transfer, DataDirection) {
        let transfer = scsi::Transfer {
            is_write: self.kind != Kind::Read,
            fua: self.kind == Kind::Write(Durability::OnMedium),
            block: self.block + (self.done >> self.shift) as u64,
            count: (self.length >> self.shift) as u32,
        };
        match self.kind {
            Kind::Read => (transfer, DataDirection::READ),
            Kind::Write(_) => (transfer, DataDirection::WRITE),
        }
    }
}

/// A read or a write of all of a buffer, in pieces that the host takes.
pub(super) struct Transfer<'a, 'b> {
    disk: &'a Disk,
    buffer: &'b Arc<Buffer>,
    piece: Piece,
    /// The request of that piece.
    request: Option<Request<'a>>,
    /// The piece once more, as the unit had something else to say first. On the heap, as few need it.
    again: Option<Again<'a>>,
}

type Again<'a> = Pin<Box<dyn Future<Output = Result<usize, StorageError>> + Send + 'a>>;

impl<'a, 'b> Transfer<'a, 'b> {
    #[inline(always)]
    pub(super) const fn new(disk: &'a Disk, kind: Kind, block: u64, buffer: &'b Arc<Buffer>) -> Self {
        Self {
            disk,
            buffer,
            piece: Piece {
                kind,
                block,
                shift: 0,
                done: 0,
                length: 0,
            },
            request: None,
            again: None,
        }
    }

    /// Whether the disk has the blocks, and takes them.
    #[inline(always)]
    fn check(&mut self) -> Result<(), StorageError> {
        let geometry = self.disk.geometry();
        if geometry.read_only && self.piece.kind != Kind::Read {
            return Err(StorageError::ReadOnly);
        }
        // A power of two, as the disk was not believed otherwise.
        let shift = geometry.block_size.trailing_zeros();
        let (bytes, count) = (self.buffer.size(), self.buffer.size() >> shift);
        if bytes == 0 || count << shift != bytes {
            return Err(StorageError::NotBlocks(bytes));
        }
        let end = self.piece.block.checked_add(count as u64);
        if end.is_none_or(|end| end > geometry.blocks) {
            return Err(StorageError::OutOfRange);
        }
        self.piece.shift = shift;
        Ok(())
    }

    /// Begins the next piece.
    #[inline(always)]
    fn begin(&mut self) -> Result<(), StorageError> {
        let controller = self.disk.controller();
        let piece = &mut self.piece;
        let most = (controller.max_transfer() >> piece.shift).max(1) as usize;
        piece.length = (most << piece.shift).min(self.buffer.size() - piece.done);
        self.request = Some(controller.begin()?);
        Ok(())
    }

    /// Waits until the piece has gone, all of it.
    #[inline(always)]
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StorageError>> {
        let piece = self.piece;
        let length = piece.length;
        if let Some(again) = &mut self.again {
            let transferred = ready!(again.as_mut().poll(context))?;
            return Poll::Ready(whole(transferred, length));
        }
        let disk = self.disk;
        let make = || {
            let (command, direction) = piece.command();
            message(disk.address(), direction, length, |cdb| command.encode(cdb))
        };
        let data = Data {
            buffer: self.buffer,
            offset: piece.done,
            length,
        };
        // A transfer that has ended is asked again.
        let Some(request) = &mut self.request else {
            return Poll::Ready(Err(StorageError::Protocol));
        };
        let mut unusual = None;
        ready!(request.poll(context, Some(data), make, |answer| {
            if transferred(answer) != Some(length) {
                unusual = Some(outcome(answer, length));
            }
        }))?;
        match unusual {
            None => Poll::Ready(Ok(())),
            Some(transferred) => Poll::Ready(whole(transferred?, length)),
        }
    }

    /// The piece once more.
    #[cold]
    fn once_more(&self) -> Again<'a> {
        let (disk, (command, direction)) = (self.disk, self.piece.command());
        let cdb = Cdb::transfer(&command);
        let (buffer, offset, length) = (self.buffer.clone(), self.piece.done, self.piece.length);
        Box::pin(async move {
            let data = Data {
                buffer: &buffer,
                offset,
                length,
            };
            disk.command_again(cdb, direction, Some(data)).await
        })
    }
}

/// Less than was asked for is no success.
const fn whole(transferred: usize, length: usize) -> Result<(), StorageError> {
    match transferred == length {
        true => Ok(()),
        false => Err(StorageError::Protocol),
    }
}

impl Future for Transfer<'_, '_> {
    type Output = Result<(), StorageError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.piece.shift == 0 {
            this.check()?;
            this.begin()?;
        }
        loop {
            match ready!(this.poll_piece(context)) {
                Ok(()) => {}
                Err(StorageError::Sense(sense))
                    if sense.key == Sense::UNIT_ATTENTION && this.again.is_none() =>
                {
                    this.again = Some(this.once_more());
                    continue;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
            this.piece.done += this.piece.length;
            if this.piece.done == this.buffer.size() {
                (this.request, this.again) = (None, None);
                return Poll::Ready(Ok(()));
            }
            this.again = None;
            this.begin()?;
        }
    }
}
