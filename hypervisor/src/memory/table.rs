//! One page table: a frame of 512 entries that hardware walks while we change it.
//!
//! Long mode, AMD's nested paging, Intel's EPT and VT-d's second stage agree in all that this file needs: the address field,
//! and bit 7 for a page above the lowest level (APM 2, 5.3.3 and 15.25; SDM 3, 29.3.2; VT-d, 9.8). An entry in use is never
//! zero ([`Format::IN_USE`](super::tables::Format::IN_USE)), so that one which gives no access still keeps its target.
#![allow(unsafe_code)]

use core::sync::atomic::{AtomicU64, Ordering};

use super::address::{ADDRESS_LIMIT, FRAME_SIZE, Frame, Spa};
use super::frames::FrameSource;

/// Entries in a table.
pub(super) const ENTRIES: usize = 512;

const ADDRESS: u64 = ADDRESS_LIMIT - FRAME_SIZE;
const LARGE: u64 = 1 << 7;

/// A table and its level: 0 holds 4 KiB pages, 3 is the root. A handle; the tree that it hangs in owns the frame.
#[derive(Clone, Copy)]
pub(super) struct Table {
    frame: Frame,
    level: u8,
}

/// What an entry holds.
#[derive(Clone, Copy)]
pub(super) enum Entry {
    Empty,
    Page(u64),
    Table(Table),
}

/// Index of the entry for `address` in a table of this level.
#[inline]
pub(super) const fn index(address: u64, level: u8) -> usize {
    (address >> (12 + 9 * level)) as usize % ENTRIES
}

/// The physical address that a page's entry leads to.
#[inline]
pub(super) fn target(page: u64) -> Spa {
    Spa(page & ADDRESS)
}

impl Table {
    /// A new, empty root.
    pub(super) fn root(source: &mut dyn FrameSource) -> Option<Self> {
        Some(Self {
            frame: source.allocate()?,
            level: 3,
        })
    }

    pub(super) fn frame(self) -> Frame {
        self.frame
    }

    pub(super) fn level(self) -> u8 {
        self.level
    }

    #[inline]
    fn slot(&self, index: usize) -> &AtomicU64 {
        let slots = self.frame.start().0 as *const [AtomicU64; ENTRIES];
        // SAFETY: the frame came from a `FrameSource`, so it is mapped at its address and only this tree's; we and the
        // hardware access it atomically, and the module that owns the tree drops its handles before it frees the frame.
        let slots = unsafe { &*slots };
        &slots[index % ENTRIES]
    }

    #[inline]
    pub(super) fn get(&self, index: usize) -> Entry {
        let value = self.slot(index).load(Ordering::Relaxed);
        if value == 0 {
            Entry::Empty
        } else if self.level == 0 || value & LARGE != 0 {
            Entry::Page(value)
        } else {
            // Only `set_table` stores such a value.
            Entry::Table(Self {
                frame: Frame::containing(target(value)),
                level: self.level - 1,
            })
        }
    }

    /// The page that maps `address`, and the level of its entry. `self` is a root. Written with constant levels, which the
    /// compiler unrolls: exits wait for it.
    #[inline]
    pub(super) fn find_page(self, address: u64) -> Option<(u64, u8)> {
        let mut frame = self.frame;
        for level in [3, 2, 1, 0] {
            match (Self { frame, level }).get(index(address, level)) {
                Entry::Empty => return None,
                Entry::Page(page) => return Some((page, level)),
                Entry::Table(child) => frame = child.frame,
            }
        }
        None
    }

    /// The table of the lowest level that maps `address`; `None` where a large page does, or nothing. `self` is a root.
    #[inline]
    pub(super) fn find_lowest(self, address: u64) -> Option<Self> {
        let mut table = self;
        while table.level > 0 {
            match table.get(index(address, table.level)) {
                Entry::Table(child) => table = child,
                Entry::Empty | Entry::Page(_) => return None,
            }
        }
        // Said once more, so that the compiler knows it in its callers' loops.
        Some(Self { level: 0, ..table })
    }

    /// Like [`find_page`](Self::find_page), but tells the level of the empty entry where nothing is mapped.
    pub(super) fn find_entry(self, address: u64) -> Result<(u64, u8), u8> {
        let mut table = self;
        loop {
            match table.get(index(address, table.level)) {
                Entry::Empty => return Err(table.level),
                Entry::Page(page) => return Ok((page, table.level)),
                Entry::Table(child) => table = child,
            }
        }
    }

    /// Makes the entry a page; `bits` are the format's access bits, never all zero.
    pub(super) fn set_page(&self, index: usize, target: Spa, bits: u64) {
        debug_assert!(self.level < 3 && bits != 0 && bits & (ADDRESS | LARGE) == 0);
        let large = if self.level > 0 { LARGE } else { 0 };
        self.slot(index)
            .store(target.0 & ADDRESS | bits | large, Ordering::Release);
    }

    /// Makes the entry lead to `child`, whose contents are seen by then.
    pub(super) fn set_table(&self, index: usize, child: Table, bits: u64) {
        assert!(self.level == child.level + 1);
        self.slot(index).store(
            child.frame.start().0 | bits & !LARGE & !ADDRESS,
            Ordering::Release,
        );
    }

    pub(super) fn clear(&self, index: usize) {
        self.slot(index).store(0, Ordering::Release);
    }

    /// Clears entries that lead to no table.
    pub(super) fn clear_pages(&self, first: usize, last: usize) {
        (first..last + 1).for_each(|index| self.slot(index).store(0, Ordering::Release));
    }

    /// Frees the frame; no entry leads to it any more.
    pub(super) fn free(self, source: &mut dyn FrameSource) {
        source.free(self.frame);
    }
}

/// Empty frames laid aside for tables, so that a change which has begun cannot fail. Chained by their first words.
pub(super) struct Spares {
    head: Option<Frame>,
}

impl Spares {
    /// Lays `count` frames aside, or none where there are too few.
    pub(super) fn reserve(count: u64, source: &mut dyn FrameSource) -> Option<Self> {
        let mut spares = Self { head: None };
        for _ in 0..count {
            let Some(frame) = source.allocate() else {
                while let Some(frame) = spares.pop() {
                    source.free(frame);
                }
                return None;
            };
            let next = spares.head.map_or(0, |frame| frame.start().0);
            Table { frame, level: 0 }.slot(0).store(next, Ordering::Relaxed);
            spares.head = Some(frame);
        }
        Some(spares)
    }

    fn pop(&mut self) -> Option<Frame> {
        let frame = self.head?;
        let next = Table { frame, level: 0 }.slot(0).swap(0, Ordering::Relaxed);
        self.head = (next != 0).then(|| Frame::containing(Spa(next)));
        Some(frame)
    }

    /// An empty table one level below `parent`.
    pub(super) fn table_below(&mut self, parent: Table) -> Option<Table> {
        Some(Table {
            frame: self.pop()?,
            level: parent.level.checked_sub(1)?,
        })
    }
}
