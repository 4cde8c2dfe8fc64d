//! Guests that other people made: fetched as packages, and made into files of the boot archive.
//!
//! [`debian`] fetches Debian's kernel and makes a guest of it; [`initrd`] writes its first file system.

pub mod debian;
pub mod initrd;
