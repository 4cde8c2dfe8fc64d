//! What the worker needs of the root kernel and of the hypervisor, so that tests can stand in for both.

use super::bus::calls::BusCalls;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::future::Future;
use core::ops::Range;
use core::pin::Pin;
use core::sync::atomic::AtomicUsize;
use core::time::Duration;
use hypercall_api::access::{TranslateFlags, TranslatedVirtualAddress};
use hypercall_api::address::{Gpfn, Gva};
use hypercall_api::call::Incomplete;
use hypercall_api::counter::COUNTERS;
use hypercall_api::id::{PartitionId, VpIndex};
use hypercall_api::intercept::RegisterCpuidResult;
use hypercall_api::interrupt::{AssertVirtualInterrupt, DeviceId, MapDeviceInterrupt, MappedDeviceInterrupt};
use hypercall_api::memory::{MapGpaFlags, MemoryBalance};
use hypercall_api::message::Message;
use hypercall_api::partition::PartitionProperty;
use hypercall_api::register::{RegisterAssociation, RegisterName, RegisterValue};
use hypercall_api::status::HvStatus;

/// Bytes of a block of memory, the child's large page.
pub const BLOCK: u64 = 2 << 20;
/// Bytes of a frame.
pub const FRAME: u64 = 4096;

/// A task without a result.
pub type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Who hears of a child's messages.
pub trait Listener: Send + Sync {
    /// An intercept has suspended VP `vp`.
    fn intercept(self: Arc<Self>, vp: VpIndex);
    /// A VP has ended the level-triggered interrupt `vector`.
    fn end_of_interrupt(&self, vector: u8);
}

/// The root kernel and the hypervisor. Calls are those of the TLFS; each concerns a child of the root.
pub trait Host: BusCalls + Clone + Send + Sync + 'static {
    /// A block of RAM, aligned to its size; `None` where there is none left.
    fn allocate_block(&self) -> Option<u64>;
    /// Frames of RAM in a row, up to 512.
    fn allocate_frames(&self, count: usize) -> Option<u64>;
    /// Takes RAM back that one of the two gave.
    fn release(&self, range: Range<u64>);
    /// Pages in the root's own pool that the worker put there.
    fn own_pages(&self) -> &AtomicUsize;
    /// Runs a task on this processor.
    fn spawn(&self, job: Job);
    /// The reference time, in 100 ns.
    fn now(&self) -> u64;
    /// Completes after `time`.
    fn sleep(&self, time: Duration) -> Job;
    /// The wall clock, in 100 ns since 1601, UTC; `None` where the machine has none.
    fn wall_clock(&self) -> Option<u64>;
    /// Fills `bytes` with random ones; false where the processor has none.
    fn fill_random(&self, bytes: &mut [u8]) -> bool;
    /// Sends the messages about `partition` to `listener` from now on, or to nobody.
    fn listen(&self, partition: PartitionId, listener: Option<Arc<dyn Listener>>);

    /// A new partition.
    fn create_partition(&self) -> Result<PartitionId, HvStatus>;
    /// Lets it have VPs and memory.
    fn initialize_partition(&self, partition: PartitionId) -> Result<(), HvStatus>;
    /// Sets a property.
    fn set_property(
        &self,
        partition: PartitionId,
        property: PartitionProperty,
        value: u64,
    ) -> Result<(), HvStatus>;
    /// Has CPUID say something else to its VPs.
    fn register_cpuid(&self, policy: &RegisterCpuidResult) -> Result<(), HvStatus>;
    /// Has accesses to MSRs that it does not have come here.
    fn intercept_msrs(&self, partition: PartitionId) -> Result<(), HvStatus>;
    /// Ends all that it does.
    fn finalize_partition(&self, partition: PartitionId) -> Result<(), HvStatus>;
    /// Gives its id up.
    fn delete_partition(&self, partition: PartitionId) -> Result<(), HvStatus>;
    /// Gives pages that [`allocate_frames`](Self::allocate_frames) gave to the pool of `partition`; some of them where it
    /// fails.
    fn deposit(&self, partition: PartitionId, pages: &[Gpfn]) -> Result<(), Incomplete>;
    /// How many pages the hypervisor has of `partition`'s pool, and how many of them it uses.
    fn balance(&self, partition: PartitionId) -> Result<MemoryBalance, HvStatus>;
    /// Takes unused pages back, as many as there are and fit.
    fn withdraw(&self, partition: PartitionId, pages: &mut [Gpfn]) -> Result<usize, HvStatus>;
    /// Maps pages that one of the two gave as memory of `partition`, or, not cached, registers of a device of its own.
    fn map(
        &self,
        partition: PartitionId,
        target: Gpfn,
        flags: MapGpaFlags,
        pages: &[Gpfn],
    ) -> Result<(), Incomplete>;

    /// Lets a device reach the memory of `partition`, at its addresses.
    fn attach_device(&self, partition: PartitionId, device: DeviceId) -> Result<(), HvStatus>;
    /// Takes a device from `partition`: it reaches nothing, and raises no interrupt.
    fn detach_device(&self, partition: PartitionId, device: DeviceId) -> Result<(), HvStatus>;
    /// Gives a device of a partition an interrupt.
    fn map_device_interrupt(&self, input: &MapDeviceInterrupt) -> Result<MappedDeviceInterrupt, HvStatus>;

    /// A new VP, explicitly suspended.
    fn create_vp(&self, partition: PartitionId, vp: VpIndex) -> Result<(), HvStatus>;
    /// Makes the VP's intercept message page readable.
    fn map_message_page(&self, partition: PartitionId, vp: VpIndex) -> Result<Gpfn, HvStatus>;
    /// Copies a message out of a page that [`map_message_page`](Self::map_message_page) gave and that is still there.
    fn read_message(&self, page: Gpfn) -> Message;
    /// Reads registers.
    fn get_registers(
        &self,
        partition: PartitionId,
        vp: VpIndex,
        names: &[RegisterName],
        values: &mut [RegisterValue],
    ) -> Result<(), HvStatus>;
    /// Sets registers.
    fn set_registers(
        &self,
        partition: PartitionId,
        vp: VpIndex,
        registers: &[RegisterAssociation],
    ) -> Result<(), HvStatus>;
    /// Where a virtual address leads.
    fn translate(
        &self,
        partition: PartitionId,
        vp: VpIndex,
        flags: TranslateFlags,
        address: Gva,
    ) -> Result<TranslatedVirtualAddress, HvStatus>;
    /// Raises an interrupt.
    fn assert_interrupt(&self, interrupt: &AssertVirtualInterrupt) -> Result<(), HvStatus>;
    /// A copy of the VP's counters.
    fn statistics(&self, partition: PartitionId, vp: VpIndex) -> Result<Box<[u64; COUNTERS]>, HvStatus>;
}
