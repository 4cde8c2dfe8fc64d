//! Four-level translation tables, whatever their entries look like: what [`super::host_paging`], [`super::nested`] and the
//! IOMMU's domains have in common.
//!
//! A change first counts the tables that it will need, lays that many frames aside, and only then begins; so it is done
//! whole or not at all. Entries are single 64-bit stores in an order in which the hardware may walk the tables at any time.
//! Tables are freed only with the whole tree: until the TLB is flushed, a processor may still walk an unhooked one.

use core::marker::PhantomData;

use super::address::{ADDRESS_LIMIT, FRAME_SIZE, Frame, PageSize, Spa};
use super::frames::FrameSource;
use super::table::{ENTRIES, Entry, Spares, Table, index, target};

/// Addresses that four levels translate.
pub const TRANSLATED: u64 = 1 << 48;

/// How a kind of table says what a page may be used for.
pub trait Format {
    /// What a page may be used for.
    type Access: Copy + PartialEq + core::fmt::Debug;

    /// The bits that an entry leading to a table has beside the table's address.
    const TABLE: u64;

    /// A bit that the hardware ignores, set in every page's entry: bit 11, but in VT-d's tables.
    const IN_USE: u64 = 1 << 11;

    /// Called with the entries that were written, before an entry that leads to them is: where the hardware does not snoop
    /// the caches, they must be written back.
    #[inline]
    fn written(_start: Spa, _bytes: u64) {}

    /// The bits of a page with this access; not bit 7, not the address.
    fn bits(access: Self::Access) -> u64;

    /// The access that [`bits`](Self::bits) put into an entry.
    fn access(entry: u64) -> Self::Access;
}

/// Why tables were not changed. They are as they were.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TableError {
    /// The frame source has too few frames.
    #[error("{0} more frames are needed for page tables")]
    OutOfMemory(u64),
    /// An address or a length is not a multiple of the page size.
    #[error("{0:#x} is not aligned to the page size")]
    Misaligned(u64),
    /// Beyond what the tables can translate, or a physical address of more than 52 bits.
    #[error("{size:#x} bytes at {address:#x} are out of range")]
    OutOfRange {
        /// First address.
        address: u64,
        /// Bytes.
        size: u64,
    },
    /// No access can be changed where nothing is mapped.
    #[error("nothing is mapped at {0:#x}")]
    NotMapped(u64),
}

/// What an address translates to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping<A> {
    /// The address itself, translated; not the start of its page.
    pub spa: Spa,
    /// Size of the page that maps it.
    pub size: PageSize,
    /// What the page may be used for.
    pub access: A,
}

/// Addresses in one tree of tables, from `start` up to `end`.
#[derive(Clone, Copy)]
struct Span {
    start: u64,
    end: u64,
}

#[derive(Clone, Copy)]
enum Change<A> {
    /// `distance` is target minus address, wrapping.
    Map {
        distance: u64,
        access: A,
    },
    Protect(A),
    Unmap,
}

/// Bytes that an entry of a table of this level covers.
const fn covered(level: u8) -> u64 {
    FRAME_SIZE << (9 * level)
}

impl Span {
    /// `size` bytes from `address`: whole frames that the tables can translate.
    fn new(address: u64, size: u64) -> Result<Self, TableError> {
        if !(address | size).is_multiple_of(FRAME_SIZE) {
            return Err(TableError::Misaligned(address | size));
        }
        match address.checked_add(size) {
            Some(end) if end <= TRANSLATED => Ok(Self { start: address, end }),
            _ => Err(TableError::OutOfRange { address, size }),
        }
    }

    /// The pieces of the span that the entries of a table of this level cover, with the entry's index.
    fn pieces(self, level: u8) -> impl Iterator<Item = (usize, Self)> {
        let mut start = self.start;
        core::iter::from_fn(move || {
            let piece = Self {
                start,
                end: self.end.min((start | (covered(level) - 1)) + 1),
            };
            start = piece.end;
            (piece.start < piece.end).then(|| (index(piece.start, level), piece))
        })
    }

    /// Whether the span is all that an entry of this level covers.
    fn is_whole(self, level: u8) -> bool {
        self.end - self.start == covered(level)
    }
}

/// A tree of tables. It owns its frames; give them back with [`destroy`](Self::destroy), for dropping it leaks them.
pub struct Tables<F> {
    root: Table,
    largest: u8,
    format: PhantomData<F>,
}

