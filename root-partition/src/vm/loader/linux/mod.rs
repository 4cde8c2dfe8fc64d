//! Linux's own format, `bzImage`, entered in 64-bit mode: RSI holds the address of the zero page, memory is mapped to
//! itself.
//!
//! The kernel goes where it prefers to be: it would move there anyway before it unpacks itself. Everything else lies
//! high, out of its way.

pub mod header;

#[cfg(test)]
mod tests;

use super::super::memory::{GuestMemory, LEGACY_HOLE};
use super::space::{Space, zero_terminated};
use super::{Boot, Entry, LoadError, Mode, memory_map};
use alloc::vec::Vec;
use header::{BootParameters, ENTRY_64, Image, LinuxError, MAP_ENTRIES, MapEntry};
use hypercall_api::address::{Gpa, PAGE_SIZE};
use zerocopy::{FromZeros, IntoBytes};

/// Loader's number: none was assigned.
const LOADER: u8 = 0xff;
/// The code was loaded above 1 MiB.
const LOADED_HIGH: u8 = 1 << 0;
/// Initial RAM disks of several files begin at multiples of this.
const INITRD_ALIGN: u64 = 4;

/// Page table entries: present, writable; a large page besides.
const TABLE: u64 = 0x3;
const LARGE: u64 = 0x83;
/// GiB that are mapped, one page directory each.
const MAPPED_GIB: u64 = 4;
const LARGE_SIZE: u64 = 2 << 20;

/// 64-bit code at selector 0x10, data at 0x18, as the protocol wants them.
const DESCRIPTORS: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// Loads the kernel of `boot`, whose modules, one behind the other, are its initial RAM disk.
pub fn load(boot: &Boot<'_>, memory: &GuestMemory) -> Result<Entry, LoadError> {
    let image = Image::read(boot.kernel)?;
    let start = image.header.preferred_address.get();
    let end = check_room(&image, memory)?;
    if boot.command_line.len() > image.header.command_line_size.get() as usize {
        return Err(LinuxError::LongCommandLine {
            most: image.header.command_line_size.get(),
            has: boot.command_line.len(),
        }
        .into());
    }
    memory.write(Gpa(start), image.code)?;
    let limit = u64::from(image.header.initrd_max.get()) + 1;
    let mut space = Space::new(memory, alloc::vec![start..end], limit);

    let (initrd, initrd_size) = place_initrd(boot, &mut space, memory)?;
    let mut parameters = BootParameters::new_zeroed();
    parameters.rsdp = boot.rsdp.into();
    parameters.header = image.header;
    parameters.header.loader = LOADER;
    parameters.header.load_flags |= LOADED_HIGH;
    // `Space` gives addresses below 4 GiB.
    parameters.header.initrd = (initrd as u32).into();
    parameters.header.initrd_size = (initrd_size as u32).into();
    let command_line = space.place("the command line", &zero_terminated(boot.command_line))?;
    parameters.header.command_line = (command_line as u32).into();
    let map = memory_map(memory);
    for (into, entry) in parameters.map.iter_mut().zip(&map) {
        *into = MapEntry {
            address: entry.address.into(),
            size: entry.size.into(),
            kind: entry.kind.0.into(),
        };
    }
    parameters.map_entries = map.len().min(MAP_ENTRIES) as u8;
    let zero_page = space.place("the zero page", parameters.as_bytes())?;
    Ok(Entry {
        rip: start + ENTRY_64,
        rax: 0,
        rbx: 0,
        rsi: zero_page,
        mode: Mode::Long {
            page_table: place_page_tables(&mut space)?,
            descriptors: space.place("the descriptor table", DESCRIPTORS.as_bytes())?,
            descriptors_limit: size_of_val(&DESCRIPTORS) as u16 - 1,
        },
    })
}

/// Where the memory ends that the kernel needs at its preferred address.
fn check_room(image: &Image<'_>, memory: &GuestMemory) -> Result<u64, LinuxError> {
    let start = image.header.preferred_address.get();
    let end = start
        .checked_add(image.header.init_size.get().into())
        .filter(|&end| end <= MAPPED_GIB << 30)
        .ok_or(LinuxError::DamagedHeader("it wants to be beyond 4 GiB"))?;
    if start < LEGACY_HOLE.end {
        return Err(LinuxError::DamagedHeader("it wants to be below 1 MiB"));
    }
    let has = memory.ranges().first().map_or(0, |range| range.end);
    match end <= has {
        true => Ok(end),
        false => Err(LinuxError::TooLittleMemory {
            needed: end.div_ceil(1 << 20),
            has: has >> 20,
        }),
    }
}

/// Places the modules one behind the other; their address and size, zeroes where there are none.
fn place_initrd(
    boot: &Boot<'_>,
    space: &mut Space<'_>,
    memory: &GuestMemory,
) -> Result<(u64, u64), LoadError> {
    let aligned = |module: &super::Module<'_>| (module.bytes.len() as u64).next_multiple_of(INITRD_ALIGN);
    let size: u64 = boot.modules.iter().map(aligned).sum();
    if size == 0 {
        return Ok((0, 0));
    }
    let start = space.reserve("the initial RAM disk", size)?;
    let mut address = start;
    for module in boot.modules {
        memory.write(Gpa(address), module.bytes)?;
        address += aligned(module);
    }
    Ok((start, size))
}

/// Tables that map the first [`MAPPED_GIB`] GiB to themselves.
fn place_page_tables(space: &mut Space<'_>) -> Result<u64, LoadError> {
    const WHAT: &str = "the first page tables";
    let per_directory = PAGE_SIZE / 8;
    let mut directories = Vec::new();
    for gib in 0..MAPPED_GIB {
        let pages = (0..per_directory).map(|index| ((gib << 30) + index * LARGE_SIZE) | LARGE);
        let directory: Vec<u64> = pages.collect();
        directories.push(space.place(WHAT, directory.as_bytes())? | TABLE);
    }
    let pointers = space.place(WHAT, directories.as_bytes())?;
    space.place(WHAT, (pointers | TABLE).as_bytes())
}
