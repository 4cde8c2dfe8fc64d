//! The root partition: a small asynchronous kernel that runs as the hypervisor's privileged guest, with the machine's
//! memory at its own addresses and the machine's devices in its hands.
//!
//! | module | holds |
//! |---|---|
//! | [`start`] | from the entry to the shell: read this first |
//! | [`boot`] | what the hypervisor hands over |
//! | [`memory`] | page tables, frames, heap |
//! | [`processor`] | descriptor tables, exceptions, the APIC, starting processors |
//! | [`hypervisor`] | hypercalls, reference time, synthetic timers, statistics |
//! | [`executor`] | tasks and time |
//! | [`interrupt`] | device interrupts as futures |
//! | [`acpi`] | what the firmware's tables say |
//! | [`disk`] | the disks that virtual machines can have |
//! | [`drivers`] | NVMe, network cards, PCI, serial line |
//! | [`console`], [`logger`] | output |
//! | [`net`] | the virtual switches |
//! | [`settings`] | TOML files of the boot archive |
//! | [`shell`] | the management shell |
//! | [`system`] | what the shell sees, over the real thing |
//! | [`vm`] | virtual machines |
//! | [`wall_clock`] | the time of day |
//! | [`bench`], [`selftest`] | `hv bench`, `hv selftest` |
//! | [`stop`] | power off, reset, and a root that fails |
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod acpi;
pub mod bench;
pub mod boot;
pub mod console;
pub mod disk;
pub mod drivers;
pub mod executor;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod hypervisor;
pub mod interrupt;
pub mod logger;
pub mod memory;
pub mod net;
pub mod processor;
pub mod selftest;
pub mod settings;
pub mod shell;
pub mod start;
pub mod stop;
pub mod system;
pub mod vm;
pub mod wall_clock;
