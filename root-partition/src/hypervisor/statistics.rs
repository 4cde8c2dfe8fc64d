//! The statistics pages of VPs.
#![allow(unsafe_code)]

use super::hypercalls;
use crate::memory::address_space;
use crate::memory::paging::Access;
use alloc::boxed::Box;
use hypercall_api::call::Hypercalls;
use hypercall_api::counter::COUNTERS;
use hypercall_api::id::{PartitionId, VpIndex};
use hypercall_api::status::HvStatus;

/// A copy of the counters of a VP of the root or of a child. They go on counting while they are copied.
pub fn read(partition: PartitionId, vp: VpIndex) -> Result<Box<[u64; COUNTERS]>, HvStatus> {
    let page = hypercalls().map_vp_stats(partition, vp)?;
    let base = page.base().ok_or(HvStatus::INVALID_PARAMETER)?.0;
    // A page of the root's own RAM, deposited before, is mapped, and comes back to it one day.
    if !address_space::has_ram(&(base..base + 4096)) {
        address_space::protect(base..base + 4096, Access::CONSTANTS).map_err(|_| HvStatus::NO_RESOURCES)?;
    }
    let counters = base as *const u64;
    let mut copy = Box::new([0; COUNTERS]);
    for (index, counter) in copy.iter_mut().enumerate() {
        // SAFETY: the hypervisor keeps the page mapped and readable, and it holds `COUNTERS` words.
        *counter = unsafe { counters.add(index).read_volatile() };
    }
    Ok(copy)
}
