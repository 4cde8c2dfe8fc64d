//! Memory between the root and its children: what is deposited leaves the root, what is mapped stays the root's too.

use super::{Partition, PartitionState};
use crate::iommu::domain::{self, ROOT_DOMAIN};
use crate::iommu::second_stage::DmaAccess;
use crate::iommu::{self, device_memory};
use crate::memory::address::{FRAME_SIZE, Frame, PageSize, Spa, SpaRange};
use crate::memory::frames::FrameSource;
use crate::memory::nested::{Access, Mapping, MemoryType};
use crate::memory::tables::TableError;
use crate::processor::quiesce;
use crate::system::{self, FRAMES};
use arrayvec::ArrayVec;
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

/// Whether the root has memory of its own there.
#[inline]
fn is_root_ram(mapping: Mapping) -> bool {
    mapping.is_ram() && mapping.access.write && !system::is_hypervisors(mapping.spa)
}

/// The frame of RAM that `page` of the root's address space is, if it is the root's own to give.
fn root_frame(root: &Partition, page: Gpfn, size: PageSize) -> Result<Frame, HvStatus> {
    let gpa = page.base().ok_or(HvStatus::INVALID_PARAMETER)?;
    let mapping = root.translate(gpa).ok_or(HvStatus::INVALID_PARAMETER)?;
    let is_whole = mapping.size.bytes() >= size.bytes() && mapping.spa.is_aligned(size.bytes());
    if !is_root_ram(mapping) || !is_whole {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    Ok(Frame::containing(mapping.spa))
}

/// The page of device registers that `page` of the root's address space is. What is the hypervisor's own, the root has no
/// mapping of, or none to write.
fn root_registers(root: &Partition, page: Gpfn) -> Result<Frame, HvStatus> {
    let gpa = page.base().ok_or(HvStatus::INVALID_PARAMETER)?;
    let mapping = root.translate(gpa).ok_or(HvStatus::INVALID_PARAMETER)?;
    if mapping.is_ram() || !mapping.access.write || system::is_hypervisors(mapping.spa) {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    Ok(Frame::containing(mapping.spa))
}

/// Runs `work` with the hypervisor's own frames, which the root's page tables come from.
fn with_frames<R>(work: impl FnOnce(&mut dyn FrameSource) -> R) -> Result<R, HvStatus> {
    let frames = FRAMES.get().ok_or(HvStatus::OPERATION_FAILED)?;
    Ok(work(&mut *frames.lock()))
}

/// Most pages that are deposited at once.
const MOST_DEPOSITED: usize = 128;

/// Pages that follow one another: the first, and how many.
type Run = (u64, u64);

/// Moves pages of the root's into `partition`'s pool. Nobody but the hypervisor reaches them when this returns. Tells how many
/// were moved, and why the next one was not.
pub fn deposit(root: &Partition, partition: &Partition, pages: &[u64]) -> (u16, Result<(), HvStatus>) {
    let mut runs = ArrayVec::<Run, MOST_DEPOSITED>::new();
    let mut taken = 0;
    let result = take_runs(root, pages, &mut runs, &mut taken);
    if taken == 0 {
        return (0, result);
    }
    root.memory_changed();
    let bytes = runs.iter().map(|&(page, count)| (page * FRAME_SIZE, count));
    let forgotten = domain::forget(ROOT_DOMAIN, &bytes.collect::<ArrayVec<_, MOST_DEPOSITED>>());
    quiesce::stop_guests();
    if let Err(error) = forgotten {
        // A device may still write to them, so they stay the root's.
        runs.iter().for_each(|&run| give_back(root, run));
        return (0, Err(iommu::unit_failed(error, HvStatus::OPERATION_FAILED)));
    }
    partition.deposited.fetch_add(taken, Ordering::Relaxed);
    let mut pool = partition.pool.lock();
    for &(first, count) in &runs {
        pool.free_run(Frame::containing(Spa(first * FRAME_SIZE)), count);
    }
    (taken as u16, result)
}

/// Takes pages out of the root's address space and out of its devices', a run at a time, until one cannot be taken.
fn take_runs(
    root: &Partition,
    pages: &[u64],
    runs: &mut ArrayVec<Run, MOST_DEPOSITED>,
    taken: &mut u64,
) -> Result<(), HvStatus> {
    let ownership = system::ownership().ok_or(HvStatus::OPERATION_FAILED)?;
    let frames = FRAMES.get().ok_or(HvStatus::OPERATION_FAILED)?;
    let mut frames = frames.lock();
    let mut memory = root.memory.lock();
    let memory = memory.as_mut().ok_or(HvStatus::OPERATION_FAILED)?;
    let mut rest = &pages[..pages.len().min(MOST_DEPOSITED)];
    while let Some(&first) = rest.first() {
        let run = rest
            .iter()
            .zip(first..)
            .take_while(|(page, next)| **page == *next)
            .count() as u64;
        let gpa = Gpfn(first).base().ok_or(HvStatus::INVALID_PARAMETER)?;
        let range = SpaRange::sized(Spa(gpa.0), run * FRAME_SIZE).ok_or(HvStatus::INVALID_PARAMETER)?;
        let given = match system::has_hypervisors(range) {
            // Pages of its own that the hypervisor shows to the root are not the root's to give.
            true => memory.count_while(gpa, run, is_root_ram),
            false => memory.count_while(gpa, run, |mapping| mapping.is_ram() && mapping.access.write),
        };
        let (count, mut result) = ownership.deposit_run(Frame::containing(Spa(gpa.0)), given);
        if result.is_ok() && given < run {
            result = Err(HvStatus::INVALID_PARAMETER);
        }
        if count != 0 {
            let (gpa, size) = (Gpa(first * FRAME_SIZE), count * FRAME_SIZE);
            // The domain first: what has left it is unmapped from the root without more tables than the domain had.
            let unmapped = domain::unmap(ROOT_DOMAIN, gpa.0, size, &mut *frames)
                .and_then(|()| memory.unmap(gpa, size, &mut *frames));
            if let Err(error) = unmapped {
                // Back into the domain: its tables are split by now, so that this takes none.
                let _ = domain::map(ROOT_DOMAIN, gpa.0, Spa(gpa.0), size, DmaAccess::ALL, &mut *frames);
                for page in first..first + count {
                    ownership.withdraw(Frame::containing(Spa(page * FRAME_SIZE)));
                }
                return Err(status_of(error));
            }
            runs.push((first, count));
            *taken += count;
        }
        result?;
        rest = rest.get(count as usize..).unwrap_or_default();
    }
    Ok(())
}

/// Gives a run of pages back to the root, which nobody else has used.
fn give_back(root: &Partition, (first, count): Run) {
    let (gpa, size) = (Gpa(first * FRAME_SIZE), count * FRAME_SIZE);
    let mapped = with_frames(|frames| map_to_root(root, gpa, size, frames));
    if mapped.and_then(|result| result).is_ok()
        && let Some(ownership) = system::ownership()
    {
        for page in first..first + count {
            ownership.withdraw(Frame::containing(Spa(page * FRAME_SIZE)));
        }
    }
}

/// Maps memory at its own address for the root and its devices.
fn map_to_root(root: &Partition, gpa: Gpa, size: u64, frames: &mut dyn FrameSource) -> Result<(), HvStatus> {
    let mut memory = root.memory.lock();
    let memory = memory.as_mut().ok_or(HvStatus::OPERATION_FAILED)?;
    memory
        .map_range(gpa, Spa(gpa.0), size, Access::ALL, frames)
        .map_err(status_of)?;
    domain::map(ROOT_DOMAIN, gpa.0, Spa(gpa.0), size, DmaAccess::ALL, frames).map_err(status_of)?;
    domain::announce(ROOT_DOMAIN, gpa.0, size / FRAME_SIZE)
        .map_err(|error| iommu::unit_failed(error, HvStatus::OPERATION_FAILED))
}

/// Moves a free page of `partition`'s pool back to the root. `None` where no page is free.
pub fn withdraw(root: &Partition, partition: &Partition) -> Result<Option<Gpfn>, HvStatus> {
    let ownership = system::ownership().ok_or(HvStatus::OPERATION_FAILED)?;
    let Some(frame) = partition.pool.lock().withdraw() else {
        return Ok(None);
    };
    let mapped = with_frames(|frames| map_to_root(root, Gpa(frame.start().0), FRAME_SIZE, frames));
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
    /// Maps a page (or a large page) of the root's at `target`: RAM, or uncached a page of device registers, which its devices
    /// do not reach. Where something is mapped there already, the call is refused.
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
        let uncached = flags.contains(MapGpaFlags::NOT_CACHED) && !large;
        let first = root_frame(root, source, size).or_else(|status| match uncached {
            true => root_registers(root, source),
            false => Err(status),
        })?;
        let frame = |page: u64| Frame::containing(Spa(first.start().0 + page * FRAME_SIZE));
        let mut memory = self.memory.lock();
        let memory = memory.as_mut().ok_or(HvStatus::INVALID_PARTITION_STATE)?;
        if (0..pages).any(|page| memory.translate(Gpa(gpa.0 + page * FRAME_SIZE)).is_some()) {
            return Err(HvStatus::OPERATION_DENIED);
        }
        for page in 0..pages {
            // Registers may lie beyond all memory, of which alone account is kept.
            let held = match ownership.map(frame(page)) {
                Err(HvStatus::INVALID_PARAMETER) if uncached => Ok(()),
                held => held,
            };
            if let Err(status) = held {
                (0..page).for_each(|page| ownership.unmap(frame(page)));
                return Err(status);
            }
        }
        let (access, bytes) = (access_of(flags), size.bytes());
        let mapped = {
            let mut pool = self.pool.lock();
            memory
                .map_range(gpa, first.start(), bytes, access, &mut *pool)
                .and_then(|()| {
                    device_memory::follow_map(self, gpa, first.start(), bytes, access, &mut *pool)
                        // What was just mapped is unmapped without new tables.
                        .or_else(|error| memory.unmap(gpa, bytes, &mut *pool).and(Err(error)))
                })
        };
        if let Err(error) = mapped {
            (0..pages).for_each(|page| ownership.unmap(frame(page)));
            return Err(status_of(error));
        }
        self.memory_changed();
        device_memory::announce(self, gpa, pages)
    }

    /// Unmaps what is mapped of `pages` pages at `target`. Nobody reaches it there when this returns.
    pub fn unmap_pages(&self, target: Gpfn, pages: u64) -> Result<(), HvStatus> {
        let ownership = system::ownership().ok_or(HvStatus::OPERATION_FAILED)?;
        let gpa = target.base().ok_or(HvStatus::INVALID_PARAMETER)?;
        let end = gpa
            .checked_add(pages * FRAME_SIZE)
            .ok_or(HvStatus::INVALID_PARAMETER)?;
        let mut freed = ArrayVec::<Frame, { LARGE_PAGE_PAGES as usize }>::new();
        {
            let mut memory = self.memory.lock();
            let memory = memory.as_mut().ok_or(HvStatus::INVALID_PARTITION_STATE)?;
            self.uncover(memory, |covered| (gpa.0..end.0).contains(&covered.0));
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
            let (bytes, mut pool) = (end.0 - gpa.0, self.pool.lock());
            device_memory::follow_unmap(self, gpa, bytes, &mut *pool)
                .and_then(|()| memory.unmap(gpa, bytes, &mut *pool))
                .map_err(status_of)?;
        }
        self.memory_changed();
        quiesce::stop_guests();
        // While a device may still reach them, the frames stay held.
        device_memory::forget(self, &[(gpa.0, pages)])
            .map_err(|error| iommu::unit_failed(error, HvStatus::OPERATION_FAILED))?;
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
        let spare = self.spare.lock().take();
        spare.into_iter().for_each(|frame| self.pool.lock().free(frame));
        super::port::clear(self);
        self.cpuid.lock().clear(&mut *self.pool.lock());
        self.set_state(PartitionState::Finalized);
    }
}
