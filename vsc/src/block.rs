//! What a block device is, for file systems and whatever else stands on one. Blocks are counted in 64 bits.

use crate::bus::Bus;
use crate::hal::Hal;
use crate::memory::Buffer;
use alloc::sync::Arc;
use core::fmt;
use core::future::Future;

/// What a device holds and can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Blocks.
    pub blocks: u64,
    /// Bytes of one, a power of two.
    pub block_size: u32,
    /// Writes are refused.
    pub read_only: bool,
    /// What is written may be lost before a flush.
    pub write_cache: bool,
    /// Blocks can be given up.
    pub discard: bool,
}

/// When a write counts as done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// As soon as a later read sees it.
    Cached,
    /// When it is on the medium.
    OnMedium,
}

/// A block device. Requests run side by side and end in any order; a future that is dropped gives up the result, not the transfer.
pub trait BlockDevice: Send + Sync {
    /// Why a request failed.
    type Error: fmt::Debug + Send;

    /// What it holds and can do. It may change, as when a medium is taken out.
    fn geometry(&self) -> Geometry;

    /// Reads from `block` on, as much as `buffer` holds: whole blocks.
    fn read(&self, block: u64, buffer: &Arc<Buffer>) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Writes all of `buffer`, whole blocks, from `block` on.
    fn write(
        &self,
        block: u64,
        buffer: &Arc<Buffer>,
        durability: Durability,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Brings to the medium all that was acknowledged before.
    fn flush(&self) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Gives up `count` blocks from `block` on; what they read afterwards is the device's choice.
    fn discard(&self, block: u64, count: u64) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Why a blocking request failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BlockingError<E> {
    /// The device says so.
    #[error(transparent)]
    Device(#[from] E),
    /// The bytes are not inside the device.
    #[error("the bytes are beyond the device's end")]
    OutOfRange,
    /// The bytes are no whole blocks.
    #[error("{0} bytes are no whole blocks")]
    NotBlocks(usize),
}

/// A block device for code that waits: requests end before their functions return. Data is copied by a buffer of its own, so that
/// the caller's memory is never shared with the host.
pub struct Blocking<H: Hal, D> {
    bus: Bus<H>,
    device: D,
    buffer: Buffer,
}

impl<H: Hal, D: BlockDevice> Blocking<H, D> {
    /// `device`, by a buffer of `buffer_size` bytes, rounded up to whole blocks; `None` where the system has not so many.
    pub fn new(bus: &Bus<H>, device: D, buffer_size: usize) -> Option<Self> {
        let block = device.geometry().block_size.max(1) as usize;
        let buffer = Buffer::allocate(bus.hal(), buffer_size.max(1).next_multiple_of(block))?;
        let bus = bus.clone();
        Some(Self { bus, device, buffer })
    }

    /// The device.
    pub const fn device(&self) -> &D {
        &self.device
    }

    /// Reads bytes from byte `position` on, wherever blocks begin and end.
    pub fn read_bytes(&mut self, position: u64, into: &mut [u8]) -> Result<(), BlockingError<D::Error>> {
        let block = u64::from(self.device.geometry().block_size.max(1));
        let (mut position, mut rest) = (position, into);
        while !rest.is_empty() {
            let skip = (position % block) as usize;
            let wanted = rest.len().saturating_add(skip).min(self.buffer.size());
            let blocks = wanted.next_multiple_of(block as usize).min(self.buffer.size());
            let length = rest.len().min(blocks.saturating_sub(skip));
            let part = self.part(blocks)?;
            self.bus.block_on(self.device.read(position / block, &part))?;
            let (now, later) = rest.split_at_mut(length);
            part.copy_to(skip, now).map_err(|_| BlockingError::OutOfRange)?;
            position = position
                .checked_add(length as u64)
                .ok_or(BlockingError::OutOfRange)?;
            rest = later;
        }
        Ok(())
    }

    /// Writes `from`, whole blocks, from `block` on.
    pub fn write(
        &mut self,
        block: u64,
        from: &[u8],
        durability: Durability,
    ) -> Result<(), BlockingError<D::Error>> {
        let size = self.device.geometry().block_size.max(1) as usize;
        if !from.len().is_multiple_of(size) {
            return Err(BlockingError::NotBlocks(from.len()));
        }
        let mut block = block;
        for bytes in from.chunks(self.buffer.size()) {
            let part = self.part(bytes.len())?;
            part.copy_from(0, bytes).map_err(|_| BlockingError::OutOfRange)?;
            self.bus.block_on(self.device.write(block, &part, durability))?;
            block = block
                .checked_add((bytes.len() / size) as u64)
                .ok_or(BlockingError::OutOfRange)?;
        }
        Ok(())
    }

    /// Brings to the medium all that was written.
    pub fn flush(&mut self) -> Result<(), BlockingError<D::Error>> {
        Ok(self.bus.block_on(self.device.flush())?)
    }

    /// Gives up `count` blocks from `block` on.
    pub fn discard(&mut self, block: u64, count: u64) -> Result<(), BlockingError<D::Error>> {
        Ok(self.bus.block_on(self.device.discard(block, count))?)
    }

    /// The first `length` bytes of the buffer, as one of their own.
    fn part(&self, length: usize) -> Result<Arc<Buffer>, BlockingError<D::Error>> {
        self.buffer
            .part(0, length)
            .map(Arc::new)
            .map_err(|_| BlockingError::OutOfRange)
    }
}
