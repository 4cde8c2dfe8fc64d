//! What reading costs: the time that the VPs ran, which on a machine that counts instructions is a number of these. Time
//! in which all wait for the disk does not count.

use super::root_disk::RootDisk;
use crate::hypervisor::{statistics, time};
use crate::memory::dma;
use crate::processor;
use crate::shell::disks::DiskFigure;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::Poll;
use hypercall_api::counter::{HYPERVISOR_RUN_TIME, TOTAL_RUN_TIME};
use hypercall_api::id::{PartitionId, VpIndex};
use vsp::buffer::Buffer;
use vsp::storage::disk::{Disk, DiskError};

const BYTES: usize = 4096;
/// Requests of a measurement.
const ROUNDS: usize = 1024;
/// Requests before it, so that what is done once is done.
const WARM_UP: usize = 64;
/// Nanoseconds in a unit of the hypervisor's counters and of the reference time.
const UNIT: u64 = 100;

/// Reads 4 KiB at a time, one after another, with `depth` requests under way.
pub async fn reads(disk: &RootDisk, depth: usize) -> Result<DiskFigure, DiskError> {
    let depth = depth.clamp(1, 256);
    let buffers: Option<Vec<Arc<Buffer>>> = (0..depth).map(|_| dma::buffer(BYTES)).collect();
    let buffers = buffers.ok_or(DiskError::Failed)?;
    let step = BYTES as u64 / u64::from(disk.geometry().sector_size.bytes());
    let places = (disk.geometry().sectors / step).min(ROUNDS as u64);
    if places == 0 {
        return Err(DiskError::OutOfRange);
    }
    run(disk, &buffers, WARM_UP, places, step).await?;
    let before = (run_time(), time::now());
    run(disk, &buffers, ROUNDS, places, step).await?;
    let after = (run_time(), time::now());
    let each = |after: u64, before: u64| after.saturating_sub(before) * UNIT / ROUNDS as u64;
    Ok(DiskFigure {
        depth: depth as u64,
        rounds: ROUNDS as u64,
        run_time: each(after.0.0, before.0.0),
        hypervisor_time: each(after.0.1, before.0.1),
        elapsed: each(after.1, before.1),
    })
}

/// Run time of all VPs so far, and the hypervisor's part of it.
fn run_time() -> (u64, u64) {
    let pages = processor::local::all()
        .iter()
        .filter_map(|local| statistics::read(PartitionId::SELF, VpIndex(local.vp)).ok());
    pages.fold((0, 0), |(total, hypervisor), page| {
        (
            total + page[TOTAL_RUN_TIME],
            hypervisor + page[HYPERVISOR_RUN_TIME],
        )
    })
}

type Reading<'a> = Pin<alloc::boxed::Box<dyn Future<Output = Result<(), DiskError>> + Send + 'a>>;

/// `rounds` reads, as many under way as there are buffers.
async fn run(
    disk: &RootDisk,
    buffers: &[Arc<Buffer>],
    rounds: usize,
    places: u64,
    step: u64,
) -> Result<(), DiskError> {
    if let [buffer] = buffers {
        for round in 0..rounds as u64 {
            disk.read(round % places * step, buffer).await?;
        }
        return Ok(());
    }
    let mut begun = 0;
    let mut next = |buffer| {
        begun += 1;
        let sector = (begun as u64 - 1) % places * step;
        (begun <= rounds).then(|| read(disk, sector, buffer))
    };
    let mut reading: Vec<Option<Reading<'_>>> = buffers.iter().map(&mut next).collect();
    poll_fn(|context| {
        let mut busy = false;
        for (slot, buffer) in reading.iter_mut().zip(buffers) {
            while let Some(request) = slot {
                match request.as_mut().poll(context) {
                    Poll::Pending => break,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(())) => *slot = next(buffer),
                }
            }
            busy |= slot.is_some();
        }
        if busy { Poll::Pending } else { Poll::Ready(Ok(())) }
    })
    .await
}

fn read<'a>(disk: &'a RootDisk, sector: u64, buffer: &'a Arc<Buffer>) -> Reading<'a> {
    alloc::boxed::Box::pin(disk.read(sector, buffer))
}
