//! The machine's memory map: what the firmware says, repaired, and what is carved out of it.
//!
//! Firmware is not trusted to be tidy. Where entries overlap, the stricter kind wins; RAM is clipped inward to whole
//! frames and everything else outward, so that a frame which is RAM here is RAM to its last byte.

use arrayvec::ArrayVec;
use hypercall_api::pvh::{MemoryKind, MemoryMapEntry};

use super::address::{ADDRESS_LIMIT, FRAME_SIZE, Spa, SpaRange};

/// Most ranges that a map holds, and most entries that firmware may give.
pub const CAPACITY: usize = 128;

/// Why a memory map was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MapError {
    /// Firmware or a carve-out needs more than [`CAPACITY`] ranges.
    #[error("the memory map needs more than {CAPACITY} ranges")]
    TooManyRanges,
    /// A range passes the 52 bits of a physical address.
    #[error("{size:#x} bytes at {address:#x} pass the end of the physical address space")]
    OutsideAddressSpace {
        /// First address.
        address: u64,
        /// Bytes.
        size: u64,
    },
}

/// One range of the map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryRange {
    /// Where; whole frames.
    pub range: SpaRange,
    /// What is there.
    pub kind: MemoryKind,
}

/// Ranges in ascending order, disjoint, in whole frames, neighbours of one kind merged.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemoryMap {
    ranges: ArrayVec<MemoryRange, CAPACITY>,
}

impl MemoryMap {
    /// Builds the map from the firmware's entries, in any order.
    pub fn from_firmware(entries: impl IntoIterator<Item = MemoryMapEntry>) -> Result<Self, MapError> {
        let mut claims = ArrayVec::<MemoryRange, CAPACITY>::new();
        for entry in entries {
            if let Some(claim) = clip(entry)? {
                claims.try_push(claim).map_err(|_| MapError::TooManyRanges)?;
            }
        }
        resolve(&claims)
    }

    /// Takes `range`, grown to whole frames, out of RAM by laying `kind` over it; what is there already and stricter stays.
    /// On an error the map is as it was.
    pub fn reserve(&mut self, range: SpaRange, kind: MemoryKind) -> Result<(), MapError> {
        let entry = MemoryMapEntry {
            address: range.start().0,
            size: range.size(),
            kind,
            reserved: 0,
        };
        if let Some(claim) = clip(entry)? {
            let mut claims = self.ranges.clone();
            claims.try_push(claim).map_err(|_| MapError::TooManyRanges)?;
            *self = resolve(&claims)?;
        }
        Ok(())
    }

    /// The ranges in ascending order.
    pub fn ranges(&self) -> &[MemoryRange] {
        &self.ranges
    }

    /// The RAM, in ascending order.
    pub fn ram_ranges(&self) -> impl DoubleEndedIterator<Item = SpaRange> {
        self.ranges
            .iter()
            .filter(|r| r.kind == MemoryKind::RAM)
            .map(|r| r.range)
    }

    /// Bytes of RAM.
    pub fn total_ram(&self) -> u64 {
        self.ram_ranges().map(SpaRange::size).sum()
    }

    /// First address after the last RAM.
    pub fn end_of_ram(&self) -> Spa {
        self.ram_ranges().next_back().map_or(Spa(0), SpaRange::end)
    }

    /// The highest `size` bytes of RAM that start at a multiple of `align` (a power of two, at least a frame), end at or
    /// below `below`, and touch none of `avoiding`. Frame 0 is never given out.
    pub fn find_free(&self, size: u64, align: u64, below: Spa, avoiding: &[SpaRange]) -> Option<SpaRange> {
        let align = align.max(FRAME_SIZE);
        let fit = |ram: SpaRange| {
            let lowest = ram.start().0.max(FRAME_SIZE);
            let mut end = ram.end().min(below).0;
            loop {
                let start = Spa(end.checked_sub(size)?).align_down(align);
                if start.0 < lowest {
                    return None;
                }
                let candidate = SpaRange::sized(start, size)?;
                // Each round ends below one range to avoid, so there are at most as many rounds as ranges.
                match avoiding.iter().find(|taken| taken.overlaps(candidate)) {
                    Some(taken) => end = taken.start().0,
                    None => return Some(candidate),
                }
            }
        };
        self.ram_ranges().rev().find_map(fit)
    }

    /// The map in the form in which it is handed to the root.
    pub fn entries(&self) -> impl Iterator<Item = MemoryMapEntry> {
        self.ranges.iter().map(|r| MemoryMapEntry {
            address: r.range.start().0,
            size: r.range.size(),
            kind: r.kind,
            reserved: 0,
        })
    }
}

/// How strict a kind is; the stricter of two that overlap wins.
fn strictness(kind: MemoryKind) -> u8 {
    match kind {
        MemoryKind::RAM => 0,
        MemoryKind::ACPI => 1,
        MemoryKind::NVS => 2,
        MemoryKind::UNUSABLE => 4,
        _ => 3,
    }
}

/// The whole frames of an entry, or `None` where it has none.
fn clip(entry: MemoryMapEntry) -> Result<Option<MemoryRange>, MapError> {
    let error = MapError::OutsideAddressSpace {
        address: entry.address,
        size: entry.size,
    };
    if entry.size == 0 {
        return Ok(None);
    }
    let range = SpaRange::sized(Spa(entry.address), entry.size).ok_or(error)?;
    if range.end().0 > ADDRESS_LIMIT {
        return Err(error);
    }
    let (range, kind) = match strictness(entry.kind) {
        0 => (range.shrink_to_frames(), entry.kind),
        3 => (range.grow_to_frames().ok_or(error)?, MemoryKind::RESERVED),
        _ => (range.grow_to_frames().ok_or(error)?, entry.kind),
    };
    Ok((!range.is_empty()).then_some(MemoryRange { range, kind }))
}

/// Cuts claims at every boundary, gives each piece to the strictest claim on it, and merges neighbours.
fn resolve(claims: &[MemoryRange]) -> Result<MemoryMap, MapError> {
    let mut boundaries = ArrayVec::<Spa, { 2 * CAPACITY }>::new();
    for claim in claims {
        let both = [claim.range.start(), claim.range.end()];
        boundaries
            .try_extend_from_slice(&both)
            .map_err(|_| MapError::TooManyRanges)?;
    }
    boundaries.sort_unstable();

    let mut map = MemoryMap::default();
    for pair in boundaries.windows(2) {
        let Some(piece) = SpaRange::new(pair[0], pair[1]).filter(|piece| !piece.is_empty()) else {
            continue;
        };
        let over = claims
            .iter()
            .filter(|claim| claim.range.contains_range(piece))
            .map(|claim| claim.kind);
        let Some(kind) = over.max_by_key(|kind| strictness(*kind)) else {
            continue;
        };
        match map.ranges.last_mut() {
            Some(last) if last.kind == kind && last.range.end() == piece.start() => {
                last.range = SpaRange::new(last.range.start(), piece.end()).unwrap_or(last.range);
            }
            _ => {
                let range = MemoryRange { range: piece, kind };
                map.ranges.try_push(range).map_err(|_| MapError::TooManyRanges)?;
            }
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests;
