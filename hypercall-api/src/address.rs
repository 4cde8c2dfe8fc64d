//! Guest physical addresses and page numbers (TLFS, "Basic Data Types").

use core::fmt;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes in the page that the hypercall interface counts in.
pub const PAGE_SIZE: u64 = 4096;

/// Guest physical address, in bytes.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct Gpa(pub u64);

/// Guest virtual (linear) address, in bytes.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct Gva(pub u64);

/// Guest physical page number: an address in units of [`PAGE_SIZE`].
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct Gpfn(pub u64);

impl Gpa {
    /// The page that holds this address.
    pub const fn page(self) -> Gpfn {
        Gpfn(self.0 / PAGE_SIZE)
    }

    /// Byte offset inside that page.
    pub const fn page_offset(self) -> u64 {
        self.0 % PAGE_SIZE
    }

    /// The address `bytes` further on, or `None` past the end of the address space.
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// Whether `size` bytes from here stay inside one page. No bytes always do.
    pub const fn fits_page(self, size: u64) -> bool {
        size <= PAGE_SIZE - self.page_offset()
    }

    /// Whether the address is a multiple of `alignment`, a power of two.
    pub const fn is_aligned(self, alignment: u64) -> bool {
        self.0 & (alignment - 1) == 0
    }
}

impl Gpfn {
    /// Address of the page's first byte, or `None` where the number is too large to be an address.
    pub const fn base(self) -> Option<Gpa> {
        match self.0.checked_mul(PAGE_SIZE) {
            Some(base) => Some(Gpa(base)),
            None => None,
        }
    }
}

macro_rules! show_as_hex {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    )*};
}
show_as_hex!(Gpa, Gva, Gpfn);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_fits_a_page_up_to_its_last_byte() {
        assert!(Gpa(0x1ff8).fits_page(8));
        assert!(!Gpa(0x1ff8).fits_page(9));
        assert!(Gpa(0x1fff).fits_page(0));
    }

    #[test]
    fn arithmetic_past_the_end_is_refused() {
        assert_eq!(Gpa(u64::MAX).checked_add(1), None);
        assert_eq!(Gpfn(1 << 52).base(), None);
        assert_eq!(Gpfn(5).base(), Some(Gpa(0x5000)));
    }
}
