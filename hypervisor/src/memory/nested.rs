//! A partition's nested page tables: guest physical to system physical addresses.

use hypercall_api::address::Gpa;

use super::address::{Frame, PageSize, Spa};
use super::frames::FrameSource;
use super::tables::{Format, TableError, Tables};

/// How a partition's accesses to a page are cached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryType {
    /// Memory.
    WriteBack,
    /// Device registers.
    Uncacheable,
}

/// What a partition may do with a page.
///
/// Without `read` there is no access at all, whatever the others say: neither vendor's hardware has write without read, and
/// not all of Intel's has execute without read (SDM 3, 29.3.3.1). Such a page faults, but stays mapped for
/// [`NestedTables::translate`]. Execution is not told apart by privilege: that needs MBEC or GMET.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Reads.
    pub read: bool,
    /// Writes.
    pub write: bool,
    /// Instruction fetches.
    pub execute: bool,
    /// Caching.
    pub memory_type: MemoryType,
}

impl Access {
    /// All of memory.
    pub const ALL: Self = Self {
        read: true,
        write: true,
        execute: true,
        memory_type: MemoryType::WriteBack,
    };
    /// Memory that faults on writes.
    pub const READ_EXECUTE: Self = Self {
        write: false,
        ..Self::ALL
    };
    /// Memory that faults on every access.
    pub const NONE: Self = Self {
        read: false,
        write: false,
        execute: false,
        ..Self::ALL
    };
    /// Device registers.
    pub const DEVICE: Self = Self {
        execute: false,
        memory_type: MemoryType::Uncacheable,
        ..Self::ALL
    };
}

/// What a guest physical address translates to.
pub type Mapping = super::tables::Mapping<Access>;

impl Mapping {
    /// Whether memory lies there that the hypervisor may touch for the guest, not a device's registers.
    #[inline]
    pub fn is_ram(&self) -> bool {
        self.access.memory_type == MemoryType::WriteBack
    }
}

/// AMD nested page tables (APM 2, 15.25.5): long-mode entries in which every access is a user access. Accessed and dirty
/// are set from the start, which saves the processor the writes.
pub enum Npt {}

impl Npt {
    const PRESENT: u64 = 1 << 0;
    const WRITABLE: u64 = 1 << 1;
    const USER: u64 = 1 << 2;
    /// PWT and PCD: entry 3 of the host's PAT, UC as a processor starts.
    const UNCACHEABLE: u64 = 1 << 3 | 1 << 4;
    const ACCESSED: u64 = 1 << 5;
    const DIRTY: u64 = 1 << 6;
    const NO_EXECUTE: u64 = 1 << 63;
}

impl Format for Npt {
    type Access = Access;
    const TABLE: u64 = Self::PRESENT | Self::WRITABLE | Self::USER | Self::ACCESSED;

    fn bits(access: Access) -> u64 {
        let mut bits = Self::ACCESSED | Self::DIRTY;
        if access.memory_type == MemoryType::Uncacheable {
            bits |= Self::UNCACHEABLE;
        }
        if access.read {
            bits |= Self::PRESENT | Self::USER;
        }
        if access.read && access.write {
            bits |= Self::WRITABLE;
        }
        if !(access.read && access.execute) {
            bits |= Self::NO_EXECUTE;
        }
        bits
    }

    #[inline]
    fn access(entry: u64) -> Access {
        Access {
            read: entry & Self::PRESENT != 0,
            write: entry & Self::WRITABLE != 0,
            execute: entry & Self::NO_EXECUTE == 0,
            memory_type: if entry & Self::UNCACHEABLE == 0 {
                MemoryType::WriteBack
            } else {
                MemoryType::Uncacheable
            },
        }
    }
}

/// Intel extended page tables (SDM 3, 29.3.2). A write-back page is write-back whatever the guest's PAT says; a device's
/// may be combined with it, so that a frame buffer can be write-combining (29.3.7.2).
pub enum Ept {}

impl Ept {
    const READ: u64 = 1 << 0;
    const WRITE: u64 = 1 << 1;
    const EXECUTE: u64 = 1 << 2;
    const WRITE_BACK: u64 = 6 << 3;
    const IGNORE_PAT: u64 = 1 << 6;
}