impl<F: Format> Tables<F> {
    /// An empty tree that will use pages of up to `largest`.
    pub fn new(largest: PageSize, source: &mut dyn FrameSource) -> Result<Self, TableError> {
        let root = Table::root(source).ok_or(TableError::OutOfMemory(1))?;
        F::written(root.frame().start(), FRAME_SIZE);
        Ok(Self {
            root,
            largest: largest as u8,
            format: PhantomData,
        })
    }

    /// The frame of the root table.
    pub fn root(&self) -> Frame {
        self.root.frame()
    }

    /// The frame of the table for the first 512 GiB, for hardware that walks three levels. It stays the same for as long as
    /// the tree lives; there is none until something has been mapped below it.
    pub fn three_level_root(&self) -> Option<Frame> {
        match self.root.get(0) {
            Entry::Table(table) => Some(table.frame()),
            _ => None,
        }
    }

    /// Maps `size` bytes at `address` to those at `spa`, in the largest pages that alignment allows. What was mapped there is
    /// replaced.
    pub fn map(
        &mut self,
        address: u64,
        spa: Spa,
        size: u64,
        access: F::Access,
        source: &mut dyn FrameSource,
    ) -> Result<(), TableError> {
        if !spa.is_aligned(FRAME_SIZE) {
            return Err(TableError::Misaligned(spa.0));
        }
        if spa.checked_add(size).is_none_or(|end| end.0 > ADDRESS_LIMIT) {
            return Err(TableError::OutOfRange { address: spa.0, size });
        }
        let change = Change::Map {
            distance: spa.0.wrapping_sub(address),
            access,
        };
        self.change(Span::new(address, size)?, change, source)
    }

    /// Changes the access to `size` bytes at `address`, all of which must be mapped.
    pub fn protect(
        &mut self,
        address: u64,
        size: u64,
        access: F::Access,
        source: &mut dyn FrameSource,
    ) -> Result<(), TableError> {
        self.change(Span::new(address, size)?, Change::Protect(access), source)
    }

    /// Unmaps what is mapped of `size` bytes at `address`.
    pub fn unmap(&mut self, address: u64, size: u64, source: &mut dyn FrameSource) -> Result<(), TableError> {
        self.change(Span::new(address, size)?, Change::Unmap, source)
    }

    /// What `address` is mapped to.
    #[inline]
    pub fn translate(&self, address: u64) -> Option<Mapping<F::Access>> {
        if address >= TRANSLATED {
            return None;
        }
        let (page, level) = self.root.find_page(address)?;
        let size = match level {
            0 => PageSize::Small4K,
            1 => PageSize::Large2M,
            _ => PageSize::Huge1G,
        };
        let spa = Spa(target(page).0 + address % size.bytes());
        Some(Mapping {
            spa,
            size,
            access: F::access(page),
        })
    }

    /// How many of `count` frames from `address` on are mapped as `accepts` wants: those before the first that is not.
    pub fn count_while(&self, address: u64, count: u64, accepts: impl Fn(Mapping<F::Access>) -> bool) -> u64 {
        let mut done = 0;
        while done < count {
            let at = address + done * FRAME_SIZE;
            // A table is looked for once for all that it maps.
            let Some(table) = self.root.find_lowest(at).filter(|_| at < TRANSLATED) else {
                match self.translate(at) {
                    Some(mapping) if accepts(mapping) => done += 1,
                    _ => return done,
                }
                continue;
            };
            for index in index(at, 0)..ENTRIES.min(index(at, 0) + (count - done) as usize) {
                let Entry::Page(page) = table.get(index) else {
                    return done;
                };
                let mapping = Mapping {
                    spa: target(page),
                    size: PageSize::Small4K,
                    access: F::access(page),
                };
                if !accepts(mapping) {
                    return done;
                }
                done += 1;
            }
        }
        done
    }

    /// The first address from `address` on that is mapped.
    pub fn next_mapped(&self, mut address: u64) -> Option<u64> {
        while address < TRANSLATED {
            match self.root.find_entry(address) {
                Ok(_) => return Some(address),
                Err(level) => address = (address / covered(level) + 1) * covered(level),
            }
        }
        None
    }

    /// Frees every table. The caller has made sure that no processor uses them.
    pub fn destroy(self, source: &mut dyn FrameSource) {
        free_below(self.root, source);
        self.root.free(source);
    }

