//! Partitions by their ids. An id is a place in the table and the number of partitions that came before, so no id is ever
//! used twice.
//!
//! A partition found here stays until the handler that found it has ended: whoever deletes one takes it out first and then
//! waits until every other processor has left the hypervisor once ([`quiesce`](crate::processor::quiesce)).
#![allow(unsafe_code)]

use super::Partition;
use super::shared::VpSlot;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use hypercall_api::id::{PartitionId, VpIndex};

/// Most partitions at a time.
pub const CAPACITY: usize = 512;
/// The root's id.
pub const ROOT_ID: PartitionId = PartitionId(1);

static TABLE: [AtomicPtr<Partition>; CAPACITY] = [const { AtomicPtr::new(ptr::null_mut()) }; CAPACITY];
static CREATED: AtomicU64 = AtomicU64::new(1);

fn place_of(id: PartitionId) -> &'static AtomicPtr<Partition> {
    &TABLE[(id.0 % CAPACITY as u64) as usize]
}

/// An id that nobody has had, with a place in the table that is free; `None` where the table is full. Callers take turns.
pub fn new_id() -> Option<PartitionId> {
    let place = (2..CAPACITY).find(|&place| TABLE[place].load(Ordering::Acquire).is_null())?;
    let number = CREATED.fetch_add(1, Ordering::Relaxed);
    Some(PartitionId(number * CAPACITY as u64 + place as u64))
}

impl Partition {
    /// Enters the partition into the table.
    pub fn enlist(&'static self) {
        place_of(self.id).store(ptr::from_ref(self).cast_mut(), Ordering::Release);
    }

    /// Takes the partition out of the table.
    pub fn delist(&'static self) {
        place_of(self.id).store(ptr::null_mut(), Ordering::Release);
    }

    /// The partition with an id.
    pub fn get(id: PartitionId) -> Option<&'static Self> {
        let pointer = place_of(id).load(Ordering::Acquire);
        // SAFETY: a listed partition lives until its deleter has seen this processor leave the hypervisor.
        unsafe { pointer.as_ref() }.filter(|partition| partition.id == id)
    }

    /// The partition's place in the table.
    pub fn place(&self) -> u16 {
        const { assert!(CAPACITY <= 1 << 16) };
        (self.id.0 % CAPACITY as u64) as u16
    }

    /// The partition at a place; for who is told before it ends.
    #[inline]
    pub fn at_place(place: u16) -> Option<&'static Self> {
        // SAFETY: as in `get`.
        unsafe { TABLE.get(place as usize)?.load(Ordering::Acquire).as_ref() }
    }

    /// Every partition.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        // SAFETY: as in `get`.
        TABLE
            .iter()
            .filter_map(|place| unsafe { place.load(Ordering::Acquire).as_ref() })
    }

    /// Gives the partition a VP. Its index must be free.
    pub fn add_vp(&self, slot: &'static VpSlot) {
        self.vps[slot.shared.index.0 as usize].store(ptr::from_ref(slot).cast_mut(), Ordering::Release);
        self.vp_limit
            .fetch_max(slot.shared.index.0 + 1, Ordering::Release);
    }

    /// Takes a VP away: nobody finds it any more.
    pub fn remove_vp(&self, index: VpIndex) {
        self.vps[index.0 as usize].store(ptr::null_mut(), Ordering::Release);
    }

    /// A VP by its index.
    #[inline]
    pub fn vp(&self, index: VpIndex) -> Option<&'static VpSlot> {
        let pointer = self.vps.get(index.0 as usize)?.load(Ordering::Acquire);
        // SAFETY: as for partitions: a listed VP lives until its deleter has seen this processor leave the hypervisor.
        unsafe { pointer.as_ref() }
    }

    /// A VP by its APIC id, which is its index but in a root with gaps between its processors' ids.
    #[inline]
    pub fn vp_by_apic_id(&self, id: u32) -> Option<&'static VpSlot> {
        match self.vp(VpIndex(id)).filter(|slot| slot.shared.apic_id == id) {
            Some(slot) => Some(slot),
            None => self.vps().find(|slot| slot.shared.apic_id == id),
        }
    }

    /// Every VP.
    pub fn vps(&self) -> impl Iterator<Item = &'static VpSlot> {
        // SAFETY: as in `vp`.
        self.vps
            .iter()
            .filter_map(|place| unsafe { place.load(Ordering::Acquire).as_ref() })
    }
}
