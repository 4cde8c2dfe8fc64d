//! Building the root partition: its guest physical address space, its VPs, its start information.
#![allow(unsafe_code)]

use super::start::StartError;
use crate::memory::address::{FRAME_SIZE, Frame, PageSize, Spa, SpaRange};
use crate::memory::frames::{FrameAllocator, FrameSource};
use crate::memory::map::MemoryMap;
use crate::memory::nested::{Access, NestedTables, Npt};
use crate::partition::guest_memory::write_frame;
use crate::partition::shared::{VpShared, VpSlot};
use crate::partition::table::ROOT_ID;
use crate::partition::vp::Vp;
use crate::partition::{Partition, Parts, VpTable, hypercall_page};
use crate::processor::extended_state::ExtendedState;
use crate::processor::local::Processor;
use crate::virtualization::svm::Svm;
use crate::virtualization::svm::permissions::{self, Permissions};
use crate::virtualization::{VirtualProcessor, general};
use crate::{cpuid, scheduler, system};
use core::sync::atomic::Ordering;
use hypercall_api::address::{Gpa, Gpfn};
use hypercall_api::id::VpIndex;
use hypercall_api::privilege::Privileges;
use hypercall_api::processor::{InitialVpContext, SegmentRegister};
use hypercall_api::pvh::{self, MemoryMapEntry, Module, StartInfo};
use zerocopy::IntoBytes;

/// Everything that the root's memory is made of.
pub struct Layout<'a> {
    /// What the root is told it has.
    pub map: &'a MemoryMap,
    /// What it must not touch: the hypervisor's memory and the registers that are the hypervisor's.
    pub forbidden: &'a [SpaRange],
    /// The boot archive.
    pub archive: SpaRange,
    /// Where its start information goes, [`START_INFO_PAGES`] pages.
    pub start_info: Frame,
    /// Its entry point.
    pub entry: u32,
    /// Its command line.
    pub command_line: &'a str,
    /// Where the firmware's ACPI tables begin, or 0.
    pub rsdp: u64,
}

/// The root's scheduler weight; a child has 100 unless its parent says otherwise.
const ROOT_WEIGHT: u64 = 400;
/// What the root's VP is sure to get of each processor, in per mille.
const ROOT_RESERVE: u64 = 200;
/// Pages of start information.
pub const START_INFO_PAGES: u64 = 2;
const MODULE_OFFSET: usize = 0x40;
const COMMAND_LINE_OFFSET: usize = 0x80;
const MEMORY_MAP_OFFSET: usize = 0x600;