impl Format for Ept {
    type Access = Access;
    const TABLE: u64 = Self::READ | Self::WRITE | Self::EXECUTE;

    fn bits(access: Access) -> u64 {
        let mut bits = match access.memory_type {
            MemoryType::WriteBack => Self::WRITE_BACK | Self::IGNORE_PAT,
            MemoryType::Uncacheable => 0,
        };
        if access.read {
            bits |= Self::READ;
        }
        if access.read && access.write {
            bits |= Self::WRITE;
        }
        if access.read && access.execute {
            bits |= Self::EXECUTE;
        }
        bits
    }

    #[inline]
    fn access(entry: u64) -> Access {
        Access {
            read: entry & Self::READ != 0,
            write: entry & Self::WRITE != 0,
            execute: entry & Self::EXECUTE != 0,
            memory_type: if entry & Self::WRITE_BACK == Self::WRITE_BACK {
                MemoryType::WriteBack
            } else {
                MemoryType::Uncacheable
            },
        }
    }
}

/// The nested page tables of a partition. Whoever takes something away (unmap, protect, map over a mapping) flushes the
/// partition's translations on every processor before relying on it. A failed call has changed nothing.
pub struct NestedTables<F> {
    tables: Tables<F>,
}

impl<F: Format<Access = Access>> NestedTables<F> {
    /// An empty guest physical address space with pages of up to `largest`, which the hardware must have.
    pub fn new(largest: PageSize, source: &mut dyn FrameSource) -> Result<Self, TableError> {
        Ok(Self {
            tables: Tables::new(largest, source)?,
        })
    }

    /// The root table, for the VMCB's nested CR3 or the EPT pointer.
    pub fn root(&self) -> Frame {
        self.tables.root()
    }

    /// Maps one page of `size`; both addresses are multiples of it. What was mapped there is replaced.
    pub fn map(
        &mut self,
        gpa: Gpa,
        spa: Spa,
        size: PageSize,
        access: Access,
        source: &mut dyn FrameSource,
    ) -> Result<(), TableError> {
        for address in [gpa.0, spa.0] {
            if !address.is_multiple_of(size.bytes()) {
                return Err(TableError::Misaligned(address));
            }
        }
        self.tables.map(gpa.0, spa, size.bytes(), access, source)
    }

    /// Maps `size` bytes, whole frames, in the largest pages that alignment allows. What was mapped there is replaced.
    pub fn map_range(
        &mut self,
        gpa: Gpa,
        spa: Spa,
        size: u64,
        access: Access,
        source: &mut dyn FrameSource,
    ) -> Result<(), TableError> {
        self.tables.map(gpa.0, spa, size, access, source)
    }

    /// Changes the access to `size` bytes, whole frames, all of which must be mapped.
    pub fn protect(
        &mut self,
        gpa: Gpa,
        size: u64,
        access: Access,
        source: &mut dyn FrameSource,
    ) -> Result<(), TableError> {
        self.tables.protect(gpa.0, size, access, source)
    }

    /// Unmaps what is mapped of `size` bytes, whole frames.
    pub fn unmap(&mut self, gpa: Gpa, size: u64, source: &mut dyn FrameSource) -> Result<(), TableError> {
        self.tables.unmap(gpa.0, size, source)
    }

    /// What `gpa` is mapped to; the result's `spa` is that of the very byte.
    #[inline]
    pub fn translate(&self, gpa: Gpa) -> Option<Mapping> {
        self.tables.translate(gpa.0)
    }

    /// How many of `count` frames from `gpa` on are mapped as `accepts` wants: those before the first that is not.
    pub fn count_while(&self, gpa: Gpa, count: u64, accepts: impl Fn(Mapping) -> bool) -> u64 {
        self.tables.count_while(gpa.0, count, accepts)
    }

    /// The first GPA from `gpa` on that is mapped.
    pub fn next_mapped(&self, gpa: Gpa) -> Option<Gpa> {
        self.tables.next_mapped(gpa.0).map(Gpa)
    }

    /// Gives every table back to `source`, from which all of them came. No processor may use the tables any more.
    pub fn destroy(self, source: &mut dyn FrameSource) {
        self.tables.destroy(source);
    }
}

#[cfg(test)]
mod tests;
