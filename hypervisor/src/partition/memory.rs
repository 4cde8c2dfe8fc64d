//! Memory between the root and its children: what is deposited leaves the root, what is mapped stays the root's too.

use super::{Partition, PartitionState};
use crate::memory::address::{FRAME_SIZE, Frame, PageSize, Spa};
use crate::memory::frames::FrameSource;
use crate::memory::nested::{Access, MemoryType};
use crate::memory::tables::TableError;
use crate::processor::quiesce;
use crate::system::{self, FRAMES};
use core::sync::atomic::Ordering;
use hypercall_api::address::{Gpa, Gpfn};
use hypercall_api::memory::{LARGE_PAGE_PAGES, MapGpaFlags};
use hypercall_api::status::HvStatus;

/// What a failed change of page tables means to the caller.
pub fn status_of(error: TableError) -> HvStatus {
    match error {
        TableError::OutOfMemory(_) => HvStatus::INSUFFICIENT_MEMORY,
        _ => HvStatus::INVALID_PARAMETER,
    }
}

/// The frame of RAM that `page` of the root's address space is, if it is the root's own to give.
fn root_frame(root: &Partition, page: Gpfn, size: PageSize) -> Result<Frame, HvStatus> {
    let gpa = page.base().ok_or(HvStatus::INVALID_PARAMETER)?;
    let mapping = root.translate(gpa).ok_or(HvStatus::INVALID_PARAMETER)?;
    let is_whole = mapping.size.bytes() >= size.bytes() && mapping.spa.is_aligned(size.bytes());
    let is_ram = mapping.is_ram() && mapping.access.write && !system::is_hypervisors(mapping.spa);
    if !is_ram || !is_whole {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    Ok(Frame::containing(mapping.spa))
}

/// Runs `work` with the hypervisor's own frames, which the root's page tables come from.
fn with_frames<R>(work: impl FnOnce(&mut dyn FrameSource) -> R) -> Result<R, HvStatus> {
    let frames = FRAMES.get().ok_or(HvStatus::OPERATION_FAILED)?;
    Ok(work(&mut *frames.lock()))
}

/// Moves a page of the root's into `partition`'s pool. Nobody but the hypervisor reaches it when this returns.
pub fn deposit(root: &Partition, partition: &Partition, page: Gpfn) -> Result<(), HvStatus> {
    let ownership = system::ownership().ok_or(HvStatus::OPERATION_FAILED)?;
    let frame = root_frame(root, page, PageSize::Small4K)?;
    ownership.deposit(frame)?;
    let unmapped = with_frames(|frames| match root.memory.lock().as_mut() {
        Some(memory) => memory
            .unmap(Gpa(frame.start().0), FRAME_SIZE, frames)
            .map_err(status_of),
        None => Err(HvStatus::OPERATION_FAILED),
    });
    if let Err(status) = unmapped.and_then(|result| result) {
        ownership.withdraw(frame);
        return Err(status);
    }
    root.memory_changed();
    quiesce::stop_guests();
    partition.add_to_pool(frame);
    Ok(())
}

/// Moves a free page of `partition`'s pool back to the root. `None` where no page is free.
pub fn withdraw(root: &Partition, partition: &Partition) -> Result<Option<Gpfn>, HvStatus> {
    let ownership = system::ownership().ok_or(HvStatus::OPERATION_FAILED)?;
    let Some(frame) = partition.pool.lock().withdraw() else {
        return Ok(None);
    };
    let mapped = with_frames(|frames| match root.memory.lock().as_mut() {
        Some(memory) => memory
            .map_range(
                Gpa(frame.start().0),
                frame.start(),
                FRAME_SIZE,
                Access::ALL,
                frames,
            )
            .map_err(status_of),
        None => Err(HvStatus::OPERATION_FAILED),
    });
    if let Err(status) = mapped.and_then(|result| result) {
        partition.pool.lock().free(frame);
        return Err(status);
    }
    partition.deposited.fetch_sub(1, Ordering::Relaxed);
    ownership.withdraw(frame);
    Ok(Some(Gpfn(frame.number())))
}

/// Lets the root read a frame of the hypervisor's at its own address, or not any more.
pub fn show_to_root(frame: Frame, shown: bool) -> Result<(), HvStatus> {
    let root = Partition::root().ok_or(HvStatus::OPERATION_FAILED)?;
    let address = Gpa(frame.start().0);
    with_frames(|frames| {
        let mut memory = root.memory.lock();
        let memory = memory.as_mut().ok_or(HvStatus::OPERATION_FAILED)?;
        let read_only = Access {
            write: false,
            execute: false,
            ..Access::ALL
        };
        let changed = match shown {
            true => memory.map_range(address, frame.start(), FRAME_SIZE, read_only, frames),
            false => memory.unmap(address, FRAME_SIZE, frames),
        };
        changed.map_err(status_of)
    })??;
    if !shown {
        root.memory_changed();
        quiesce::stop_guests();
    }
    Ok(())
}

/// How a child sees pages, by the flags of the call.
fn access_of(flags: MapGpaFlags) -> Access {
    let none = flags.contains(MapGpaFlags::NO_ACCESS);
    Access {
        read: !none && flags.contains(MapGpaFlags::READABLE),
        write: !none && flags.contains(MapGpaFlags::WRITABLE),
        execute: !none && flags.intersects(MapGpaFlags::KERNEL_EXECUTABLE | MapGpaFlags::USER_EXECUTABLE),
        memory_type: match flags.contains(MapGpaFlags::NOT_CACHED) {
            true => MemoryType::Uncacheable,
            false => MemoryType::WriteBack,
        },
    }
}

impl Partition {
    fn add_to_pool(&self, frame: Frame) {
        self.deposited.fetch_add(1, Ordering::Relaxed);
        self.pool.lock().free(frame);
    }

    /// Maps a page (or a large page) of the root's at `target`. Where something is mapped there already, the call is refused.
    pub fn map_page(
        &self,
        root: &Partition,
        target: Gpfn,
        source: Gpfn,
        flags: MapGpaFlags,
    ) -> Result<(), HvStatus> {
        let ownership = system::ownership().ok_or(HvStatus::OPERATION_FAILED)?;
        let large = flags.contains(MapGpaFlags::LARGE_PAGE);
        let (size, pages) = if large {
            (PageSize::Large2M, LARGE_PAGE_PAGES)
        } else {
            (PageSize::Small4K, 1)
        };
        let gpa = target
            .base()
            .filter(|gpa| gpa.is_aligned(size.bytes()))
            .ok_or(HvStatus::INVALID_PARAMETER)?;
        let first = root_frame(root, source, size)?;
        let frame = |page: u64| Frame::containing(Spa(first.start().0 + page * FRAME_SIZE));
        let mut memory = self.memory.lock();
        let memory = memory.as_mut().ok_or(HvStatus::INVALID_PARTITION_STATE)?;
        if (0..pages).any(|page| memory.translate(Gpa(gpa.0 + page * FRAME_SIZE)).is_some()) {
            return Err(HvStatus::OPERATION_DENIED);
        }
        for page in 0..pages {
            if let Err(status) = ownership.map(frame(page)) {
                (0..page).for_each(|page| ownership.unmap(frame(page)));
                return Err(status);
            }
        }
        let mapped = memory.map_range(
            gpa,
            first.start(),
            size.bytes(),
            access_of(flags),
            &mut *self.pool.lock(),
        );
        if let Err(error) = mapped {
            (0..pages).for_each(|page| ownership.unmap(frame(page)));
            return Err(status_of(error));
        }
        self.memory_changed();
        Ok(())
    }

    /// Unmaps what is mapped of `pages` pages at `target`. Nobody reaches it there when this returns.
    pub fn unmap_pages(&self, target: Gpfn, pages: u64) -> Result<(), HvStatus> {
        let ownership = system::ownership().ok_or(HvStatus::OPERATION_FAILED)?;
        let gpa = target.base().ok_or(HvStatus::INVALID_PARAMETER)?;
        let end = gpa
            .checked_add(pages * FRAME_SIZE)
            .ok_or(HvStatus::INVALID_PARAMETER)?;
        let mut freed = arrayvec::ArrayVec::<Frame, { LARGE_PAGE_PAGES as usize }>::new();
        {
            let mut memory = self.memory.lock();
            let memory = memory.as_mut().ok_or(HvStatus::INVALID_PARTITION_STATE)?;
            let mut at = gpa.0;
            while at < end.0 {
                if let Some(mapping) = memory.translate(Gpa(at)) {
                    freed.push(Frame::containing(mapping.spa));
                }
                at += FRAME_SIZE;
            }
            if freed.is_empty() {
                return Ok(());
            }
            memory
                .unmap(gpa, end.0 - gpa.0, &mut *self.pool.lock())
                .map_err(status_of)?;
        }
        self.memory_changed();
        quiesce::stop_guests();
        freed.into_iter().for_each(|frame| ownership.unmap(frame));
        Ok(())
    }

    /// Unmaps up to a large page's worth of memory, wherever there is some. Returns whether anything is left.
    pub fn unmap_some(&self) -> Result<bool, HvStatus> {
        let next = self
            .memory
            .lock()
            .as_ref()
            .and_then(|memory| memory.next_mapped(Gpa(0)));
        let Some(gpa) = next else { return Ok(false) };
        let start = gpa.0 & !(LARGE_PAGE_PAGES * FRAME_SIZE - 1);
        self.unmap_pages(Gpfn(start / FRAME_SIZE), LARGE_PAGE_PAGES)?;
        Ok(true)
    }

    /// Gives the page tables back to the pool. Nothing may be mapped any more, and no VP be left.
    pub fn drop_address_space(&self) {
        if let Some(memory) = self.memory.lock().take() {
            self.memory_changed();
            quiesce::stop_guests();
            memory.destroy(&mut *self.pool.lock());
        }
        super::port::clear(self);
        self.cpuid.lock().clear(&mut *self.pool.lock());
        self.set_state(PartitionState::Finalized);
    }
}