/// Builds the partition, with one VP a processor, the first of which is ready to run.
pub fn build(layout: &Layout<'_>, frames: &mut FrameAllocator) -> Result<&'static Partition, StartError> {
    let overlay = frames.allocate().ok_or(StartError::ReserveTooSmall)?;
    write_frame(overlay, 0, &hypercall_page::contents());
    let mut memory = map_memory(layout, frames)?;
    let read_execute = Access {
        write: false,
        ..Access::ALL
    };
    share(&mut memory, overlay, read_execute, frames)?;

    let parts = Parts {
        id: ROOT_ID,
        privileges: root_privileges(),
        permissions: place(permission_maps(frames, true)?, frames)?,
        vps: vp_table(frames)?,
        overlay: Some(gpfn(overlay)),
    };
    let partition = place(Partition::new(parts), frames)?;
    partition.activate(memory);
    // Whoever manages the machine must not starve, whatever its children do.
    partition.reserve.store(ROOT_RESERVE, Ordering::Relaxed);
    partition.weight.store(ROOT_WEIGHT, Ordering::Relaxed);
    partition.enlist();
    for processor in Processor::all() {
        add_vp(partition, processor, frames)?;
    }
    system::set_child_permissions(permission_maps(frames, false)?);
    write_start_info(layout);
    if let Some(mut guard) = partition.vp(VpIndex(0)).and_then(VpSlot::try_lock)
        && let Some(vp) = guard.as_mut()
    {
        vp.start(&pvh_context(layout.entry));
        vp.registers.general[general::RBX] = layout.start_info.start().0;
    }
    partition.make_root();
    Ok(partition)
}

fn gpfn(frame: Frame) -> Gpfn {
    Gpfn(frame.number())
}

/// The root has every privilege.
fn root_privileges() -> Privileges {
    // What has no implementation yet must not be announced.
    Privileges::all()
        - Privileges::ACCESS_DEBUG_REGS
        - Privileges::ACCESS_REENLIGHTENMENT_CONTROLS
        - Privileges::ACCESS_TSC_INVARIANT_CONTROLS
        - Privileges::ENABLE_EXTENDED_HYPERCALLS
}

/// Permission maps: the root's, or those that all children share.
fn permission_maps(frames: &mut FrameAllocator, is_root: bool) -> Result<Permissions, StartError> {
    // Two bits of order hold the three frames of the I/O map.
    let io = frames.allocate_run(2).ok_or(StartError::ReserveTooSmall)?;
    let msr = frames.allocate_run(1).ok_or(StartError::ReserveTooSmall)?;
    const { assert!(permissions::IO_FRAMES <= 4 && permissions::MSR_FRAMES <= 2) };
    // SAFETY: the runs were just allocated and are as long as the maps.
    let mut permissions = unsafe { Permissions::new(io, msr) };
    if is_root {
        permissions.pass_all_ports();
    }
    Ok(permissions)
}

fn vp_table(frames: &mut FrameAllocator) -> Result<&'static VpTable, StartError> {
    let frame = frames.allocate().ok_or(StartError::ReserveTooSmall)?;
    // SAFETY: the frame was just allocated, zeroed (null pointers), and is never freed.
    Ok(unsafe { &*(frame.start().0 as *const VpTable) })
}

/// Maps all that there is at its own address, but for what is forbidden.
fn map_memory(layout: &Layout<'_>, frames: &mut FrameAllocator) -> Result<NestedTables<Npt>, StartError> {
    let huge = cpuid::has_gib_pages();
    let largest = if huge { PageSize::Huge1G } else { PageSize::Large2M };
    let mut memory = NestedTables::<Npt>::new(largest, frames)?;
    // Devices can be anywhere. Without 1 GiB pages, tables for all of it would cost too much.
    const BEYOND_RAM: u64 = 64 << 30;
    let width = 1u64 << cpuid::physical_address_bits().min(46);
    let end = if huge {
        width
    } else {
        (layout.map.end_of_ram().0.max(1 << 32) + BEYOND_RAM).min(width)
    };
    memory.map_range(Gpa(0), Spa(0), end, Access::DEVICE, frames)?;
    for ram in layout.map.ram_ranges() {
        memory.map_range(Gpa(ram.start().0), ram.start(), ram.size(), Access::ALL, frames)?;
    }
    for range in layout.forbidden {
        memory.unmap(Gpa(range.start().0), range.size(), frames)?;
    }
    // Start information is marked reserved in the root's map, but is memory all the same.
    let start_info = layout.start_info.start();
    memory.map_range(
        Gpa(start_info.0),
        start_info,
        START_INFO_PAGES * FRAME_SIZE,
        Access::ALL,
        frames,
    )?;
    Ok(memory)
}

/// Lets the root see a frame of the hypervisor's at its own address.
fn share(
    memory: &mut NestedTables<Npt>,
    frame: Frame,
    access: Access,
    frames: &mut FrameAllocator,
) -> Result<(), StartError> {
    Ok(memory.map_range(Gpa(frame.start().0), frame.start(), FRAME_SIZE, access, frames)?)
}

/// Moves `value` into a run of frames of its own, for good.
fn place<T>(value: T, frames: &mut FrameAllocator) -> Result<&'static T, StartError> {
    let pages = (size_of::<T>() as u64).div_ceil(FRAME_SIZE);
    let run = frames
        .allocate_run(pages.next_power_of_two().trailing_zeros())
        .ok_or(StartError::ReserveTooSmall)?;
    let pointer = run.start().0 as *mut T;
    // SAFETY: the run is large enough, aligned to a page, and never freed.
    unsafe {
        pointer.write(value);
        Ok(&*pointer)
    }
}

