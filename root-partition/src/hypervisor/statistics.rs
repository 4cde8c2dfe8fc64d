//! The statistics pages of the root's own VPs.
#![allow(unsafe_code)]

use super::hypercalls;
use crate::memory::address_space;
use crate::memory::paging::Access;
use alloc::boxed::Box;
use hypercall_api::call::Hypercalls;
use hypercall_api::counter::COUNTERS;
use hypercall_api::id::{PartitionId, VpIndex};
use hypercall_api::status::HvStatus;

/// A copy of the counters of VP `vp`. They go on counting while they are copied.
pub fn read(vp: u32) -> Result<Box<[u64; COUNTERS]>, HvStatus> {
    let page = hypercalls().map_vp_stats(PartitionId::SELF, VpIndex(vp))?;
    let base = page.base().ok_or(HvStatus::INVALID_PARAMETER)?.0;
    address_space::protect(base..base + 4096, Access::CONSTANTS).map_err(|_| HvStatus::NO_RESOURCES)?;
    let counters = base as *const u64;
    let mut copy = Box::new([0; COUNTERS]);
    for (index, counter) in copy.iter_mut().enumerate() {
        // SAFETY: the hypervisor keeps the page mapped and readable, and it holds `COUNTERS` words.
        *counter = unsafe { counters.add(index).read_volatile() };
    }
    Ok(copy)
}
