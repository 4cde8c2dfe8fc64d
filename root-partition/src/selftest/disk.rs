//! A disk whose controller is reset while it works: nothing is lost, nothing is mixed up. The disk is only read.

use super::Outcome;
use crate::disk::start;
use crate::drivers::nvme::namespace::Namespace;
use crate::drivers::pci::device::PciDevice;
use crate::executor::{self, Task};
use crate::memory::dma;
use crate::processor;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vsc::checksum::Crc32;
use vsp::buffer::Buffer;
use vsp::storage::disk::Disk;

/// Readers of a processor.
const READERS: u32 = 4;
/// Bytes of a read.
const BYTES: usize = 64 << 10;
/// Resets.
const RESETS: u32 = 5;

/// Reads on all processors while the controller is reset again and again.
pub(super) async fn reset_under_load() -> Outcome {
    let Some(disk) = start::first().await else {
        return Ok(String::from("there is no disk with a controller"));
    };
    let sectors = (BYTES as u64) >> disk.geometry().sector_size.shift();
    if disk.geometry().sectors < sectors {
        return Ok(String::from("the disk is too small to be read"));
    }
    let ends = Arc::new(AtomicBool::new(false));
    let reads = Arc::new(AtomicU64::new(0));
    let tasks: Vec<Task<Outcome>> = processor::local::all()
        .iter()
        .flat_map(|local| (0..READERS).map(move |reader| (local.vp, u64::from(local.vp * READERS + reader))))
        .map(|(vp, number)| {
            let first = number * sectors % (disk.geometry().sectors - sectors + 1);
            executor::spawn_on(vp, read(disk.clone(), first, ends.clone(), reads.clone()))
        })
        .collect();
    let mut failed = false;
    for _ in 0..RESETS {
        failed |= !disk.controller().reset().await;
    }
    ends.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await?;
    }
    match failed {
        true => Err(String::from("the controller did not come back from a reset")),
        false => Ok(format!(
            "{} reads went on over {RESETS} resets",
            reads.load(Ordering::Relaxed)
        )),
    }
}

/// Reads the same sectors over and over, until `ends`.
async fn read(
    disk: Namespace<PciDevice>,
    first: u64,
    ends: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
) -> Outcome {
    let buffer = dma::buffer(BYTES).ok_or("there is too little memory")?;
    let mut expected = None;
    while !ends.load(Ordering::Relaxed) {
        if let Err(error) = disk.read(first, &buffer).await {
            return Err(format!("a read failed: {error}"));
        }
        let sum = sum(&buffer);
        if *expected.get_or_insert(sum) != sum {
            return Err(format!("sector {first} read different from before"));
        }
        reads.fetch_add(1, Ordering::Relaxed);
    }
    Ok(String::new())
}

fn sum(buffer: &Buffer) -> u32 {
    let mut bytes = vec![0; BYTES];
    match buffer.copy_to(0, &mut bytes) {
        Ok(()) => Crc32::of(&bytes),
        Err(_) => 0,
    }
}