    fn change(
        &mut self,
        span: Span,
        change: Change<F::Access>,
        source: &mut dyn FrameSource,
    ) -> Result<(), TableError> {
        if span.start == span.end {
            return Ok(());
        }
        let needed = self.tables_needed(Entry::Table(self.root), 3, span, change)?;
        let mut spares = Spares::reserve(needed, source).ok_or(TableError::OutOfMemory(needed))?;
        self.apply(self.root, span, change, &mut spares);
        Ok(())
    }

    /// Whether one entry of this level can express the change to all that it covers.
    fn fits(&self, level: u8, span: Span, change: Change<F::Access>) -> bool {
        span.is_whole(level)
            && match change {
                Change::Map { distance, .. } => {
                    level <= self.largest && distance.is_multiple_of(covered(level))
                }
                Change::Protect(_) | Change::Unmap => true,
            }
    }

    /// Tables that `change` will add below `node`, whose entries, if it is no table yet, will all be what it is now.
    /// Goes as deep as there are levels.
    fn tables_needed(
        &self,
        node: Entry,
        level: u8,
        span: Span,
        change: Change<F::Access>,
    ) -> Result<u64, TableError> {
        let protects = matches!(change, Change::Protect(_));
        if level == 0 && !protects {
            return Ok(0);
        }
        let mut needed = 0;
        for (index, piece) in span.pieces(level) {
            let entry = if let Entry::Table(table) = node {
                table.get(index)
            } else {
                node
            };
            match entry {
                Entry::Empty if protects => return Err(TableError::NotMapped(piece.start)),
                Entry::Empty if matches!(change, Change::Unmap) => continue,
                Entry::Table(_) => {}
                Entry::Empty | Entry::Page(_) if self.fits(level, piece, change) => continue,
                Entry::Empty | Entry::Page(_) => needed += 1,
            }
            needed += self.tables_needed(entry, level - 1, piece, change)?;
        }
        Ok(needed)
    }

    /// Makes the change, with the spare tables that were counted for it. Goes as deep as there are levels. `span` is not empty.
    fn apply(&self, table: Table, span: Span, change: Change<F::Access>, spares: &mut Spares) {
        let level = table.level();
        let (first, last) = (index(span.start, level), index(span.end - 1, level));
        let written = || {
            let start = table.frame().start().0 + first as u64 * 8;
            F::written(Spa(start), (last - first + 1) as u64 * 8);
        };
        if let (0, Change::Unmap) = (level, change) {
            table.clear_pages(first, last);
            return written();
        }
        for (index, piece) in span.pieces(level) {
            let entry = table.get(index);
            let child = match (entry, change) {
                (Entry::Table(child), _) => child,
                (Entry::Empty, Change::Unmap | Change::Protect(_)) => continue,
                (Entry::Empty | Entry::Page(_), _) if self.fits(level, piece, change) => {
                    match (change, entry) {
                        (Change::Map { distance, access }, _) => {
                            table.set_page(
                                index,
                                Spa(piece.start.wrapping_add(distance)),
                                F::bits(access) | F::IN_USE,
                            );
                        }
                        (Change::Protect(access), Entry::Page(page)) => {
                            table.set_page(index, target(page), F::bits(access) | F::IN_USE);
                        }
                        _ => table.clear(index),
                    }
                    continue;
                }
                _ => {
                    let child = spares
                        .table_below(table)
                        .expect("`tables_needed` counted this table");
                    if let Entry::Page(page) = entry {
                        split::<F>(page, child);
                    }
                    F::written(child.frame().start(), FRAME_SIZE);
                    table.set_table(index, child, F::TABLE);
                    child
                }
            };
            self.apply(child, piece, change, spares);
        }
        written();
    }
}

/// Fills `child` with the pages that together are `page`, which is of the level above.
fn split<F: Format>(page: u64, child: Table) {
    let bits = F::bits(F::access(page)) | F::IN_USE;
    for index in 0..ENTRIES {
        child.set_page(
            index,
            Spa(target(page).0 + index as u64 * covered(child.level())),
            bits,
        );
    }
}

/// Frees the tables below `table`. Goes as deep as there are levels.
fn free_below(table: Table, source: &mut dyn FrameSource) {
    if table.level() == 0 {
        return;
    }
    for index in 0..ENTRIES {
        if let Entry::Table(child) = table.get(index) {
            free_below(child, source);
            table.clear(index);
            child.free(source);
        }
    }
}