fn add_vp(
    partition: &'static Partition,
    processor: &Processor,
    frames: &mut FrameAllocator,
) -> Result<(), StartError> {
    let mut frame = || frames.allocate().ok_or(StartError::ReserveTooSmall);
    let [vmcb, extended, statistics, message_page, event_page] =
        [frame()?, frame()?, frame()?, frame()?, frame()?];
    let index = VpIndex(processor.index.0);
    let shared = VpShared::new(partition, index, processor.index, processor.apic_id, statistics);
    let slot = place(VpSlot::new(shared), frames)?;
    // SAFETY: the frames were just allocated, and the partition with its maps lives for ever.
    let mut vp = unsafe {
        Vp::new(
            partition,
            slot,
            Svm::new(vmcb, partition.permissions),
            ExtendedState::new(extended),
        )
    };
    if let Some(memory) = partition.memory.lock().as_mut() {
        let read_only = Access {
            write: false,
            execute: false,
            ..Access::ALL
        };
        let read_write = Access {
            execute: false,
            ..Access::ALL
        };
        share(memory, statistics, read_only, frames)?;
        share(memory, message_page, read_write, frames)?;
        share(memory, event_page, read_write, frames)?;
        vp.hardware.set_nested_root(memory.root().start());
    }
    vp.shared
        .synic
        .provide_pages(gpfn(message_page), gpfn(event_page));
    slot.complete(vp);
    partition.add_vp(slot);
    if scheduler::attach(slot) {
        Ok(())
    } else {
        Err(StartError::ReserveTooSmall)
    }
}

/// The state in which PVH enters an image: 32-bit protected mode, flat segments, paging off.
fn pvh_context(entry: u32) -> InitialVpContext {
    let data = SegmentRegister {
        base: 0,
        limit: u32::MAX,
        selector: 0x10,
        attributes: 0xc093,
    };
    let code = SegmentRegister {
        base: 0,
        limit: u32::MAX,
        selector: 0x08,
        attributes: 0xc09b,
    };
    InitialVpContext {
        rip: entry as u64,
        rflags: 2,
        cs: code,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: SegmentRegister {
            base: 0,
            limit: 0x67,
            selector: 0,
            attributes: 0x8b,
        },
        ldtr: SegmentRegister {
            base: 0,
            limit: 0,
            selector: 0,
            attributes: 0x82,
        },
        cr0: 0x11,
        pat: 0x0007_0406_0007_0406,
        ..InitialVpContext::default()
    }
}

/// Composes the root's start information.
fn write_start_info(layout: &Layout<'_>) {
    let base = layout.start_info.start().0;
    let put = |offset: usize, bytes: &[u8]| {
        // Byte by byte, since an element may straddle two pages.
        for (index, byte) in bytes.iter().enumerate() {
            let address = base + (offset + index) as u64;
            write_frame(
                Frame::containing(Spa(address)),
                (address % FRAME_SIZE) as usize,
                &[*byte],
            );
        }
    };
    let mut entries = 0;
    for entry in layout.map.entries() {
        let offset = MEMORY_MAP_OFFSET + entries * size_of::<MemoryMapEntry>();
        if offset + size_of::<MemoryMapEntry>() > (START_INFO_PAGES * FRAME_SIZE) as usize {
            break;
        }
        put(offset, entry.as_bytes());
        entries += 1;
    }
    let archive = Module {
        address: layout.archive.start().0,
        size: layout.archive.size(),
        command_line: 0,
        reserved: 0,
    };
    put(MODULE_OFFSET, archive.as_bytes());
    put(COMMAND_LINE_OFFSET, layout.command_line.as_bytes());
    put(COMMAND_LINE_OFFSET + layout.command_line.len(), &[0]);
    let info = StartInfo {
        magic: pvh::MAGIC,
        version: 1,
        flags: 0,
        module_count: 1,
        modules: base + MODULE_OFFSET as u64,
        command_line: base + COMMAND_LINE_OFFSET as u64,
        rsdp: layout.rsdp,
        memory_map: base + MEMORY_MAP_OFFSET as u64,
        memory_map_entries: entries as u32,
        reserved: 0,
    };
    put(0, info.as_bytes());
}
