//! A partition's memory, as the hypervisor reads and writes it: by guest physical address through the nested tables, by
//! guest virtual address through the guest's own. Every byte is copied once; nothing here hands out a reference to
//! memory that a guest can change.
#![allow(unsafe_code)]

use super::Partition;
use crate::memory::address::{Frame, Spa};
use crate::memory::nested::{NestedTables, Npt};
use crate::virtualization::Paging;
use core::arch::asm;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use hypercall_api::address::{Gpa, Gpfn, Gva, PAGE_SIZE};
use hypercall_api::counter::COUNTERS;

const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;

/// A guest address that the hypervisor could not reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unreachable(pub Gpa);

/// Copies `bytes.len()` bytes from `spa`, which is RAM and stays inside one page. The copy is an instruction and not a
/// Rust access, so a guest that writes meanwhile tears its own data and breaks no rule of the language.
fn copy_from(spa: Spa, bytes: &mut [u8]) {
    // SAFETY: the nested tables map only RAM of the partition as RAM, and all RAM is mapped in the hypervisor's own tables.
    unsafe { copy(spa.0, bytes.as_mut_ptr() as u64, bytes.len()) }
}

fn copy_to(spa: Spa, bytes: &[u8]) {
    // SAFETY: as in `copy_from`.
    unsafe { copy(bytes.as_ptr() as u64, spa.0, bytes.len()) }
}

/// # Safety
/// Both ranges must be mapped, and the target be nobody's that minds.
unsafe fn copy(from: u64, to: u64, length: usize) {
    // SAFETY: the caller vouches for the ranges.
    unsafe {
        asm!("rep movsq", "mov rcx, {rest}", "rep movsb",
            rest = in(reg) length % 8,
            inout("rsi") from => _, inout("rdi") to => _, inout("rcx") length / 8 => _,
            options(nostack, preserves_flags));
    }
}

fn read_word(spa: Spa) -> u64 {
    // SAFETY: as in `copy_from`; the callers give aligned addresses.
    unsafe { (*(spa.0 as *const AtomicU64)).load(Ordering::Relaxed) }
}

fn read_byte(spa: Spa) -> u8 {
    // SAFETY: as in `copy_from`.
    unsafe { (*(spa.0 as *const AtomicU8)).load(Ordering::Relaxed) }
}

/// The 64-bit words of a frame that the hypervisor shares with a parent, as counters.
pub fn counters(frame: Frame) -> &'static [AtomicU64; COUNTERS] {
    // SAFETY: statistics frames are never freed while the machine runs, and atomics may be shared.
    unsafe { &*(frame.start().0 as *const [AtomicU64; COUNTERS]) }
}

/// Writes `bytes` at `offset` of a frame that the hypervisor owns or a guest has given it to write.
pub fn write_frame(frame: Frame, offset: usize, bytes: &[u8]) {
    assert!(offset + bytes.len() <= PAGE_SIZE as usize);
    copy_to(Spa(frame.start().0 + offset as u64), bytes);
}

/// Reads `bytes.len()` bytes at `offset` of such a frame.
pub fn read_frame(frame: Frame, offset: usize, bytes: &mut [u8]) {
    assert!(offset + bytes.len() <= PAGE_SIZE as usize);
    copy_from(Spa(frame.start().0 + offset as u64), bytes);
}

/// One 32-bit word of such a frame, shared with the guest.
pub fn frame_word(frame: Frame, offset: usize) -> &'static core::sync::atomic::AtomicU32 {
    assert!(offset.is_multiple_of(4) && offset + 4 <= PAGE_SIZE as usize);
    // SAFETY: RAM is mapped for good, the address is aligned, and the guest sees an atomic too.
    unsafe { &*((frame.start().0 + offset as u64) as *const core::sync::atomic::AtomicU32) }
}

/// Where `length` bytes at `gpa` lie, if they are in one page of RAM that the guest may write.
fn writable(memory: &NestedTables<Npt>, gpa: Gpa, length: usize) -> Result<Spa, Unreachable> {
    memory
        .translate(gpa)
        .filter(|mapping| mapping.access.write && mapping.is_ram() && gpa.fits_page(length as u64))
        .map(|mapping| mapping.spa)
        .ok_or(Unreachable(gpa))
}

