//! Four-level page tables that map addresses to themselves, or pages one by one to frames (APM 2, 5.3). Pure: where tables lie is the caller's business.

use core::ops::Range;

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const WRITE_THROUGH: u64 = 1 << 3;
const CACHE_DISABLE: u64 = 1 << 4;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Addresses that four levels reach in their lower half.
pub const ADDRESS_LIMIT: u64 = 1 << 47;

/// What may be done with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access(u64);

impl Access {
    /// Read and execute.
    pub const CODE: Self = Self(PRESENT);
    /// Read.
    pub const CONSTANTS: Self = Self(PRESENT | NO_EXECUTE);
    /// Read and write.
    pub const DATA: Self = Self(PRESENT | WRITE | NO_EXECUTE);
    /// Read and write, uncached (PAT entry 3 after reset).
    pub const DEVICE: Self = Self(PRESENT | WRITE | WRITE_THROUGH | CACHE_DISABLE | NO_EXECUTE);
    /// Nothing.
    pub const NONE: Self = Self(0);
}

/// Memory for tables.
pub trait TableMemory {
    /// Address of a zeroed page, `None` where there is none left.
    fn allocate(&mut self) -> Option<u64>;
    /// Entry `index` of the table at `table`, which [`allocate`](Self::allocate) gave.
    fn entry(&mut self, table: u64, index: usize) -> &mut u64;
}

/// Why a range could not be mapped. Part of it may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PagingError {
    /// No memory for a table.
    #[error("no memory is left for page tables")]
    OutOfMemory,
    /// The range is not page-aligned or past the address space.
    #[error("{start:#x}..{end:#x} cannot be mapped")]
    BadRange {
        /// First address.
        start: u64,
        /// First address after it.
        end: u64,
    },
}

/// A tree of tables.
#[derive(Debug)]
pub struct PageTables<M> {
    memory: M,
    root: u64,
    gib_pages: bool,
}

impl<M: TableMemory> PageTables<M> {
    /// An empty tree. `gib_pages`: the processor has 1 GiB pages.
    pub fn new(mut memory: M, gib_pages: bool) -> Result<Self, PagingError> {
        let root = memory.allocate().ok_or(PagingError::OutOfMemory)?;
        Ok(Self {
            memory,
            root,
            gib_pages,
        })
    }

    /// Address of the top table, for CR3.
    pub const fn root(&self) -> u64 {
        self.root
    }

    /// Gives the pages of `range` the access `access`, with the largest pages that fit, in place of what they had.
    pub fn map(&mut self, range: Range<u64>, access: Access) -> Result<(), PagingError> {
        if !range.start.is_multiple_of(4096) || !range.end.is_multiple_of(4096) || range.end > ADDRESS_LIMIT {
            return Err(PagingError::BadRange {
                start: range.start,
                end: range.end,
            });
        }
        let mut address = range.start;
        while address < range.end {
            address += self.map_one(address, range.end, access)?;
        }
        Ok(())
    }

    /// Maps one page at `address` that ends by `end`, and returns its size.
    fn map_one(&mut self, address: u64, end: u64, access: Access) -> Result<u64, PagingError> {
        let mut table = self.root;
        for level in (1..4).rev() {
            let index = index(address, level);
            let entry = *self.memory.entry(table, index);
            let is_table = entry & PRESENT != 0 && entry & LARGE == 0;
            let size = page_size(level);
            let fits = address.is_multiple_of(size) && size <= end - address;
            if fits && !is_table && (level == 1 || level == 2 && self.gib_pages) {
                *self.memory.entry(table, index) = leaf(address, access, LARGE);
                return Ok(size);
            }
            table = match is_table {
                true => entry & ADDRESS,
                false => self.split(table, index, entry, level)?,
            };
        }
        *self.memory.entry(table, index(address, 0)) = leaf(address, access, 0);
        Ok(page_size(0))
    }

