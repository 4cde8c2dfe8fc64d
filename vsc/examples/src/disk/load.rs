//! Work for a disk: reading all of it whatever fails, and many requests at once for good.

use super::{DiskError, allocate};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::Poll;
use vsc::block::{BlockDevice, Durability};
use vsc::bus::Bus;
use vsc::memory::Buffer;
use vsc::storage::{Disk, StorageError};
use vsc_runtime::hal::Kernel;
use vsc_runtime::println;

/// Bytes of a request.
const PIECE: usize = 64 << 10;
/// Requests at once.
const DEPTH: usize = 16;
/// Failures that are told one by one.
const MOST_TOLD: u64 = 8;

/// Reads all of `disk`, and says which pieces cannot be read.
pub(super) fn sweep(bus: &Bus<Kernel>, disk: &Disk) -> Result<(), DiskError> {
    let geometry = disk.geometry();
    let piece = PIECE as u64 / u64::from(geometry.block_size);
    let buffer = Arc::new(allocate(bus)(PIECE).ok_or(DiskError::NoMemory)?);
    let (mut pieces, mut failed) = (0_u64, 0_u64);
    let mut block = 0;
    while block + piece <= geometry.blocks {
        pieces += 1;
        if let Err(error) = bus.block_on(disk.read(block, &buffer)) {
            failed += 1;
            if failed <= MOST_TOLD {
                println!("disk: {} blocks from {block} on: {error}", disk.address());
            }
        }
        block += piece;
    }
    println!("disk: {} swept: {pieces} pieces, {failed} failed", disk.address());
    Ok(())
}

type Request<'a> = Pin<Box<dyn Future<Output = Result<(), StorageError>> + 'a>>;

/// Writes and reads all over `disk`, for good, and with `chatter` says so each time. What is on it is lost.
pub(super) fn run(bus: &Bus<Kernel>, disk: Disk, chatter: bool) -> Result<(), DiskError> {
    let geometry = disk.geometry();
    let piece = PIECE as u64 / u64::from(geometry.block_size);
    let pieces = (geometry.blocks / piece).max(1);
    let buffers: Option<Vec<Arc<Buffer>>> = (0..DEPTH).map(|_| allocate(bus)(PIECE).map(Arc::new)).collect();
    let buffers = buffers.ok_or(DiskError::NoMemory)?;
    let (mut next, mut told, mut rounds) = (0_u64, false, 0_u64);
    loop {
        let requests = buffers.iter().enumerate().map(|(index, buffer)| {
            next = next
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let block = (next >> 33) % pieces * piece;
            let request: Request<'_> = match index % 4 {
                0 => Box::pin(disk.write(block, buffer, Durability::Cached)),
                1 => Box::pin(disk.write(block, buffer, Durability::OnMedium)),
                _ => Box::pin(disk.read(block, buffer)),
            };
            request
        });
        let requests: Vec<_> = requests.collect();
        bus.block_on(all(requests))?;
        if !told {
            println!("disk: load on {}", disk.address());
            told = true;
        }
        if chatter {
            rounds += 1;
            println!("disk: round {rounds} on {}", disk.address());
        }
    }
}

/// Completes when all of them have, with the first failure.
async fn all(mut requests: Vec<Request<'_>>) -> Result<(), StorageError> {
    let mut result = Ok(());
    poll_fn(|context| {
        requests.retain_mut(|request| match request.as_mut().poll(context) {
            Poll::Ready(ended) => {
                result = result.and(ended);
                false
            }
            Poll::Pending => true,
        });
        match requests.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    result
}