/// Each of these holds the address space while it copies: a page that is taken away meanwhile is not given to anybody else
/// before the copy has ended.
impl Partition {
    /// Copies guest memory at `gpa` into `bytes`. The range may cross pages.
    pub fn read(&self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Unreachable> {
        let memory = self.memory.lock();
        let memory = memory.as_ref().ok_or(Unreachable(gpa))?;
        let mut done = 0;
        while done < bytes.len() {
            let at = gpa.checked_add(done as u64).ok_or(Unreachable(gpa))?;
            let mapping = memory
                .translate(at)
                .filter(|mapping| mapping.access.read && mapping.is_ram());
            let mapping = mapping.ok_or(Unreachable(at))?;
            let length = (bytes.len() - done).min((PAGE_SIZE - at.page_offset()) as usize);
            copy_from(mapping.spa, &mut bytes[done..done + length]);
            done += length;
        }
        Ok(())
    }

    /// Copies `bytes` to guest memory at `gpa`, which must lie in one page.
    pub fn write(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), Unreachable> {
        let memory = self.memory.lock();
        copy_to(
            writable(memory.as_ref().ok_or(Unreachable(gpa))?, gpa, bytes.len())?,
            bytes,
        );
        Ok(())
    }

    /// Whether `length` bytes at `gpa` are in one page of RAM that the guest may write.
    pub fn is_writable(&self, gpa: Gpa, length: usize) -> bool {
        self.memory
            .lock()
            .as_ref()
            .is_some_and(|memory| writable(memory, gpa, length).is_ok())
    }

    /// Lets `work` have the frame of a page that the guest has given for the hypervisor to write, if it is RAM that the
    /// guest itself may write.
    pub fn with_frame<R>(&self, page: Gpfn, work: impl FnOnce(Frame) -> R) -> Option<R> {
        let memory = self.memory.lock();
        let spa = writable(memory.as_ref()?, page.base()?, PAGE_SIZE as usize).ok()?;
        Frame::starting_at(spa).map(work)
    }
}

/// A page table entry that a walk used: where it lies and what it said.
type Step = (Spa, u64);
/// Most levels of a walk.
const LEVELS: usize = 5;

impl Partition {
    fn table_word(&self, gpa: u64) -> Option<Step> {
        let mapping = self
            .translate(Gpa(gpa & !7))
            .filter(|mapping| mapping.access.read && mapping.is_ram())?;
        Some((mapping.spa, read_word(mapping.spa)))
    }

    /// Translates a linear address by the guest's own page tables. Access rights are not looked at: the processor has
    /// just fetched from there.
    pub fn translate_linear(&self, paging: &Paging, gva: Gva) -> Option<Gpa> {
        if paging.is_on() && paging.is_long() {
            return self.walk(paging.cr3, gva, levels(paging), &mut [(Spa(0), 0); LEVELS]);
        }
        let gva = Gva(gva.0 & 0xffff_ffff);
        if !paging.is_on() {
            return Some(Gpa(gva.0));
        }
        if paging.cr4 & CR4_PAE == 0 {
            return self.walk_legacy(paging, gva);
        }
        let (_, pointer) = self.table_word((paging.cr3 & 0xffff_ffe0) + (gva.0 >> 30) * 8)?;
        if pointer & PRESENT == 0 {
            return None;
        }
        self.walk(pointer, gva, 2, &mut [(Spa(0), 0); LEVELS])
    }

    /// Walks `levels` levels of 64-bit entries and tells in `steps` which they were; a walk that ends early repeats its
    /// last.
    fn walk(&self, mut entry: u64, gva: Gva, levels: usize, steps: &mut [Step; LEVELS]) -> Option<Gpa> {
        for (step, level) in (0..levels).rev().enumerate() {
            let shift = 12 + 9 * level;
            let used = self.table_word((entry & ADDRESS) + (gva.0 >> shift & 0x1ff) * 8)?;
            steps[step..].fill(used);
            entry = used.1;
            if entry & PRESENT == 0 {
                return None;
            }
            if level == 0 || (level < 3 && entry & LARGE != 0) {
                let mask = (1u64 << shift) - 1;
                return Some(Gpa(entry & ADDRESS & !mask | gva.0 & mask));
            }
        }
        None
    }

