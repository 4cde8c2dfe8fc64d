//! Creating and deleting partitions and VPs. Creation draws frames from a pool, the parent's for a partition and the
//! partition's own for everything in it; deletion puts each of them back.
#![allow(unsafe_code)]

use super::memory::{show_to_root, status_of};
use super::shared::{VpShared, VpSlot, suspension};
use super::vp::Vp;
use super::{Partition, PartitionState, Parts, VpTable, table};
use crate::memory::address::{Frame, PageSize};
use crate::memory::frames::FrameSource;
use crate::memory::nested::{NestedTables, Npt};
use crate::memory::pool::Pool;
use crate::processor::extended_state::ExtendedState;
use crate::processor::quiesce;
use crate::scheduler;
use crate::system;
use crate::virtualization::VirtualProcessor;
use crate::virtualization::svm::Svm;
use crate::{cpuid, iommu};
use arrayvec::ArrayVec;
use hypercall_api::id::{PartitionId, VpIndex};
use hypercall_api::privilege::Privileges;
use hypercall_api::status::HvStatus;
use spin::Mutex;

/// Creations and deletions take turns.
static TURN: Mutex<()> = Mutex::new(());

/// How a change of what there is goes on.
pub enum Progress {
    /// It is done.
    Done,
    /// Some of it is done, or it is another's turn: call again.
    Again,
}

/// What a child may use.
fn child_privileges() -> Privileges {
    Privileges::ACCESS_VP_RUN_TIME
        | Privileges::ACCESS_PARTITION_REFERENCE_COUNTER
        | Privileges::ACCESS_SYNIC_REGS
        | Privileges::ACCESS_SYNTHETIC_TIMER_REGS
        | Privileges::ACCESS_INTR_CTRL_REGS
        | Privileges::ACCESS_HYPERCALL_MSRS
        | Privileges::ACCESS_VP_INDEX
        | Privileges::ACCESS_PARTITION_REFERENCE_TSC
        | Privileges::ACCESS_GUEST_IDLE_REG
        | Privileges::ACCESS_FREQUENCY_REGS
        | Privileges::POST_MESSAGES
        | Privileges::SIGNAL_EVENTS
}

/// Takes frames from a pool, all or none.
fn take<const COUNT: usize>(pool: &Mutex<Pool>) -> Result<[Frame; COUNT], HvStatus> {
    let mut pool = pool.lock();
    if pool.free_frames() < COUNT as u64 {
        return Err(HvStatus::INSUFFICIENT_MEMORY);
    }
    let frames: ArrayVec<Frame, COUNT> = core::iter::from_fn(|| pool.allocate()).take(COUNT).collect();
    // The count was looked at under the same lock, so the list is full.
    frames.into_inner().map_err(|_| HvStatus::INSUFFICIENT_MEMORY)
}

/// Creates a partition with frames of `parent`'s pool.
pub fn create_partition(parent: &Partition) -> Result<PartitionId, HvStatus> {
    let permissions = system::child_permissions().ok_or(HvStatus::OPERATION_FAILED)?;
    let _turn = TURN.lock();
    let [place, vps] = take::<2>(&parent.pool)?;
    let Some(id) = table::new_id() else {
        let mut pool = parent.pool.lock();
        pool.free(place);
        pool.free(vps);
        return Err(HvStatus::NO_RESOURCES);
    };
    const { assert!(size_of::<Partition>() <= 4096 && size_of::<VpTable>() <= 4096) };
    // SAFETY: the frames are ours, zeroed (null pointers), large enough, and freed only by `delete_partition`.
    let partition = unsafe {
        let vps = &*(vps.start().0 as *const VpTable);
        let pointer = place.start().0 as *mut Partition;
        pointer.write(Partition::new(Parts {
            id,
            privileges: child_privileges(),
            permissions,
            vps,
            overlay: None,
        }));
        &*pointer
    };
    partition.enlist();
    Ok(id)
}

/// Gives a partition its address space, with frames of its own pool.
pub fn initialize_partition(partition: &Partition) -> Result<(), HvStatus> {
    let _turn = TURN.lock();
    if partition.state() != PartitionState::Created {
        return Err(HvStatus::INVALID_PARTITION_STATE);
    }
    let largest = if cpuid::has_gib_pages() {
        PageSize::Huge1G
    } else {
        PageSize::Large2M
    };
    let mut pool = partition.pool.lock();
    if pool.free_frames() < 2 {
        return Err(HvStatus::INSUFFICIENT_MEMORY);
    }
    let memory = NestedTables::<Npt>::new(largest, &mut *pool).map_err(status_of)?;
    *partition.spare.lock() = pool.allocate();
    drop(pool);
    partition.activate(memory);
    Ok(())
}

/// Takes a partition's VPs, memory and page tables away, a piece a call.
pub fn finalize_partition(partition: &'static Partition) -> Result<Progress, HvStatus> {
    if partition.state() == PartitionState::Finalized {
        return Ok(Progress::Done);
    }
    if let Some(slot) = partition.vps().next() {
        delete_vp(partition, slot)?;
        return Ok(Progress::Again);
    }
    if let Progress::Again = iommu::device::release_all(partition)? {
        return Ok(Progress::Again);
    }
    if partition.unmap_some()? {
        return Ok(Progress::Again);
    }
    let Some(_turn) = TURN.try_lock() else {
        return Ok(Progress::Again);
    };
    partition.drop_address_space();
    Ok(Progress::Done)
}

