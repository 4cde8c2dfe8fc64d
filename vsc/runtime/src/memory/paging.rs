//! The page tables: the first 4 GiB one to one. Pages of 4 KiB where the image is, of 2 MiB elsewhere.
#![allow(unsafe_code)]

use super::Image;
use crate::boot;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};
use hypercall_api::pvh::MemoryMapEntry;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
/// Write-through and cache-disable: uncached.
const UNCACHED: u64 = 1 << 3 | 1 << 4;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;

const LARGE_SIZE: u64 = 2 << 20;
/// Tables of 4 KiB pages: they reach up to 16 MiB, and so must the image.
const SMALL_TABLES: usize = 8;
const DIRECTORIES: usize = 4;

type Table = [u64; 512];

#[repr(C, align(4096))]
struct Tables {
    root: Table,
    pointers: Table,
    directories: [Table; DIRECTORIES],
    small: [Table; SMALL_TABLES],
}

struct Shared(UnsafeCell<Tables>);

// SAFETY: the tables are built once, before there is a second processor, and change in `protect` only, a whole entry at a
// time.
unsafe impl Sync for Shared {}

static TABLES: Shared = Shared(UnsafeCell::new(Tables::EMPTY));

/// What may be done with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Nothing.
    None,
    /// Read and execute.
    Code,
    /// Read.
    Constants,
    /// Read and write.
    Data,
    /// Read, write and execute: for code that runs in real mode first.
    All,
    /// Read and write a device's registers.
    Device,
}

impl Access {
    const fn flags(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Code => PRESENT,
            Self::Constants => PRESENT | NO_EXECUTE,
            Self::Data => PRESENT | WRITABLE | NO_EXECUTE,
            Self::All => PRESENT | WRITABLE,
            Self::Device => PRESENT | WRITABLE | NO_EXECUTE | UNCACHED,
        }
    }
}

impl Tables {
    const EMPTY: Self = Self {
        root: [0; 512],
        pointers: [0; 512],
        directories: [[0; 512]; DIRECTORIES],
        small: [[0; 512]; SMALL_TABLES],
    };

    /// Fills the tables; `is_ram` says what a 4 KiB page or a part of a large one is.
    fn fill(&mut self, image: &Image, low_page: Option<u64>, is_ram: impl Fn(u64, u64) -> bool) {
        let table = |table: &Table| table.as_ptr() as u64 | PRESENT | WRITABLE;
        for (index, small) in self.small.iter_mut().enumerate() {
            for (page, entry) in small.iter_mut().enumerate() {
                let address = index as u64 * LARGE_SIZE + page as u64 * 4096;
                *entry = address | small_access(address, image, low_page, &is_ram).flags();
            }
        }
        for index in 0..DIRECTORIES * 512 {
            let address = index as u64 * LARGE_SIZE;
            self.directories[index / 512][index % 512] = match self.small.get(index) {
                Some(small) => table(small),
                None if is_ram(address, LARGE_SIZE) => address | LARGE | Access::Data.flags(),
                None => address | LARGE | Access::Device.flags(),
            };
        }
        for (entry, directory) in self.pointers.iter_mut().zip(&self.directories) {
            *entry = table(directory);
        }
        self.root[0] = table(&self.pointers);
    }
}

fn small_access(
    address: u64,
    image: &Image,
    low_page: Option<u64>,
    is_ram: impl Fn(u64, u64) -> bool,
) -> Access {
    match address {
        0 => Access::None,
        _ if Some(address) == low_page => Access::All,
        _ if (image.start..image.text_end).contains(&address) => Access::Code,
        _ if (image.text_end..image.constants_end).contains(&address) => Access::Constants,
        _ if is_ram(address, 4096) => Access::Data,
        _ => Access::Device,
    }
}