    /// Two levels of 32-bit entries.
    fn walk_legacy(&self, paging: &Paging, gva: Gva) -> Option<Gpa> {
        let word = |gpa: u64| {
            self.table_word(gpa)
                .map(|(_, pair)| (pair >> ((gpa & 4) * 8)) & 0xffff_ffff)
        };
        let directory = word((paging.cr3 & 0xffff_f000) + (gva.0 >> 22) * 4)?;
        if directory & PRESENT == 0 {
            return None;
        }
        if directory & LARGE != 0 && paging.cr4 & CR4_PSE != 0 {
            return Some(Gpa((directory & 0xffc0_0000)
                | (directory >> 13 & 0xff) << 32
                | gva.0 & 0x3f_ffff));
        }
        let entry = word((directory & 0xffff_f000) + (gva.0 >> 12 & 0x3ff) * 4)?;
        (entry & PRESENT != 0).then_some(Gpa(entry & 0xffff_f000 | gva.0 & 0xfff))
    }

    /// Copies instruction bytes at `gva` into `bytes`, as many as can be read without crossing into a page that cannot be.
    pub fn fetch(&self, paging: &Paging, gva: Gva, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let at = Gva(gva.0.wrapping_add(done as u64));
            let Some(gpa) = self.translate_linear(paging, at) else {
                break;
            };
            let Some(mapping) = self.translate(gpa).filter(|mapping| mapping.is_ram()) else {
                break;
            };
            let length = (bytes.len() - done).min((PAGE_SIZE - gpa.page_offset()) as usize);
            copy_from(mapping.spa, &mut bytes[done..done + length]);
            done += length;
        }
        done
    }
}

fn levels(paging: &Paging) -> usize {
    if paging.cr4 & CR4_LA57 != 0 { 5 } else { 4 }
}

/// Where a VP's code was found by earlier walks. A line holds the entries that a walk used, and counts only while the guest's
/// tables still say the same and the partition's own have not changed: so it never differs from walking again.
pub struct CodeCache {
    lines: [CodeLine; Self::LINES],
}

#[derive(Clone, Copy)]
struct CodeLine {
    /// Linear page number; 0 where the line is empty.
    page: u64,
    cr3: u64,
    generation: u64,
    steps: [Step; LEVELS],
    /// The code's page.
    spa: u64,
}

impl Default for CodeCache {
    fn default() -> Self {
        let line = CodeLine {
            page: 0,
            cr3: 0,
            generation: 0,
            steps: [(Spa(0), 0); LEVELS],
            spa: 0,
        };
        Self {
            lines: [line; Self::LINES],
        }
    }
}

impl CodeCache {
    const LINES: usize = 8;

    /// The byte at `gva`, in long mode.
    #[inline]
    pub fn first_byte(&mut self, partition: &Partition, paging: &Paging, gva: Gva) -> Option<u8> {
        let page = gva.0 / PAGE_SIZE;
        let line = &self.lines[page as usize % Self::LINES];
        let known = line.page == page
            && line.cr3 == paging.cr3
            && line.generation == partition.memory_generation()
            && line.steps.iter().all(|&(place, said)| read_word(place) == said);
        let page_spa = if known {
            line.spa
        } else {
            self.fill(partition, paging, gva)?
        };
        Some(read_byte(Spa(page_spa + gva.0 % PAGE_SIZE)))
    }

    #[cold]
    fn fill(&mut self, partition: &Partition, paging: &Paging, gva: Gva) -> Option<u64> {
        let generation = partition.memory_generation();
        let mut steps = [(Spa(0), 0); LEVELS];
        let gpa = partition.walk(paging.cr3, gva, levels(paging), &mut steps)?;
        let spa = partition.translate(gpa).filter(|mapping| mapping.is_ram())?.spa.0 & !(PAGE_SIZE - 1);
        let page = gva.0 / PAGE_SIZE;
        self.lines[page as usize % Self::LINES] = CodeLine {
            page,
            cr3: paging.cr3,
            generation,
            steps,
            spa,
        };
        Some(spa)
    }
}