/// Deletes a finalised partition whose pool is empty, and gives its frames back to `parent`'s pool.
pub fn delete_partition(parent: &Partition, partition: &'static Partition) -> Result<Progress, HvStatus> {
    if partition.state() == PartitionState::Active {
        return Err(HvStatus::INVALID_PARTITION_STATE);
    }
    let Some(_turn) = TURN.try_lock() else {
        return Ok(Progress::Again);
    };
    if partition.pool.lock().free_frames() != 0 {
        return Err(HvStatus::OPERATION_DENIED);
    }
    if Partition::get(partition.id).is_none() {
        return Err(HvStatus::INVALID_PARTITION_ID);
    }
    partition.delist();
    quiesce::leave_hypervisor();
    let frame_of = |address: u64| Frame::containing(crate::memory::address::Spa(address));
    let frames = [
        frame_of(core::ptr::from_ref(partition) as u64),
        frame_of(core::ptr::from_ref(partition.vp_table()) as u64),
    ];
    let mut pool = parent.pool.lock();
    frames.into_iter().for_each(|frame| pool.free(frame));
    Ok(Progress::Done)
}

/// Creates a VP, explicitly suspended, waiting to be started (VP 0 is started by its parent's registers).
pub fn create_vp(partition: &'static Partition, index: VpIndex) -> Result<(), HvStatus> {
    let _turn = TURN.lock();
    if partition.state() != PartitionState::Active {
        return Err(HvStatus::INVALID_PARTITION_STATE);
    }
    if index.0 as usize >= super::MAX_VPS {
        return Err(HvStatus::INVALID_VP_INDEX);
    }
    if partition.vp(index).is_some() {
        return Err(HvStatus::INVALID_VP_STATE);
    }
    let processor = scheduler::least_loaded().ok_or(HvStatus::NO_RESOURCES)?;
    let frames @ [place, vmcb, extended, statistics, intercept] = take::<5>(&partition.pool)?;
    let give_back = |status| {
        let mut pool = partition.pool.lock();
        frames.into_iter().for_each(|frame| pool.free(frame));
        status
    };
    show_to_root(statistics, true).map_err(give_back)?;
    if let Err(status) = show_to_root(intercept, true) {
        show_to_root(statistics, false)?;
        return Err(give_back(status));
    }
    const { assert!(size_of::<VpSlot>() <= 4096) };
    let mut shared = VpShared::new(partition, index, processor.index, index.0, statistics);
    shared.intercept_page = Some(intercept);
    shared.suspend(suspension::EXPLICIT);
    // SAFETY: the frames are ours, zeroed, and freed only by `delete_vp`; the partition and its maps outlive the VP.
    let slot = unsafe {
        let pointer = place.start().0 as *mut VpSlot;
        pointer.write(VpSlot::new(shared));
        let slot: &'static VpSlot = &*pointer;
        let mut hardware = Svm::new(vmcb, partition.permissions);
        if let Some(memory) = partition.memory.lock().as_ref() {
            hardware.set_nested_root(memory.root().start());
        }
        slot.complete(Vp::new(partition, slot, hardware, ExtendedState::new(extended)));
        slot
    };
    partition.add_vp(slot);
    let attached = scheduler::attach(slot);
    debug_assert!(
        attached,
        "`least_loaded` looked for room, and creations take turns"
    );
    Ok(())
}

/// Stops a VP for good and gives its frames back to its partition's pool. Nothing happens where it is another's turn: the
/// caller calls again.
pub fn delete_vp(partition: &'static Partition, slot: &'static VpSlot) -> Result<Progress, HvStatus> {
    let Some(_turn) = TURN.try_lock() else {
        return Ok(Progress::Again);
    };
    let index = slot.shared.index;
    if !partition
        .vp(index)
        .is_some_and(|found| core::ptr::eq(found, slot))
    {
        return Err(HvStatus::INVALID_VP_INDEX);
    }
    slot.shared.suspend(suspension::DELETED);
    scheduler::detach(slot);
    let vp = slot.stop_and_lock().take();
    partition.remove_vp(index);
    if let Some(root) = Partition::root() {
        root.vps()
            .for_each(|root_vp| root_vp.shared.news.lock().remove(slot));
    }
    quiesce::leave_hypervisor();
    let mut frames = ArrayVec::<Frame, 5>::new();
    frames.extend(
        vp.map(|vp| [vp.hardware.frame(), vp.extended.area()])
            .into_iter()
            .flatten(),
    );
    for frame in [Some(slot.shared.statistics.page()), slot.shared.intercept_page]
        .into_iter()
        .flatten()
    {
        show_to_root(frame, false)?;
        frames.push(frame);
    }
    frames.push(Frame::containing(crate::memory::address::Spa(
        core::ptr::from_ref(slot) as u64,
    )));
    let mut pool = partition.pool.lock();
    frames.into_iter().for_each(|frame| pool.free(frame));
    Ok(Progress::Done)
}
