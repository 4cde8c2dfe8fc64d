//! The root's one address space: every address is mapped to itself (but for [`window`](super::window)s), RAM cached, everything else as device memory, the
//! image W^X, page 0 and the page under each stack not at all.
#![allow(unsafe_code)]

use super::frames::{BLOCK_SIZE, FRAME_SIZE, Frames};
use super::paging::{Access, PageTables, PagingError, TableMemory};
use crate::boot::start_info::MAX_MEMORY_MAP;
use crate::hypervisor::hypercalls;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::arch::x86_64::__cpuid;
use core::ops::Range;
use hypercall_api::call::GuestCalls;
use hypercall_api::flush::FlushFlags;
use hypercall_api::pvh::{MemoryKind, MemoryMapEntry};
use spin::{Mutex, Once};
use x86_64::instructions::tlb;

/// End of what is mapped whether there is RAM or not: devices of the 32-bit address space.
const DEVICE_END: u64 = 4 << 30;

static FRAMES: Mutex<Option<Frames>> = Mutex::new(None);
static RAM: Once<ArrayVec<Range<u64>, MAX_MEMORY_MAP>> = Once::new();
static TABLES: Once<Mutex<PageTables<RealTables>>> = Once::new();

/// Page tables in frames, which lie in mapped RAM.
#[derive(Debug)]
struct RealTables;

impl TableMemory for RealTables {
    fn allocate(&mut self) -> Option<u64> {
        let frame = FRAMES.lock().as_mut()?.allocate()?;
        // SAFETY: the frame was just allocated, so it is RAM that nothing else uses, and all RAM is mapped.
        unsafe { (frame as *mut [u64; 512]).write([0; 512]) };
        Some(frame)
    }

    fn entry(&mut self, table: u64, index: usize) -> &mut u64 {
        assert!(index < 512);
        // SAFETY: `table` came from `allocate`; the tables' lock makes this the only reference.
        unsafe { &mut *(table as *mut u64).add(index) }
    }
}

/// Sections of the image, from the linker script.
#[derive(Clone, Debug)]
pub struct Image {
    /// Code.
    pub text: Range<u64>,
    /// Constants.
    pub constants: Range<u64>,
    /// Variables.
    pub data: Range<u64>,
}

/// Takes `frames` as the free RAM, builds the page tables and switches to them.
///
/// # Safety
/// To be called once, on the boot processor, with the boot stub's map active, with the real layout of the running image
/// and frames that nothing uses.
pub unsafe fn init(frames: Frames, map: &[MemoryMapEntry], image: &Image) -> Result<(), PagingError> {
    *FRAMES.lock() = Some(frames);
    let ram = map.iter().filter(|entry| entry.kind == MemoryKind::RAM);
    RAM.call_once(|| {
        ram.take(MAX_MEMORY_MAP)
            .map(|entry| entry.address..entry.address.saturating_add(entry.size))
            .collect()
    });
    let mut tables = PageTables::new(RealTables, has_gib_pages())?;
    tables.map(0..DEVICE_END, Access::DEVICE)?;
    for entry in map {
        let end = entry.address.saturating_add(entry.size);
        match entry.kind {
            MemoryKind::RAM => tables.map(entry.address.next_multiple_of(4096)..end & !4095, Access::DATA)?,
            MemoryKind::ACPI | MemoryKind::NVS => {
                tables.map(entry.address & !4095..end.next_multiple_of(4096), Access::DATA)?;
            }
            _ => {}
        }
    }
    tables.map(image.text.clone(), Access::CODE)?;
    tables.map(image.constants.clone(), Access::CONSTANTS)?;
    tables.map(image.data.clone(), Access::DATA)?;
    tables.map(0..FRAME_SIZE, Access::NONE)?;
    // SAFETY: the tables map the running code, its stack and its data at the addresses they have.
    unsafe { load(tables.root()) };
    TABLES.call_once(|| Mutex::new(tables));
    Ok(())
}

/// Address of the top page table, for another processor's CR3.
pub fn root() -> Option<u64> {
    Some(TABLES.get()?.lock().root())
}

