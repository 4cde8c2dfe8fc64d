//! A namespace as a disk.

use super::command::{Command, Purpose, Range};
use super::controller::{Controller, plain};
use super::hardware::Hardware;
use super::identify;
use super::pair::Data;
use super::prp::{self, Piece, Position};
use crate::memory::dma;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::future::Future;
use vsp::buffer::Buffer;
use vsp::storage::disk::{Disk, DiskError, Durability, Geometry};

/// How often a command is made that resets of the controller end.
const ATTEMPTS: u32 = 3;
/// Most sectors of a read or write.
const MOST_SECTORS: usize = 1 << 16;
/// Sectors that one command gives up.
const DISCARD_SECTORS: u64 = 1 << 22;

/// A namespace.
pub struct Namespace<H> {
    controller: Arc<Controller<H>>,
    id: u32,
    geometry: Geometry,
}

// Not derived, as that would want the hardware to be `Clone`.
impl<H> Clone for Namespace<H> {
    fn clone(&self) -> Self {
        Self {
            controller: self.controller.clone(),
            id: self.id,
            geometry: self.geometry,
        }
    }
}

/// Which way data goes.
#[derive(Clone, Copy)]
enum Direction {
    Read,
    Write(Durability),
}

impl<H: Hardware> Namespace<H> {
    /// Namespace `id` of a controller that was started.
    pub fn new(controller: Arc<Controller<H>>, id: u32, identity: &identify::Namespace) -> Self {
        let controller_identity = controller.identity();
        let geometry = Geometry {
            sectors: identity.sectors,
            sector_size: identity.sector_size,
            read_only: identity.write_protected,
            write_cache: controller_identity.is_some_and(|identity| identity.write_cache),
            discard: controller_identity.is_some_and(|identity| identity.deallocates),
        };
        Self {
            controller,
            id,
            geometry,
        }
    }

    /// Its id.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Its controller.
    pub const fn controller(&self) -> &Arc<Controller<H>> {
        &self.controller
    }

    fn check(&self, sector: u64, count: u64, writes: bool) -> Result<(), DiskError> {
        if writes && self.geometry.read_only {
            return Err(DiskError::ReadOnly);
        }
        match sector.checked_add(count) {
            Some(end) if end <= self.geometry.sectors => Ok(()),
            _ => Err(DiskError::OutOfRange),
        }
    }

    async fn transfer(
        &self,
        direction: Direction,
        sector: u64,
        buffer: &Arc<Buffer>,
    ) -> Result<(), DiskError> {
        let bytes = self.geometry.sector_size.bytes() as usize;
        if !buffer.size().is_multiple_of(bytes) {
            return Err(DiskError::BufferSize);
        }
        let count = (buffer.size() / bytes) as u64;
        self.check(sector, count, matches!(direction, Direction::Write(_)))?;
        let limit = self.controller.most_bytes().min(MOST_SECTORS * bytes);
        let mut start = Position::default();
        let mut done = 0;
        while done < buffer.size() {
            let piece = prp::next_piece(buffer.segments(), start, buffer.size() - done, bytes, limit);
            let at = sector + (done / bytes) as u64;
            match piece.bounced {
                false => self.move_piece(direction, at, buffer, piece).await?,
                // On the heap, as it is rare, and every other request would carry its size about.
                true => Box::pin(self.bounce(direction, at, buffer, done, piece.length)).await?,
            }
            start = prp::advance(buffer.segments(), start, piece.length);
            done += piece.length;
        }
        Ok(())
    }

