//! Reading what firmware and boot loaders left in memory.
#![allow(unsafe_code)]

use core::slice;

use zerocopy::FromBytes;

use super::address::{Spa, SpaRange};

/// Physical memory from which boot data and ACPI tables are read. Every address in it comes from a stranger.
pub trait PhysicalMemory {
    /// `size` bytes at `address`, or `None` where not all of them can be read.
    fn bytes(&self, address: Spa, size: u64) -> Option<&[u8]>;

    /// A value at `address`, which need not be aligned.
    fn read<T: FromBytes>(&self, address: Spa) -> Option<T> {
        T::read_from_bytes(self.bytes(address, size_of::<T>() as u64)?).ok()
    }
}

/// A value at `offset` of `bytes`, which need not be aligned, or `None` past their end.
pub fn field<T: FromBytes>(bytes: &[u8], offset: usize) -> Option<T> {
    T::read_from_prefix(bytes.get(offset..)?)
        .ok()
        .map(|(value, _)| value)
}

/// The machine's own memory, mapped at its physical address.
#[derive(Clone, Copy, Debug)]
pub struct IdentityMapped<'a> {
    readable: &'a [SpaRange],
}

impl<'a> IdentityMapped<'a> {
    /// Memory of which `readable` may be read. One read stays inside one range.
    ///
    /// # Safety
    /// While this value or what it lent lives, the ranges are mapped at their own addresses, and nobody writes to them.
    pub const unsafe fn new(readable: &'a [SpaRange]) -> Self {
        Self { readable }
    }
}

impl PhysicalMemory for IdentityMapped<'_> {
    fn bytes(&self, address: Spa, size: u64) -> Option<&[u8]> {
        let wanted = SpaRange::sized(address, size).filter(|wanted| !wanted.is_empty() && address.0 != 0)?;
        let length = usize::try_from(size)
            .ok()
            .filter(|length| *length <= isize::MAX as usize)?;
        if !self.readable.iter().any(|range| range.contains_range(wanted)) {
            return None;
        }
        // SAFETY: the bytes lie in a range that `new`'s caller vouches for, and not at the null pointer.
        Some(unsafe { slice::from_raw_parts(address.0 as *const u8, length) })
    }
}

/// Pieces of memory for tests, each at any address.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct FakeMemory {
    pieces: Vec<(u64, Vec<u8>)>,
}

#[cfg(test)]
impl FakeMemory {
    pub(crate) fn put(&mut self, address: u64, bytes: impl Into<Vec<u8>>) -> &mut Self {
        self.pieces.push((address, bytes.into()));
        self
    }
}

#[cfg(test)]
impl PhysicalMemory for FakeMemory {
    fn bytes(&self, address: Spa, size: u64) -> Option<&[u8]> {
        self.pieces.iter().find_map(|(start, bytes)| {
            let offset = usize::try_from(address.0.checked_sub(*start)?).ok()?;
            bytes.get(offset..offset.checked_add(usize::try_from(size).ok()?)?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_in_one_readable_range_is_read() {
        let bytes = [1u8, 2, 3, 4, 5, 6, 7, 8];
        let start = Spa(bytes.as_ptr().expose_provenance() as u64);
        let readable = [SpaRange::sized(start, 8).unwrap()];
        // SAFETY: `bytes` outlives `memory` and is not written.
        let memory = unsafe { IdentityMapped::new(&readable) };
        assert_eq!(memory.read::<u32>(Spa(start.0 + 1)), Some(0x0504_0302));
        assert_eq!(memory.read::<u64>(Spa(start.0 + 1)), None);
        assert_eq!(memory.bytes(Spa(start.0 + 4), u64::MAX - start.0 - 4), None);
        assert_eq!(memory.bytes(Spa(0), 1), None);
    }

    #[test]
    fn a_field_past_the_end_is_not_read() {
        assert_eq!(field::<u16>(&[1, 2, 3], 1), Some(0x0302));
        assert_eq!(field::<u16>(&[1, 2, 3], 2), None);
        assert_eq!(field::<u16>(&[1, 2, 3], usize::MAX), None);
    }
}