/// Changes what may be done with `range`, whole pages. Other processors see it once they flush their TLBs, so a range
/// that they may have used must not lose access.
pub fn protect(range: Range<u64>, access: Access) -> Result<(), PagingError> {
    let Some(tables) = TABLES.get() else {
        return Err(PagingError::OutOfMemory);
    };
    tables.lock().map(range, access)?;
    tlb::flush_all();
    Ok(())
}

/// Makes device registers at `range` reachable, wherever they are.
pub fn map_device(range: Range<u64>) -> Result<(), PagingError> {
    if range.end <= DEVICE_END {
        return Ok(());
    }
    protect(
        range.start & !4095..range.end.next_multiple_of(4096),
        Access::DEVICE,
    )
}

/// Maps `frames`, whole pages of RAM, in a row from `base` on, which is where nothing is mapped. Undone where it fails.
pub(super) fn map_row(base: u64, frames: &[u64]) -> Result<(), PagingError> {
    let Some(tables) = TABLES.get() else {
        return Err(PagingError::OutOfMemory);
    };
    let result = {
        let mut tables = tables.lock();
        let mut pages = (base..).step_by(FRAME_SIZE as usize).zip(frames);
        pages.try_for_each(|(page, frame)| tables.map_page(page, *frame, Access::DATA))
    };
    if result.is_err() {
        // SAFETY: nobody knows of the mapping yet.
        unsafe { unmap_row(base..base + frames.len() as u64 * FRAME_SIZE) };
    }
    result
}

/// Unmaps `range`, which begins at a multiple of 2 MiB and has its last 2 MiB for itself, on all processors.
///
/// # Safety
/// Nobody uses the range any more.
pub(super) unsafe fn unmap_row(range: Range<u64>) {
    let Some(tables) = TABLES.get() else { return };
    let removed: Vec<u64> = {
        let mut tables = tables.lock();
        let blocks = range.step_by(BLOCK_SIZE as usize);
        blocks.filter_map(|block| tables.remove_table(block)).collect()
    };
    let flags = FlushFlags::ALL_PROCESSORS | FlushFlags::ALL_VIRTUAL_ADDRESS_SPACES;
    if let Err(status) = hypercalls().flush_address_space(0, flags, 0) {
        // A processor may still walk the tables: better lost than shared.
        log::error!("page tables cannot be freed: no TLB flush: {status}");
        return;
    }
    for table in removed {
        // SAFETY: it came from `RealTables::allocate`, and no processor has it any more.
        unsafe { release(table..table + FRAME_SIZE) };
    }
}

/// Whether any of `range` is RAM; all of it counts as such until the memory map is known.
pub fn has_ram(range: &Range<u64>) -> bool {
    RAM.get().is_none_or(|ram| {
        ram.iter()
            .any(|ram| ram.start < range.end && range.start < ram.end)
    })
}

/// Frames in a row (at most 512), for page-sized structures.
pub fn allocate_run(count: usize) -> Option<u64> {
    FRAMES.lock().as_mut()?.allocate_run(count)
}

/// Blocks of 2 MiB in a row, at least `count`: address and size in bytes.
pub fn allocate_blocks(count: usize) -> Option<(u64, usize)> {
    let start = FRAMES.lock().as_mut()?.allocate_blocks(count)?;
    Some((start, count * BLOCK_SIZE as usize))
}

/// Gives frames back.
///
/// # Safety
/// They came from [`allocate_run`] or [`allocate_blocks`], and nothing uses them any more.
pub unsafe fn release(range: Range<u64>) {
    if let Some(frames) = FRAMES.lock().as_mut() {
        frames.release(range);
    }
}

/// Free RAM outside the heap, in bytes.
pub fn free_bytes() -> u64 {
    FRAMES.lock().as_ref().map_or(0, Frames::free_bytes)
}

fn has_gib_pages() -> bool {
    __cpuid(0x8000_0000).eax >= 0x8000_0001 && __cpuid(0x8000_0001).edx & 1 << 26 != 0
}

/// # Safety
/// `root` must be a tree of page tables that maps what runs.
unsafe fn load(root: u64) {
    // SAFETY: the caller vouches for the tables.
    unsafe { core::arch::asm!("mov cr3, {}", in(reg) root, options(nostack, preserves_flags)) };
}
