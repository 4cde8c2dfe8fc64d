//! The hypervisor's own page tables: identity, W^X, with holes where nothing may be touched.

use super::address::{FRAME_SIZE, Frame, PageSize, SpaRange};
use super::frames::FrameSource;
use super::tables::{Format, Mapping, TableError, Tables};

/// What a range of the hypervisor's address space is for. Nothing is both writable and executable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protection {
    /// Code: read and execute.
    Text,
    /// Constants: read.
    ReadOnly,
    /// Memory: read and write.
    Data,
    /// Registers: read and write, uncacheable.
    Device,
}

/// Long-mode entries (APM 2, 5.3.3). Accessed and dirty are set from the start, which saves the processor the writes.
enum LongMode {}

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
/// With the PAT that a processor starts with, both together mean UC.
const UNCACHEABLE: u64 = 1 << 3 | 1 << 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const NO_EXECUTE: u64 = 1 << 63;

impl Format for LongMode {
    type Access = Protection;
    const TABLE: u64 = PRESENT | WRITABLE | ACCESSED;

    fn bits(protection: Protection) -> u64 {
        PRESENT
            | ACCESSED
            | match protection {
                Protection::Text => 0,
                Protection::ReadOnly => NO_EXECUTE,
                Protection::Data => WRITABLE | DIRTY | NO_EXECUTE,
                Protection::Device => WRITABLE | DIRTY | NO_EXECUTE | UNCACHEABLE,
            }
    }

    fn access(entry: u64) -> Protection {
        match (
            entry & WRITABLE != 0,
            entry & UNCACHEABLE != 0,
            entry & NO_EXECUTE != 0,
        ) {
            (true, true, _) => Protection::Device,
            (true, false, _) => Protection::Data,
            (false, _, true) => Protection::ReadOnly,
            (false, _, false) => Protection::Text,
        }
    }
}

/// The tables of the hypervisor's address space.
///
/// Changes after [`root`](Self::root) was loaded into CR3 need `invlpg` or a reload, on every processor, by the caller.
pub struct HostPaging {
    tables: Tables<LongMode>,
}

impl HostPaging {
    /// An empty address space; with 1 GiB pages if the processor has them (CPUID 8000_0001h EDX bit 26).
    pub fn new(has_1g_pages: bool, source: &mut dyn FrameSource) -> Result<Self, TableError> {
        let largest = if has_1g_pages {
            PageSize::Huge1G
        } else {
            PageSize::Large2M
        };
        Ok(Self {
            tables: Tables::new(largest, source)?,
        })
    }

    /// Maps `range`, whole frames, at its own address, in place of what was there.
    pub fn map(
        &mut self,
        range: SpaRange,
        protection: Protection,
        source: &mut dyn FrameSource,
    ) -> Result<(), TableError> {
        self.tables
            .map(range.start().0, range.start(), range.size(), protection, source)
    }

    /// Makes a hole of `frame`, so that touching it faults.
    pub fn unmap_guard(&mut self, frame: Frame, source: &mut dyn FrameSource) -> Result<(), TableError> {
        self.tables.unmap(frame.start().0, FRAME_SIZE, source)
    }

    /// How `address` is mapped.
    pub fn translate(&self, address: u64) -> Option<Mapping<Protection>> {
        self.tables.translate(address)
    }

    /// The root table, for CR3.
    pub fn root(&self) -> Frame {
        self.tables.root()
    }
}

#[cfg(test)]
mod tests {
    use super::super::address::Spa;
    use super::super::frames::tests::TestFrames;
    use super::*;

    const ALL: [Protection; 4] = [
        Protection::Text,
        Protection::ReadOnly,
        Protection::Data,
        Protection::Device,
    ];

    fn range(start: u64, end: u64) -> SpaRange {
        SpaRange::new(Spa(start), Spa(end)).unwrap()
    }

    #[test]
    fn nothing_is_writable_and_executable() {
        for protection in ALL {
            let bits = LongMode::bits(protection);
            assert!(bits & WRITABLE == 0 || bits & NO_EXECUTE != 0);
            assert_eq!(LongMode::access(bits), protection);
        }
    }

    #[test]
    fn memory_is_mapped_at_its_own_address_in_the_largest_pages() {
        let mut test = TestFrames::new(16);
        let frames = &mut test.allocator;
        let mut paging = HostPaging::new(true, frames).unwrap();
        paging
            .map(range(0x1000, 3 << 30), Protection::Data, frames)
            .unwrap();
        assert_eq!(paging.translate(0xfff), None);
        for (address, size) in [
            (0x1fff, PageSize::Small4K),
            (0x20_0000, PageSize::Large2M),
            (0x4000_0123, PageSize::Huge1G),
        ] {
            let expected = Mapping {
                spa: Spa(address),
                size,
                access: Protection::Data,
            };
            assert_eq!(paging.translate(address), Some(expected));
        }
        assert_eq!(paging.translate(3 << 30), None);
    }

    #[test]
    fn without_1_gib_pages_none_are_used() {
        let mut test = TestFrames::new(16);
        let frames = &mut test.allocator;
        let mut paging = HostPaging::new(false, frames).unwrap();
        paging.map(range(0, 1 << 30), Protection::Data, frames).unwrap();
        assert_eq!(paging.translate(0).map(|m| m.size), Some(PageSize::Large2M));
    }

    #[test]
    fn a_guard_is_the_only_hole_in_the_page_that_it_was_cut_from() {
        let mut test = TestFrames::new(16);
        let frames = &mut test.allocator;
        let mut paging = HostPaging::new(true, frames).unwrap();
        paging.map(range(0, 1 << 30), Protection::Data, frames).unwrap();
        paging
            .unmap_guard(Frame::containing(Spa(0x12_3000)), frames)
            .unwrap();
        assert_eq!(paging.translate(0x12_3fff), None);
        for address in [0x12_2fff, 0x12_4000, 0x20_0000, (1 << 30) - 1] {
            assert_eq!(paging.translate(address).map(|m| m.spa), Some(Spa(address)));
        }
    }

    #[test]
    fn an_image_mapped_over_memory_gets_its_own_protection() {
        let mut test = TestFrames::new(16);
        let frames = &mut test.allocator;
        let mut paging = HostPaging::new(true, frames).unwrap();
        paging.map(range(0, 1 << 30), Protection::Data, frames).unwrap();
        paging
            .map(range(0x20_0000, 0x20_3000), Protection::Text, frames)
            .unwrap();
        let at = |address| paging.translate(address).map(|m| m.access);
        assert_eq!(at(0x20_2fff), Some(Protection::Text));
        assert_eq!(at(0x20_3000), Some(Protection::Data));
    }
}
