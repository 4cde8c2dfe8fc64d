//! A child's RAM: frames of the root, at guest physical addresses, copied out of and into but never referred to.
#![allow(unsafe_code)]

use alloc::vec::Vec;
use core::arch::asm;
use core::ops::Range;
use hypercall_api::address::Gpa;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Where RAM below the devices' addresses ends.
pub const LOW_END: u64 = 3 << 30;
/// Where the rest of the RAM begins.
pub const HIGH_START: u64 = 4 << 30;
/// Addresses below 1 MiB that are RAM but not for use: video memory and firmware on a PC.
pub const LEGACY_HOLE: Range<u64> = 0xa_0000..0x10_0000;

/// An access to guest memory where there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the guest has no memory at {address:#x} for {length:#x} bytes")]
pub struct OutsideRam {
    /// First address.
    pub address: u64,
    /// Bytes.
    pub length: u64,
}

/// Frames in a row that are RAM of a child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Extent {
    gpa: u64,
    host: u64,
    size: u64,
}

/// A child's RAM. The child may read and write it at any moment, so no reference to it is ever made.
#[derive(Debug, Default)]
pub struct GuestMemory {
    /// Sorted by address, without overlap.
    extents: Vec<Extent>,
}

impl GuestMemory {
    /// No RAM yet.
    pub const fn new() -> Self {
        Self { extents: Vec::new() }
    }

    /// Adds the `size` bytes at the root's address `host`, zeroed, at the guest's next free address, and returns that.
    /// No extent may cross [`LOW_END`], which is a multiple of 2 MiB.
    ///
    /// # Safety
    /// The range is RAM that the root has mapped and that it uses for nothing else until [`take`](Self::take) gives it back.
    pub unsafe fn add(&mut self, host: u64, size: u64) -> Gpa {
        let end = self.extents.last().map_or(0, |last| last.gpa + last.size);
        let gpa = if end == LOW_END { HIGH_START } else { end };
        debug_assert!(gpa >= HIGH_START || gpa + size <= LOW_END);
        // SAFETY: the caller vouches for the range.
        unsafe { zero(host, size) };
        self.extents.push(Extent { gpa, host, size });
        Gpa(gpa)
    }

    /// Gives the RAM back: the root's addresses, by extent.
    pub fn take(&mut self) -> Vec<Range<u64>> {
        let extents = core::mem::take(&mut self.extents);
        extents
            .into_iter()
            .map(|extent| extent.host..extent.host + extent.size)
            .collect()
    }