/// Builds the tables and takes them into use.
///
/// # Safety
/// To be called once, by the boot processor; the image must be as `image` says and below 16 MiB.
pub(super) unsafe fn init(map: &[MemoryMapEntry], image: &Image, low_page: Option<u64>) {
    let is_ram = |address: u64, size: u64| {
        boot::ram(map).any(|range| range.start < address + size && range.end > address)
    };
    // SAFETY: nobody else runs, and the processor still uses the boot stub's tables.
    unsafe { (*TABLES.0.get()).fill(image, low_page, is_ram) };
    // SAFETY: the new tables map everything that the stub's do, image and stack included.
    unsafe { load() };
}

/// Physical address of the root table.
pub fn root() -> u64 {
    TABLES.0.get() as u64
}

/// Makes the tables those of the running processor.
///
/// # Safety
/// They must have been built.
unsafe fn load() {
    let frame = PhysFrame::containing_address(x86_64::PhysAddr::new(root()));
    // SAFETY: the caller vouches for the tables.
    unsafe { Cr3::write(frame, Cr3Flags::empty()) };
}

/// Changes what may be done with the 4 KiB page at `address`, below 16 MiB; other processors see it once they flush their
/// TLBs.
///
/// # Safety
/// Nothing may use the page in a way that is no longer allowed.
pub unsafe fn protect(address: u64, access: Access) -> bool {
    let page = (address / 4096) as usize;
    // SAFETY: only entries are changed from here on, each as a whole, and nobody holds a reference to one.
    let entry = unsafe {
        let small: &[[AtomicU64; 512]; SMALL_TABLES] = &*(&raw const (*TABLES.0.get()).small).cast();
        match small.get(page / 512) {
            Some(table) => &table[page % 512],
            None => return false,
        }
    };
    entry.store((page as u64 * 4096) | access.flags(), Ordering::Release);
    x86_64::instructions::tlb::flush(x86_64::VirtAddr::new(address));
    true
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::boxed::Box;

    const IMAGE: Image = Image {
        start: 0x20_0000,
        text_end: 0x20_3000,
        constants_end: 0x20_5000,
        end: 0x20_9000,
    };

    fn filled() -> Box<Tables> {
        let mut tables = Box::new(Tables::EMPTY);
        let is_ram = |address: u64, size: u64| {
            address < 0xa_0000 || (address + size > 0x10_0000 && address < 0x200_0000)
        };
        tables.fill(&IMAGE, Some(0x8000), is_ram);
        tables
    }

    fn small(tables: &Tables, address: u64) -> u64 {
        tables.small[(address / LARGE_SIZE) as usize][(address / 4096 % 512) as usize]
    }

    #[test]
    fn nothing_is_both_writable_and_executable_but_the_start_page() {
        let tables = filled();
        let entries = tables.small.as_flattened().iter();
        let large = tables.directories.as_flattened().iter().skip(SMALL_TABLES);
        let open = |entry: &&u64| **entry & (PRESENT | WRITABLE) == 3 && **entry & NO_EXECUTE == 0;
        let open: std::vec::Vec<_> = entries.chain(large).filter(open).collect();
        assert_eq!(open, [&(0x8000 | PRESENT | WRITABLE)]);
    }

    #[test]
    fn the_image_is_mapped_by_its_parts() {
        let tables = filled();
        assert_eq!(small(&tables, 0x20_2000), 0x20_2000 | PRESENT);
        assert_eq!(small(&tables, 0x20_4000), 0x20_4000 | PRESENT | NO_EXECUTE);
        assert_eq!(
            small(&tables, 0x20_5000),
            0x20_5000 | PRESENT | WRITABLE | NO_EXECUTE
        );
        assert_eq!(small(&tables, 0), 0);
    }

    #[test]
    fn what_is_no_ram_is_uncached() {
        let tables = filled();
        assert_ne!(small(&tables, 0xb_8000) & UNCACHED, 0);
        let apic = tables.directories[3][503];
        assert_eq!(
            apic,
            0xfee0_0000 | LARGE | PRESENT | WRITABLE | NO_EXECUTE | UNCACHED
        );
        assert_eq!(tables.directories[0][8] & UNCACHED, 0);
    }
}
