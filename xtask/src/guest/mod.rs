//! Guests that other people made: fetched as packages, and made into files of the boot archive.
//!
//! [`debian`] fetches Debian's kernel and makes a guest of it; [`initrd`] writes its first file system,
//! [`root_disk`] the disk that it can go on with; [`module`] and [`vmlinux`] read the files of a kernel;
//! [`programs`] adds more of Debian's programs to the first file system.

pub mod debian;
pub mod initrd;
mod module;
pub mod programs;
pub mod root_disk;
mod vmlinux;