    /// The extents: the guest's address, the root's, bytes.
    pub fn extents(&self) -> impl Iterator<Item = (Gpa, u64, u64)> + '_ {
        self.extents
            .iter()
            .map(|extent| (Gpa(extent.gpa), extent.host, extent.size))
    }

    /// Bytes of RAM.
    pub fn size(&self) -> u64 {
        self.extents.iter().map(|extent| extent.size).sum()
    }

    /// The ranges of RAM, neighbours joined.
    pub fn ranges(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for extent in &self.extents {
            match ranges.last_mut() {
                Some(last) if last.end == extent.gpa => last.end += extent.size,
                _ => ranges.push(extent.gpa..extent.gpa + extent.size),
            }
        }
        ranges
    }

    /// Copies the memory at `gpa` to `into`; all of it or nothing.
    pub fn read(&self, gpa: Gpa, into: &mut [u8]) -> Result<(), OutsideRam> {
        self.check(gpa, into.len())?;
        let mut done = 0;
        self.pieces(gpa, into.len(), |host, length| {
            // SAFETY: `pieces` gives addresses inside an extent, which `add`'s caller vouched for, and `length` bytes are
            // left of `into`. The guest may write meanwhile; any bytes will do.
            unsafe { copy(host as *const u8, into.as_mut_ptr().add(done), length) };
            done += length;
        });
        Ok(())
    }

    /// Copies `bytes` to the memory at `gpa`; all of it or nothing.
    pub fn write(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), OutsideRam> {
        self.check(gpa, bytes.len())?;
        let mut done = 0;
        self.pieces(gpa, bytes.len(), |host, length| {
            // SAFETY: as in `read`, the other way round.
            unsafe { copy(bytes.as_ptr().add(done), host as *mut u8, length) };
            done += length;
        });
        Ok(())
    }

    /// Copies a structure out.
    pub fn read_value<T: FromBytes + IntoBytes>(&self, gpa: Gpa) -> Result<T, OutsideRam> {
        let mut value = T::new_zeroed();
        self.read(gpa, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies a structure in.
    pub fn write_value<T: IntoBytes + Immutable>(&self, gpa: Gpa, value: &T) -> Result<(), OutsideRam> {
        self.write(gpa, value.as_bytes())
    }

    fn check(&self, gpa: Gpa, length: usize) -> Result<(), OutsideRam> {
        let outside = OutsideRam {
            address: gpa.0,
            length: length as u64,
        };
        let end = gpa.0.checked_add(length as u64).ok_or(outside)?;
        let mut address = gpa.0;
        while address < end {
            let extent = self.extent(address).ok_or(outside)?;
            address = extent.gpa + extent.size;
        }
        Ok(())
    }

    fn extent(&self, address: u64) -> Option<Extent> {
        let after = self.extents.partition_point(|extent| extent.gpa <= address);
        let extent = self.extents.get(after.checked_sub(1)?)?;
        (address - extent.gpa < extent.size).then_some(*extent)
    }

    /// Calls `piece` with the root's addresses of a range that was checked.
    fn pieces(&self, gpa: Gpa, length: usize, mut piece: impl FnMut(u64, usize)) {
        let (mut address, mut left) = (gpa.0, length);
        while left > 0 {
            let Some(extent) = self.extent(address) else {
                return;
            };
            let offset = address - extent.gpa;
            let size = left.min((extent.size - offset) as usize);
            piece(extent.host + offset, size);
            address += size as u64;
            left -= size;
        }
    }
}

/// Copies bytes that another processor may change or read meanwhile: by an instruction that the compiler does not see into.
///
/// # Safety
/// Both ranges must be mapped, the second writable, and they must not overlap.
unsafe fn copy(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: the caller vouches for the ranges; the direction flag is clear, as the ABI has it.
    unsafe {
        asm!("rep movsq", "mov rcx, {rest}", "rep movsb",
            rest = in(reg) length % 8,
            inout("rcx") length / 8 => _, inout("rsi") from => _, inout("rdi") to => _,
            options(nostack, preserves_flags));
    }
}

/// Zeroes whole 8-byte words.
///
/// # Safety
/// The range must be mapped, writable and nobody's.
unsafe fn zero(address: u64, size: u64) {
    // SAFETY: as above.
    unsafe {
        asm!("rep stosq", inout("rcx") size / 8 => _, inout("rdi") address => _, in("rax") 0,
            options(nostack, preserves_flags));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RAM of `sizes` bytes in extents, in host memory that is leaked.
    pub(crate) fn memory(sizes: &[usize]) -> GuestMemory {
        let mut memory = GuestMemory::new();
        for &size in sizes {
            let host = Box::leak(vec![0xaau64; size / 8].into_boxed_slice()).as_ptr() as u64;
            // SAFETY: the memory is leaked, and nothing else knows it.
            unsafe { memory.add(host, size as u64) };
        }
        memory
    }

    #[test]
    fn ram_is_zeroed_and_follows_on() {
        let memory = memory(&[4096, 8192]);
        let mut bytes = [1; 12288];
        memory.read(Gpa(0), &mut bytes).unwrap();
        assert!(bytes.iter().all(|&byte| byte == 0));
        assert_eq!(memory.ranges().as_slice(), core::slice::from_ref(&(0..12288)));
        assert_eq!(memory.size(), 12288);
    }

    #[test]
    fn copies_cross_extents() {
        let memory = memory(&[4096, 4096]);
        memory.write(Gpa(4094), b"abcd").unwrap();
        let mut bytes = [0; 6];
        memory.read(Gpa(4093), &mut bytes).unwrap();
        assert_eq!(&bytes, b"\0abcd\0");
        assert_eq!(
            memory.read_value::<u32>(Gpa(4094)),
            Ok(u32::from_le_bytes(*b"abcd"))
        );
    }

    #[test]
    fn a_write_that_does_not_fit_changes_nothing() {
        let memory = memory(&[4096]);
        assert_eq!(
            memory.write(Gpa(4090), b"abcdefg"),
            Err(OutsideRam {
                address: 4090,
                length: 7
            })
        );
        assert_eq!(memory.read_value::<u32>(Gpa(4090)), Ok(0));
        assert!(memory.write(Gpa(u64::MAX), b"ab").is_err());
        assert!(memory.write(Gpa(u64::MAX), b"").is_ok());
    }

    proptest! {
        #[test]
        fn it_behaves_like_one_array(
            writes in prop::collection::vec((0u64..20_000, prop::collection::vec(any::<u8>(), 0..5000)), 0..8),
        ) {
            let memory = memory(&[4096, 8192, 4096]);
            let mut model = vec![0; 16384];
            for (at, bytes) in writes {
                let range = at as usize..at as usize + bytes.len();
                let expected = bytes.is_empty() || range.end <= model.len();
                prop_assert_eq!(memory.write(Gpa(at), &bytes).is_ok(), expected);
                if let Some(slice) = model.get_mut(range) {
                    slice.copy_from_slice(&bytes);
                }
            }
            let mut bytes = vec![0; 16384];
            memory.read(Gpa(0), &mut bytes).unwrap();
            prop_assert_eq!(bytes, model);
        }
    }
}
