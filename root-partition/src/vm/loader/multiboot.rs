//! Multiboot 1 (Multiboot Specification 0.6.96) for ELF files: EAX holds a magic number, EBX the address of the
//! information.

use super::super::memory::{GuestMemory, LEGACY_HOLE};
use super::program::Program;
use super::space::{Space, zero_terminated};
use super::{Boot, Entry, LoadError, Mode, check_entry, memory_map, place_segments};
use alloc::format;
use alloc::vec::Vec;
use hypercall_api::address::Gpa;
use zerocopy::{Immutable, IntoBytes};

/// First word of the header.
pub const HEADER_MAGIC: u32 = 0x1bad_b002;
/// EAX at the entry.
pub const LOADER_MAGIC: u32 = 0x2bad_b002;
/// The header lies in so many bytes, aligned to 4.
const HEADER_LIMIT: usize = 8192;

/// Header flag: modules on page boundaries, which they always are.
const ALIGN_MODULES: u32 = 1 << 0;
/// Header flag: memory information, which there always is.
const MEMORY_INFORMATION: u32 = 1 << 1;
/// Header flag: a video mode.
const VIDEO_MODE: u32 = 1 << 2;
/// Flags of which a loader must know each.
const MANDATORY: u32 = 0xffff;

/// Memory sizes, command line, modules, memory map, loader's name are given.
const INFO_FLAGS: u32 = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9;

/// The information, up to its last field that is given.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, IntoBytes, Immutable)]
struct Information {
    flags: u32,
    memory_lower_kib: u32,
    memory_upper_kib: u32,
    boot_device: u32,
    command_line: u32,
    module_count: u32,
    modules: u32,
    symbols: [u32; 4],
    memory_map_length: u32,
    memory_map: u32,
    drives: [u32; 2],
    configuration: u32,
    loader_name: u32,
    rest: [u32; 13],
}
const _: () = assert!(size_of::<Information>() == 120);

#[repr(C)]
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
struct ModuleEntry {
    start: u32,
    end: u32,
    command_line: u32,
    reserved: u32,
}

/// A memory map entry: `size` does not count itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
struct MapEntry {
    size: u32,
    address: [u32; 2],
    length: [u32; 2],
    kind: u32,
}
const _: () = assert!(size_of::<MapEntry>() == 24);

/// Looks for a header in `file`; an error where it requires what cannot be given.
pub fn find_header(file: &[u8]) -> Result<Option<()>, LoadError> {
    let head = &file[..file.len().min(HEADER_LIMIT)];
    for words in head.chunks_exact(4).map(word).collect::<Vec<_>>().windows(3) {
        let [magic, flags, checksum] = *words else {
            continue;
        };
        if magic != HEADER_MAGIC || magic.wrapping_add(flags).wrapping_add(checksum) != 0 {
            continue;
        }
        if flags & VIDEO_MODE != 0 {
            return Err(LoadError::MultibootRequires("a video mode"));
        }
        if flags & MANDATORY & !(ALIGN_MODULES | MEMORY_INFORMATION) != 0 {
            return Err(LoadError::MultibootRequires(
                "a feature that version 0.6.96 does not know",
            ));
        }
        return Ok(Some(()));
    }
    Ok(None)
}

fn word(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_le_bytes)
}

/// Loads `program`, which has a header.
pub fn load(boot: &Boot<'_>, program: &Program<'_>, memory: &GuestMemory) -> Result<Entry, LoadError> {
    place_segments(program, memory)?;
    let rip = check_entry(program, program.entry)?;
    let mut space = Space::new(memory, program.taken(), u64::MAX);
    let mut modules = Vec::new();
    for (index, module) in boot.modules.iter().enumerate() {
        let name = format!("module {} ('{}')", index + 1, module.command_line);
        // `Space` gives addresses below 4 GiB.
        let start = space.place(&name, module.bytes)? as u32;
        modules.push(ModuleEntry {
            start,
            end: start + module.bytes.len() as u32,
            command_line: space.place(&name, &zero_terminated(module.command_line))? as u32,
            reserved: 0,
        });
    }
    let map: Vec<MapEntry> = memory_map(memory)
        .iter()
        .map(|entry| MapEntry {
            size: size_of::<MapEntry>() as u32 - 4,
            address: halves(entry.address),
            length: halves(entry.size),
            kind: entry.kind.0,
        })
        .collect();
    let low_end = memory.ranges().first().map_or(0, |range| range.end);
    let information = Information {
        flags: INFO_FLAGS,
        memory_lower_kib: (LEGACY_HOLE.start.min(low_end) >> 10) as u32,
        memory_upper_kib: (low_end.saturating_sub(LEGACY_HOLE.end) >> 10) as u32,
        command_line: space.place("the command line", &zero_terminated(boot.command_line))? as u32,
        module_count: modules.len() as u32,
        modules: space.place("the module list", modules.as_bytes())? as u32,
        memory_map_length: map.as_bytes().len() as u32,
        memory_map: space.place("the memory map", map.as_bytes())? as u32,
        loader_name: space.place("the loader's name", &zero_terminated("Partita"))? as u32,
        ..Information::default()
    };
    let address = space.reserve("the multiboot information", size_of::<Information>() as u64)?;
    memory.write_value(Gpa(address), &information)?;
    Ok(Entry {
        rip,
        rax: LOADER_MAGIC.into(),
        rbx: address,
        rsi: 0,
        mode: Mode::Protected,
    })
}

const fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}
