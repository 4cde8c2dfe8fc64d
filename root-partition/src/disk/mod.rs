//! The disks of the machine: which there are, who uses them.
//!
//! | name | is |
//! |---|---|
//! | `nvme0`, `nvme0n2` | namespace 1, or another, of the first NVMe controller |
//! | `nvme0p1`, `nvme0n2p1` | a partition of one (GPT) |
//! | `archive:FILE` | a file of the boot archive, read-only |
//! | `scratch` | a disk of memory, made by `disk create scratch --size 64MiB` |
//! | `ram:64MiB` | a disk of memory of whoever names it, gone with it |
//!
//! A virtual machine takes its disk by [`Registry::claim`]. A disk that somebody writes belongs to nobody else, nor do its
//! partitions, nor the disk that it is a partition of; readers share.
//!
//! | module | holds |
//! |---|---|
//! | [`registry`] | names, claims: read this first |
//! | [`root_disk`] | the one type of all disks |
//! | [`archive`] | a file of the boot archive as a disk |
//! | [`ram`] | a disk of memory |
//! | [`gpt`] | reading a partition table |
//! | [`start`] | finding the machine's disks |
//! | [`shell`] | the shell's view |
//! | [`measure`] | what reading costs |

pub mod archive;
pub mod gpt;
pub mod measure;
pub mod ram;
pub mod registry;
pub mod root_disk;
mod shell;
pub mod start;

pub use registry::{Access, Claim, DiskRefused, Registry};
pub use root_disk::RootDisk;