    /// One command, made again where a reset ended it: reading and writing twice is as good as once, as nobody has been
    /// told of the first time.
    async fn move_piece(
        &self,
        direction: Direction,
        sector: u64,
        buffer: &Arc<Buffer>,
        piece: Piece,
    ) -> Result<(), DiskError> {
        let sectors = (piece.length >> self.geometry.sector_size.shift()) as u32;
        let (command, purpose) = match direction {
            Direction::Read => (Command::read(self.id, sector, sectors), Purpose::Read(sector)),
            Direction::Write(durability) => (
                Command::write(self.id, sector, sectors, durability),
                Purpose::Write(sector),
            ),
        };
        let data = Data::Buffer {
            buffer,
            start: piece.start,
            length: piece.length,
        };
        let mut attempt = 1;
        loop {
            let error = match self.controller.io(command, data).await {
                Ok(_) => return Ok(()),
                Err(failure) => failure.error(purpose),
            };
            if error != DiskError::Reset || attempt == ATTEMPTS {
                return Err(error);
            }
            attempt += 1;
        }
    }

    /// Moves `length` bytes, at most a page, by way of memory that the device can reach.
    async fn bounce(
        &self,
        direction: Direction,
        sector: u64,
        buffer: &Buffer,
        offset: usize,
        length: usize,
    ) -> Result<(), DiskError> {
        let page = dma::buffer(length).ok_or(DiskError::Failed)?;
        if matches!(direction, Direction::Write(_)) {
            copy((buffer, offset), (&page, 0), length)?;
        }
        let piece = Piece {
            start: Position::default(),
            length,
            bounced: false,
        };
        self.move_piece(direction, sector, &page, piece).await?;
        match direction {
            Direction::Read => copy((&page, 0), (buffer, offset), length),
            Direction::Write(_) => Ok(()),
        }
    }

    /// A command without a buffer, made again where a reset ended it.
    async fn order(&self, command: Command, data: Data<'_>) -> Result<(), DiskError> {
        let mut attempt = 1;
        loop {
            match plain(self.controller.io(command, data).await) {
                Err(DiskError::Reset) if attempt < ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    async fn flush_cache(&self) -> Result<(), DiskError> {
        match self.geometry.write_cache {
            true => self.order(Command::flush(self.id), Data::None).await,
            // What was acknowledged is on the medium.
            false if self.controller.is_dead() => Err(DiskError::Failed),
            false => Ok(()),
        }
    }

    async fn deallocate(&self, sector: u64, count: u64) -> Result<(), DiskError> {
        if !self.geometry.discard {
            return Err(DiskError::Unsupported);
        }
        self.check(sector, count, true)?;
        let mut done = 0;
        while done < count {
            let sectors = (count - done).min(DISCARD_SECTORS);
            let range = Range {
                attributes: 0,
                sectors: sectors as u32,
                first: sector + done,
            };
            self.order(Command::deallocate(self.id), Data::Range(range))
                .await?;
            done += sectors;
        }
        Ok(())
    }
}

/// Copies `length` bytes from one buffer and offset to another.
fn copy(from: (&Buffer, usize), to: (&Buffer, usize), length: usize) -> Result<(), DiskError> {
    let mut bytes = [0; 512];
    for done in (0..length).step_by(bytes.len()) {
        let here = (length - done).min(bytes.len());
        let part = &mut bytes[..here];
        from.0
            .copy_to(from.1 + done, part)
            .map_err(|_| DiskError::BufferSize)?;
        to.0.copy_from(to.1 + done, part)
            .map_err(|_| DiskError::BufferSize)?;
    }
    Ok(())
}

impl<H: Hardware> Disk for Namespace<H> {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read(&self, sector: u64, buffer: &Arc<Buffer>) -> impl Future<Output = Result<(), DiskError>> + Send {
        self.transfer(Direction::Read, sector, buffer)
    }

    fn write(
        &self,
        sector: u64,
        buffer: &Arc<Buffer>,
        durability: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + Send {
        self.transfer(Direction::Write(durability), sector, buffer)
    }

    fn flush(&self) -> impl Future<Output = Result<(), DiskError>> + Send {
        self.flush_cache()
    }

    fn discard(&self, sector: u64, count: u64) -> impl Future<Output = Result<(), DiskError>> + Send {
        self.deallocate(sector, count)
    }
}
