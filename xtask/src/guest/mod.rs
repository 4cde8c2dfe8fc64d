//! Guests that other people made: fetched as packages, and made into files of the boot archive.
//!
//! [`debian`] fetches Debian's kernel and makes a guest of it; [`initrd`] writes its first file system,
//! [`root_disk`] the disk that it can go on with.

pub mod debian;
pub mod initrd;
pub mod root_disk;
