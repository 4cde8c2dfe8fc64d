//! The host tool behind `cargo xtask …`, and the library with which tests start whole machines.
//!
//! - **Machines**: [`machine`] describes one and writes QEMU's command line, [`session`] runs it, [`console`] reads what
//!   it prints, [`qmp`] talks to QEMU itself, [`outcome`] says how it ended.
//! - **What machines boot**: [`images`] builds the images, [`archive`] the boot archive, [`iso`] the bootable image,
//!   [`guest`] the guests that other people made.
//! - **Tools of the host**: [`setup`] finds the emulator; [`packages`], [`apt`] and [`sources`] fetch what is missing
//!   into a private package root.
//! - **Small things**: [`paths`], [`process`], [`lock`], [`progress`], [`size`].

pub mod apt;
pub mod archive;
pub mod console;
pub mod forward;
pub mod guest;
pub mod images;
pub mod iso;
pub mod lock;
pub mod machine;
pub mod outcome;
pub mod packages;
pub mod paths;
pub mod process;
pub mod progress;
pub mod qmp;
pub mod session;
pub mod setup;
pub mod size;
pub mod sources;

/// The commands of `cargo xtask`, one module each.
pub mod commands {
    pub mod bench;
    pub mod bench_figures;
    pub mod bench_guest_io;
    pub mod bench_iommu;
    pub mod bench_linux;
    pub mod bench_net;
    pub mod bench_net_debian;
    pub mod bench_reply;
    pub mod bench_ring;
    pub mod bench_row;
    pub mod bench_storage;
    pub mod callgrind;
    pub mod cost;
    pub mod iso;
    pub mod run;
    pub mod setup;
    pub mod test;
}

pub use archive::{ArchiveBuilder, ArchiveSpec};
pub use console::Reply;
pub use forward::Forward;
pub use machine::{Firmware, Iommu, Machine};
pub use outcome::{ExitKind, Outcome};
pub use session::Session;