    /// Maps the one page at `address` to the frame at `frame`, in place of what it had.
    pub fn map_page(&mut self, address: u64, frame: u64, access: Access) -> Result<(), PagingError> {
        let end = address.saturating_add(4096);
        if !address.is_multiple_of(4096) || !frame.is_multiple_of(4096) || end > ADDRESS_LIMIT {
            return Err(PagingError::BadRange { start: address, end });
        }
        let mut table = self.root;
        for level in (1..4).rev() {
            let index = index(address, level);
            let entry = *self.memory.entry(table, index);
            table = match entry & PRESENT != 0 && entry & LARGE == 0 {
                true => entry & ADDRESS,
                false => self.split(table, index, entry, level)?,
            };
        }
        *self.memory.entry(table, index(address, 0)) = leaf(frame, access, 0);
        Ok(())
    }

    /// Unmaps the 2 MiB around `address`, and returns the table that mapped their pages, if there was one. It may be used for
    /// something else once no processor has it in its TLB.
    pub fn remove_table(&mut self, address: u64) -> Option<u64> {
        let mut table = self.root;
        for level in [3, 2] {
            let entry = *self.memory.entry(table, index(address, level));
            if entry & PRESENT == 0 || entry & LARGE != 0 {
                return None;
            }
            table = entry & ADDRESS;
        }
        let entry = core::mem::take(self.memory.entry(table, index(address, 1)));
        (entry & PRESENT != 0 && entry & LARGE == 0).then_some(entry & ADDRESS)
    }

    /// Puts a table in the place of an entry of `level` that is a large page or empty; what it mapped stays mapped.
    fn split(&mut self, table: u64, slot: usize, entry: u64, level: u32) -> Result<u64, PagingError> {
        let lower = self.memory.allocate().ok_or(PagingError::OutOfMemory)?;
        if entry & PRESENT != 0 {
            let large = if level > 1 { LARGE } else { 0 };
            for index in 0..512 {
                let address = (entry & ADDRESS) + index as u64 * page_size(level - 1);
                *self.memory.entry(lower, index) = entry & !(ADDRESS | LARGE) | address | large;
            }
        }
        *self.memory.entry(table, slot) = lower | PRESENT | WRITE;
        Ok(lower)
    }

    /// The access of the page at `address`.
    pub fn access(&mut self, address: u64) -> Access {
        let mut table = self.root;
        for level in (0..4).rev() {
            let entry = *self.memory.entry(table, index(address, level));
            if entry & PRESENT == 0 {
                return Access::NONE;
            }
            if level == 0 || entry & LARGE != 0 {
                return Access(entry & Access::DEVICE.0);
            }
            table = entry & ADDRESS;
        }
        Access::NONE
    }
}

/// Bytes that an entry of `level` maps; level 0 holds 4 KiB pages.
const fn page_size(level: u32) -> u64 {
    4096 << (9 * level)
}

const fn index(address: u64, level: u32) -> usize {
    (address >> (12 + 9 * level)) as usize & 511
}

