//! Loading a kernel into a child's RAM: what kind of file it is decides the protocol.
//!
//! | module | holds |
//! |---|---|
//! | [`linux`] | Linux's `bzImage` |
//! | [`multiboot`] | multiboot 1: ELF files with a header in their first 8 KiB |
//! | [`program`] | ELF files as segments, 32- and 64-bit |
//! | [`pvh`] | PVH: ELF files with a note of type 18 |
//! | [`space`] | where modules and tables go |
//!
//! PVH and multiboot enter in 32-bit protected mode with flat segments, paging and interrupts off; Linux is entered in
//! 64-bit mode.

pub mod linux;
pub mod multiboot;
pub mod program;
pub mod pvh;
pub mod space;

#[cfg(test)]
pub(crate) mod tests;

use super::memory::{GuestMemory, LEGACY_HOLE, OutsideRam};
use alloc::string::String;
use alloc::vec::Vec;
use hypercall_api::pvh::{MemoryKind, MemoryMapEntry};
use linux::header::LinuxError;
use program::{Program, ProgramError};

/// What to load.
#[derive(Clone, Copy, Debug)]
pub struct Boot<'a> {
    /// The kernel file.
    pub kernel: &'a [u8],
    /// Further files, each with its command line.
    pub modules: &'a [Module<'a>],
    /// The kernel's command line.
    pub command_line: &'a str,
    /// Address of the ACPI tables' root pointer, 0 where there are none.
    pub rsdp: u64,
}

/// A file that the kernel is given.
#[derive(Clone, Copy, Debug)]
pub struct Module<'a> {
    /// Its contents.
    pub bytes: &'a [u8],
    /// Its command line; its name, by custom.
    pub command_line: &'a str,
}

/// Where the first VP begins, and with what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Instruction pointer.
    pub rip: u64,
    /// RAX: multiboot's magic.
    pub rax: u64,
    /// RBX: address of PVH's or multiboot's information.
    pub rbx: u64,
    /// RSI: address of Linux's zero page.
    pub rsi: u64,
    /// The processor's mode.
    pub mode: Mode,
}

/// The mode in which the first VP begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// 32-bit, paging off.
    Protected,
    /// 64-bit, memory mapped to itself, the APIC in x2APIC mode.
    Long {
        /// Address of the top page table.
        page_table: u64,
        /// Address of the descriptor table: code at selector 0x10, data at 0x18.
        descriptors: u64,
        /// Its limit.
        descriptors_limit: u16,
    },
}

/// Why a kernel cannot be loaded.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is no ELF file that can be used, nor anything else.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// Linux's own format, but not as it should be.
    #[error(transparent)]
    Linux(#[from] LinuxError),
    /// Neither protocol.
    #[error(
        "it has neither a PVH entry (an ELF note of type 18 named Xen) nor a multiboot header in its first 8 KiB"
    )]
    NoProtocol,
    /// A segment is not inside the RAM.
    #[error(
        "its segment for {address:#x} ({size:#x} bytes) does not fit the virtual machine's {memory:#x} bytes of memory"
    )]
    SegmentOutsideRam {
        /// The segment's physical address.
        address: u64,
        /// Bytes in memory.
        size: u64,
        /// Bytes of RAM.
        memory: u64,
    },
    /// The entry lies in no segment.
    #[error("its entry {0:#x} is not in a loaded segment below 4 GiB")]
    EntryOutside(u64),
    /// Not enough RAM behind the kernel.
    #[error("there is no room for {what} ({size:#x} bytes) in the virtual machine's memory: give it more")]
    NoRoom {
        /// What did not fit.
        what: String,
        /// Its size.
        size: u64,
    },
    /// The multiboot header asks for something that is not there.
    #[error("its multiboot header requires {0}, which there is not")]
    MultibootRequires(&'static str),
    /// The memory is not as it was said to be.
    #[error(transparent)]
    OutsideRam(#[from] OutsideRam),
}

/// Loads `boot` into `memory` and says where the first VP begins.
pub fn load(boot: &Boot<'_>, memory: &GuestMemory) -> Result<Entry, LoadError> {
    if linux::header::is_linux(boot.kernel) {
        return linux::load(boot, memory);
    }
    let program = Program::read(boot.kernel)?;
    if let Some(entry) = program.pvh_entry {
        return pvh::load(boot, &program, entry, memory);
    }
    match multiboot::find_header(boot.kernel)? {
        Some(()) => multiboot::load(boot, &program, memory),
        None => Err(LoadError::NoProtocol),
    }
}

/// Copies the segments; the rest of the RAM is zero already.
fn place_segments(program: &Program<'_>, memory: &GuestMemory) -> Result<(), LoadError> {
    for segment in &program.segments {
        let outside = || LoadError::SegmentOutsideRam {
            address: segment.address,
            size: segment.size,
            memory: memory.size(),
        };
        let range = segment.range();
        let ram = memory.ranges();
        let fits = ram
            .iter()
            .any(|ram| range.start >= ram.start && range.end <= ram.end);
        if !fits || range.start < LEGACY_HOLE.end && LEGACY_HOLE.start < range.end {
            return Err(outside());
        }
        memory.write(hypercall_api::address::Gpa(segment.address), segment.bytes)?;
    }
    Ok(())
}

/// Checks that a 32-bit entry lies in a segment.
fn check_entry(program: &Program<'_>, entry: u64) -> Result<u64, LoadError> {
    let inside = program
        .segments
        .iter()
        .any(|segment| segment.range().contains(&entry));
    match inside && entry < 1 << 32 {
        true => Ok(entry),
        false => Err(LoadError::EntryOutside(entry)),
    }
}

/// The memory map: RAM but for the hole below 1 MiB.
pub fn memory_map(memory: &GuestMemory) -> Vec<MemoryMapEntry> {
    let entry = |range: core::ops::Range<u64>, kind| MemoryMapEntry {
        address: range.start,
        size: range.end - range.start,
        kind,
        reserved: 0,
    };
    let mut map = Vec::new();
    for range in memory.ranges() {
        let below = range.start..range.end.min(LEGACY_HOLE.start);
        let hole = range.start.max(LEGACY_HOLE.start)..range.end.min(LEGACY_HOLE.end);
        let above = range.start.max(LEGACY_HOLE.end)..range.end;
        for (part, kind) in [
            (below, MemoryKind::RAM),
            (hole, MemoryKind::RESERVED),
            (above, MemoryKind::RAM),
        ] {
            if !part.is_empty() {
                map.push(entry(part, kind));
            }
        }
    }
    map
}
