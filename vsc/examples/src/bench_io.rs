//! The measuring guest for disks: what a read of 4 KiB from its first disk costs, from the call to the data, in TSC ticks. On a machine
//! that counts instructions a tick is an instruction of whoever executes it: of this guest, the hypervisor, or the root.
//!
//! Prints `bench-io: N ticks a read` and `bench-io: done`, and powers off. Words on the command line:
//!
//! | word | what it means | without it |
//! |---|---|---|
//! | `depth=N` | so many reads are under way | 1 |
//! | `reads=N` | so many reads are counted | 1024 |
//! | `stay` | does nothing more when it is done, for its counters to be looked at | it powers off |
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::pin::Pin;
use core::str::FromStr;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use vmbus::protocol::guid::class;
use vsc::block::BlockDevice;
use vsc::bus::{Bus, BusError};
use vsc::memory::Buffer;
use vsc::storage::{self, Disk, Settings, StorageError};
use vsc_runtime::boot::BootInfo;
use vsc_runtime::hal::Kernel;
use vsc_runtime::memory::heap::{self, Heap};
use vsc_runtime::println;
use vsc_runtime::processor::instruction::{tsc, wait};

#[global_allocator]
static HEAP: Heap = heap::new();

vsc_runtime::guest_main!(main);

/// Bytes of a read.
const SIZE: usize = 4096;
/// Reads before those that are counted, so that what is done once is done.
const WARM_UP: usize = 256;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
enum BenchError {
    #[error("there is no disk of 4 KiB or more")]
    NoDisk,
    #[error("there is not enough memory")]
    NoMemory,
    #[error("'{0}' is no number above zero")]
    NoNumber(&'static str),
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

fn main(boot: &BootInfo) {
    let Some(kernel) = Kernel::new() else {
        println!("bench-io: not under Partita");
        return;
    };
    let result = Bus::new(kernel)
        .map_err(BenchError::from)
        .and_then(|bus| run(&bus, boot));
    match result {
        Ok(ticks) => {
            println!("bench-io: {ticks} ticks a read");
            println!("bench-io: done");
        }
        Err(error) => println!("bench-io: failed: {error}"),
    }
    while boot.has_option("stay") {
        wait();
    }
}

/// The number behind `name=`.
fn number(boot: &BootInfo, name: &'static str, otherwise: usize) -> Result<usize, BenchError> {
    let Some(text) = boot.option(name) else {
        return Ok(otherwise);
    };
    let number = usize::from_str(text).ok().filter(|number| *number > 0);
    number.ok_or(BenchError::NoNumber(name))
}

fn run(bus: &Bus<Kernel>, boot: &BootInfo) -> Result<u64, BenchError> {
    let (depth, reads) = (number(boot, "depth", 1)?, number(boot, "reads", 1024)?);
    bus.block_on(bus.connect())?;
    let offered = bus.find(class::SCSI).ok_or(BenchError::NoDisk)?;
    let controller = bus.block_on(storage::open(bus, &offered, Settings::default()))?;
    let found = bus.block_on(controller.scan())?;
    let first = found.first().ok_or(BenchError::NoDisk)?;
    let disk = bus.block_on(Disk::open(&controller, first.address))?;
    let buffers: Option<Vec<_>> = (0..depth)
        .map(|_| Buffer::allocate(bus.hal(), SIZE).map(Arc::new))
        .collect();
    let buffers = buffers.ok_or(BenchError::NoMemory)?;
    read_all(bus, &disk, &buffers, WARM_UP)?;
    let start = tsc();
    read_all(bus, &disk, &buffers, reads)?;
    Ok((tsc() - start) / reads as u64)
}

/// A read that is under way, and the buffer that is free when it ends.
type Reading<'a> = Pin<Box<dyn Future<Output = (Result<(), StorageError>, &'a Arc<Buffer>)> + 'a>>;

/// `count` reads, as many at once as there are buffers.
fn read_all(bus: &Bus<Kernel>, disk: &Disk, buffers: &[Arc<Buffer>], count: usize) -> Result<(), BenchError> {
    let geometry = disk.geometry();
    let step = SIZE as u64 / u64::from(geometry.block_size);
    let places = geometry.blocks.checked_div(step).unwrap_or(0);
    if places == 0 {
        return Err(BenchError::NoDisk);
    }
    // Places far from each other, all of them in turn: the step has no divisor in common with any power of two.
    let mut places = (0..count as u64).map(|number| number.wrapping_mul(9973) % places * step);
    let read = |block, buffer| disk.read(block, buffer);
    let all = async {
        if let [buffer] = buffers {
            for block in places {
                read(block, buffer).await?;
            }
            return Ok(());
        }
        let start =
            |block, buffer| -> Reading<'_> { Box::pin(async move { (read(block, buffer).await, buffer) }) };
        let mut reading: FuturesUnordered<_> = (&mut places)
            .zip(buffers)
            .map(|(block, buffer)| start(block, buffer))
            .collect();
        while let Some((result, buffer)) = reading.next().await {
            result?;
            reading.extend(places.next().map(|block| start(block, buffer)));
        }
        Ok(())
    };
    bus.block_on(all).map_err(BenchError::Storage)
}
