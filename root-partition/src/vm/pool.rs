//! The pools that the hypervisor takes its memory from: pages go in by deposit when a call runs short, and come back by
//! withdrawal when the partition is gone.

use super::host::{FRAME, Host};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use hypercall_api::address::Gpfn;
use hypercall_api::id::PartitionId;
use hypercall_api::status::HvStatus;

/// Pages that a deposit adds to a child's pool.
const CHILD_STEP: usize = 8;
/// Pages that a deposit adds to the root's own.
const OWN_STEP: usize = 2;
/// Deposits that one call may ask for.
const MOST_DEPOSITS: usize = 1024;
/// Pages that are withdrawn at once.
const WITHDRAWAL: usize = 256;

/// Why memory could not be had or given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PoolError {
    /// The root has no memory left.
    #[error("the root partition has no memory left for the hypervisor's bookkeeping")]
    OutOfMemory,
    /// The hypervisor refused.
    #[error("the hypervisor refused: {0}")]
    Refused(#[from] HvStatus),
}

/// Makes `call`, and makes it again after a deposit to `partition` each time that it runs short of memory.
pub fn with_deposits<H: Host, T>(
    host: &H,
    partition: PartitionId,
    mut call: impl FnMut() -> Result<T, HvStatus>,
) -> Result<T, PoolError> {
    for _ in 0..MOST_DEPOSITS {
        match call() {
            Err(HvStatus::INSUFFICIENT_MEMORY) => deposit(host, partition)?,
            result => return Ok(result?),
        }
    }
    Err(HvStatus::INSUFFICIENT_MEMORY.into())
}

fn deposit<H: Host>(host: &H, partition: PartitionId) -> Result<(), PoolError> {
    let own = partition == PartitionId::SELF;
    let mut pages = Vec::new();
    for _ in 0..if own { OWN_STEP } else { CHILD_STEP } {
        match host.allocate_frames(1) {
            Some(frame) => pages.push(Gpfn(frame / FRAME)),
            None => break,
        }
    }
    if pages.is_empty() {
        return Err(PoolError::OutOfMemory);
    }
    let result = host.deposit(partition, &pages);
    let given = result.map_or_else(|error| error.completed, |()| pages.len());
    pages.iter().skip(given).for_each(|page| release(host, *page));
    if own {
        host.own_pages().fetch_add(given, Ordering::Relaxed);
    }
    match result {
        // What was given may be enough.
        Err(error) if given == 0 => Err(error.status.into()),
        _ => Ok(()),
    }
}

/// Takes every unused page of a child's pool back, and returns how many there were.
pub fn drain<H: Host>(host: &H, partition: PartitionId) -> Result<usize, HvStatus> {
    let mut total = 0;
    loop {
        let taken = withdraw(host, partition, WITHDRAWAL)?;
        total += taken;
        if taken == 0 {
            return Ok(total);
        }
    }
}

/// Takes pages back that the worker put into the root's own pool and that nobody uses now.
pub fn drain_own<H: Host>(host: &H) -> Result<(), HvStatus> {
    loop {
        let wanted = host.own_pages().load(Ordering::Relaxed).min(WITHDRAWAL);
        let taken = withdraw(host, PartitionId::SELF, wanted)?;
        host.own_pages().fetch_sub(taken, Ordering::Relaxed);
        if taken == 0 {
            return Ok(());
        }
    }
}

fn withdraw<H: Host>(host: &H, partition: PartitionId, most: usize) -> Result<usize, HvStatus> {
    if most == 0 {
        return Ok(0);
    }
    let mut pages = alloc::vec![Gpfn(0); most];
    let taken = host.withdraw(partition, &mut pages)?;
    pages.iter().take(taken).for_each(|page| release(host, *page));
    Ok(taken.min(most))
}

fn release<H: Host>(host: &H, page: Gpfn) {
    let start = page.0 * FRAME;
    host.release(start..start + FRAME);
}