const fn leaf(address: u64, access: Access, large: u64) -> u64 {
    match access.0 {
        0 => 0,
        bits => address | bits | large,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    /// Tables whose address is their number times 4096, from 1 on.
    #[derive(Default, Debug)]
    struct Tables(Vec<[u64; 512]>);

    impl TableMemory for Tables {
        fn allocate(&mut self) -> Option<u64> {
            self.0.push([0; 512]);
            (self.0.len() < 64).then_some(self.0.len() as u64 * 4096)
        }
        fn entry(&mut self, table: u64, index: usize) -> &mut u64 {
            &mut self.0[(table / 4096 - 1) as usize][index]
        }
    }

    impl PageTables<Tables> {
        /// Where a page of 4 KiB leads.
        fn frame(&mut self, address: u64) -> Option<u64> {
            let mut table = self.root;
            for level in (0..4).rev() {
                table = *self.memory.entry(table, index(address, level));
                if table & PRESENT == 0 {
                    return None;
                }
                table &= ADDRESS;
            }
            Some(table)
        }
    }

    fn tables(gib_pages: bool) -> PageTables<Tables> {
        PageTables::new(Tables::default(), gib_pages).unwrap()
    }

    #[test]
    fn what_is_not_mapped_has_no_access() {
        let mut tables = tables(true);
        tables.map(0x1000..4 * GIB, Access::DATA).unwrap();
        assert_eq!(tables.access(0), Access::NONE);
        assert_eq!(tables.access(0x1000), Access::DATA);
        assert_eq!(tables.access(4 * GIB - 1), Access::DATA);
        assert_eq!(tables.access(4 * GIB), Access::NONE);
    }

    #[test]
    fn large_pages_keep_the_tables_few() {
        let mut with = tables(true);
        with.map(0..64 * GIB, Access::DATA).unwrap();
        assert_eq!(with.memory.0.len(), 2);
        let mut without = tables(false);
        without.map(0..8 * GIB, Access::DATA).unwrap();
        assert_eq!(without.memory.0.len(), 2 + 8);
    }

    #[test]
    fn a_page_inside_a_large_one_changes_alone() {
        let mut tables = tables(true);
        tables.map(0..4 * GIB, Access::DATA).unwrap();
        tables.map(16 * MIB..16 * MIB + 4096, Access::CODE).unwrap();
        tables
            .map(16 * MIB + 4096..16 * MIB + 8192, Access::NONE)
            .unwrap();
        assert_eq!(tables.access(16 * MIB - 1), Access::DATA);
        assert_eq!(tables.access(16 * MIB), Access::CODE);
        assert_eq!(tables.access(16 * MIB + 4096), Access::NONE);
        assert_eq!(tables.access(16 * MIB + 8192), Access::DATA);
        assert_eq!(tables.access(2 * GIB), Access::DATA);
    }

    #[test]
    fn pages_from_anywhere_are_mapped_in_a_row_and_their_table_comes_back() {
        let mut tables = tables(true);
        tables.map(0..4 * GIB, Access::DATA).unwrap();
        let base = 96 << 40;
        for (page, frame) in [7 * MIB, 3 * MIB, 5 * MIB].into_iter().enumerate() {
            tables
                .map_page(base + page as u64 * 4096, frame, Access::DATA)
                .unwrap();
        }
        assert_eq!(tables.frame(base + 4096), Some(3 * MIB));
        assert_eq!(tables.access(base + 3 * 4096), Access::NONE);
        let used = tables.memory.0.len();
        assert_eq!(tables.remove_table(base + 5 * 4096), Some(used as u64 * 4096));
        assert_eq!(tables.remove_table(base), None);
        assert_eq!(tables.access(base), Access::NONE);
        assert_eq!(tables.access(3 * MIB), Access::DATA);
        assert!(tables.map_page(base + 1, 0, Access::DATA).is_err());
    }

    #[test]
    fn ranges_that_cannot_be_mapped_are_refused() {
        let mut tables = tables(true);
        for range in [1..4096, 0..4095, 0..ADDRESS_LIMIT + 4096] {
            assert!(matches!(
                tables.map(range, Access::DATA),
                Err(PagingError::BadRange { .. })
            ));
        }
    }

    #[test]
    fn running_out_of_tables_is_an_error() {
        let mut tables = tables(false);
        assert_eq!(
            tables.map(0..512 * GIB, Access::DATA),
            Err(PagingError::OutOfMemory)
        );
    }

    proptest! {
        #[test]
        fn a_page_has_the_access_it_was_last_given(
            writes in prop::collection::vec((0u64..3000, 1u64..2000, 0usize..4), 1..8),
            gib_pages: bool,
            probe in 0u64..5000,
        ) {
            let kinds = [Access::CODE, Access::CONSTANTS, Access::DATA, Access::NONE];
            let mut tables = tables(gib_pages);
            let mut expected = Access::NONE;
            for (start, length, kind) in writes {
                tables.map(start * 4096..(start + length) * 4096, kinds[kind]).unwrap();
                if (start..start + length).contains(&probe) {
                    expected = kinds[kind];
                }
            }
            prop_assert_eq!(tables.access(probe * 4096), expected);
        }
    }
}
