//! A domain: what a group of devices can reach, in second-stage page tables (VT-d, 9.8), the form of nested tables.

use super::cache;
use crate::memory::address::{Frame, PageSize, Spa};
use crate::memory::frames::FrameSource;
use crate::memory::tables::{Format, Mapping, TableError, Tables};

/// What devices may do with a page; one of the two at least.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DmaAccess {
    /// Read it.
    pub read: bool,
    /// Write it.
    pub write: bool,
}

impl DmaAccess {
    /// Read and write.
    pub const ALL: Self = Self {
        read: true,
        write: true,
    };
}

/// The format of second-stage tables in legacy mode.
pub enum SecondStage {}

impl SecondStage {
    const READ: u64 = 1 << 0;
    const WRITE: u64 = 1 << 1;
}

impl Format for SecondStage {
    type Access = DmaAccess;
    const TABLE: u64 = Self::READ | Self::WRITE;
    /// Bit 11 is the snoop bit here, reserved where ECAP.SC is 0; bit 52 is ignored.
    const IN_USE: u64 = 1 << 52;

    #[inline]
    fn written(start: Spa, bytes: u64) {
        cache::write_back(start, bytes);
    }

    fn bits(access: DmaAccess) -> u64 {
        (if access.read { Self::READ } else { 0 }) | (if access.write { Self::WRITE } else { 0 })
    }

    fn access(entry: u64) -> DmaAccess {
        DmaAccess {
            read: entry & Self::READ != 0,
            write: entry & Self::WRITE != 0,
        }
    }
}

/// The page tables of a domain. Whoever takes something away invalidates the IOTLB before relying on it.
pub struct AddressSpace {
    tables: Tables<SecondStage>,
    levels: u8,
    limit: u64,
}

impl AddressSpace {
    /// An empty address space of `levels` levels, 3 or 4, and `address_bits` bits.
    pub fn new(
        levels: u8,
        address_bits: u32,
        largest: PageSize,
        source: &mut dyn FrameSource,
    ) -> Result<Self, TableError> {
        let mut tables = Tables::new(largest, source)?;
        if levels == 3 {
            // Makes the table that is the root of a three-level walk.
            let made = tables
                .map(0, Spa(0), PageSize::Small4K.bytes(), DmaAccess::ALL, source)
                .and_then(|()| tables.unmap(0, PageSize::Small4K.bytes(), source));
            if let Err(error) = made {
                tables.destroy(source);
                return Err(error);
            }
        }
        Ok(Self {
            tables,
            levels,
            limit: 1 << address_bits.min(12 + 9 * u32::from(levels)),
        })
    }

    /// The table where the hardware begins, and how a context entry names the number of levels (AW; VT-d, 9.3).
    pub fn root(&self) -> (Frame, u64) {
        match (self.levels, self.tables.three_level_root()) {
            (3, Some(root)) => (root, 1),
            _ => (self.tables.root(), 2),
        }
    }

    /// Addresses from 0 up to this one can be mapped.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Maps `size` bytes at `address` to those at `spa`, in place of what was mapped there.
    pub fn map(
        &mut self,
        address: u64,
        spa: Spa,
        size: u64,
        access: DmaAccess,
        source: &mut dyn FrameSource,
    ) -> Result<(), TableError> {
        if address.checked_add(size).is_none_or(|end| end > self.limit) {
            return Err(TableError::OutOfRange { address, size });
        }
        self.tables.map(address, spa, size, access, source)
    }

    /// Unmaps what is mapped of `size` bytes at `address`.
    pub fn unmap(&mut self, address: u64, size: u64, source: &mut dyn FrameSource) -> Result<(), TableError> {
        self.tables.unmap(address, size, source)
    }

    /// What `address` is mapped to.
    pub fn translate(&self, address: u64) -> Option<Mapping<DmaAccess>> {
        self.tables.translate(address)
    }

    /// The first address from `address` on that is mapped.
    pub fn next_mapped(&self, address: u64) -> Option<u64> {
        self.tables.next_mapped(address)
    }

    /// Gives every table back. No unit may use them any more.
    pub fn destroy(self, source: &mut dyn FrameSource) {
        self.tables.destroy(source);
    }
}

#[cfg(test)]
mod tests;
