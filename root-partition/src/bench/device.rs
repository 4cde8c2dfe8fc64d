//! What the IOMMU costs: memory that leaves the reach of devices, and an interrupt of one. QEMU's `edu` device is the one, where
//! there is one; without it nothing may be in the root's domain, and a deposit has nothing to invalidate.
#![allow(unsafe_code)]

use crate::drivers::edu::Edu;
use crate::drivers::pci::function::Function;
use crate::drivers::pci::{config, msi, scan};
use crate::hypervisor::hypercalls;
use crate::memory::address_space;
use crate::processor::instruction::ordered_tsc;
use crate::processor::local;
use crate::shell::system::Measurement;
use crate::vm::assignment;
use alloc::vec::Vec;
use core::hint::{black_box, spin_loop};
use hypercall_api::address::Gpfn;
use hypercall_api::call::PartitionCalls;
use hypercall_api::id::PartitionId;

/// Pages of a deposit.
const PAGES: usize = 512;
/// Samples; odd, so that one of them is the median.
const ROUNDS: usize = 21;
/// Ticks after which an interrupt counts as lost.
const PATIENCE: u64 = 10_000_000_000;
const PAGE: u64 = 4096;

fn of(mut samples: Vec<u64>) -> Option<Measurement> {
    samples.sort_unstable();
    Some(Measurement {
        rounds: samples.len() as u64,
        minimum: *samples.first()?,
        median: *samples.get(samples.len() / 2)?,
    })
}

fn find_edu() -> Option<Function<'static>> {
    let space = config::machine()?;
    let address = Edu::address(&scan::functions(space))?;
    if assignment::machine_of(address).is_some() {
        return None;
    }
    Some(Function::new(space, address))
}

fn edu() -> Option<Edu<'static>> {
    Edu::new(find_edu()?).ok()
}

/// Whether the machine has an edu device.
pub(super) fn has_edu() -> bool {
    find_edu().is_some()
}

/// Depositing [`PAGES`] pages, which leave the root's address space and its devices'.
pub(super) fn deposit() -> Option<Measurement> {
    // With a device in the root's domain there is something to invalidate.
    let _edu = edu();
    let mut samples = Vec::new();
    for _ in 0..ROUNDS {
        let start = address_space::allocate_run(PAGES)?;
        let mut pages: Vec<Gpfn> = (0..PAGES as u64).map(|page| Gpfn(start / PAGE + page)).collect();
        let before = ordered_tsc();
        // SAFETY: the pages were just allocated, and nothing uses them until they are withdrawn.
        let deposited = unsafe { hypercalls().deposit_memory(PartitionId::SELF, &pages) };
        samples.push(ordered_tsc() - before);
        let done = deposited.map_or_else(|error| error.completed, |()| PAGES);
        let back = hypercalls()
            .withdraw_memory(PartitionId::SELF, &mut pages[..done])
            .unwrap_or(0);
        for page in &pages[..back] {
            // SAFETY: the page is the root's again, and nobody uses it.
            unsafe { address_space::release(page.0 * PAGE..(page.0 + 1) * PAGE) };
        }
        if (done, back) != (PAGES, PAGES) {
            return None;
        }
    }
    of(samples)
}

/// From a device's register, written so that it raises its interrupt, to the root's handler on this processor and back.
pub(super) fn interrupt() -> Option<Measurement> {
    let edu = edu()?;
    let _interrupt = msi::enable_msi(&edu.function).ok()?;
    let mut samples = Vec::new();
    for _ in 0..ROUNDS {
        // What is pending already wakes who waits for it another time.
        let seen: Vec<u64> = (0..4).map(|word| local().take_pending(word)).collect();
        let before = ordered_tsc();
        edu.raise();
        let mut after = ordered_tsc();
        while !black_box(local()).has_pending() && after - before < PATIENCE {
            spin_loop();
            after = ordered_tsc();
        }
        samples.push(after - before);
        edu.acknowledge();
        for (word, mut bits) in seen.into_iter().enumerate() {
            while bits != 0 {
                local().raise((word * 64 + bits.trailing_zeros() as usize) as u8);
                bits &= bits - 1;
            }
        }
    }
    msi::disable_msi(&edu.function);
    of(samples)
}
