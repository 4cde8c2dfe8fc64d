//! The smallest guest kernel: what the demo guests stand on, and what an author of a guest system may begin with.
//!
//! A guest is an ELF file that a PVH loader starts (Partita's VM worker, or QEMU's `-kernel`). Its program is a function;
//! everything else is here:
//!
//! ```ignore
//! #![no_std]
//! #![no_main]
//!
//! vsc_runtime::guest_main!(main);
//!
//! fn main(boot: &vsc_runtime::boot::BootInfo) {
//!     vsc_runtime::println!("hello from {}", boot.command_line);
//! }
//! ```
//!
//! When the function returns, the guest powers itself off; a panic is printed and powers off too.
//!
//! | module | holds |
//! |---|---|
//! | [`apic`] | the local APIC, by MSRs or by its page; IPIs |
//! | [`boot`] | what the loader said: memory, modules, command line |
//! | [`entry`] | [`guest_main!`], the way in |
//! | `hal` | what the driver library `vsc` needs, with the feature `hal` |
//! | [`hypervisor`] | Hyper-V's interface: detection, hypercalls, reference time, SynIC, synthetic timers |
//! | [`interrupt`] | handlers and counters, one a vector |
//! | [`memory`] | page tables, pages, an optional heap |
//! | [`power`] | power off and reset |
//! | [`mod@processor`] | descriptor tables, exceptions, probes of accesses that may fault, starting the other processors |
//! | [`serial`] | the console on COM1 |
//!
//! The machine has up to 4 GiB in one identity-mapped address space: code is read-only, data is not executable, page 0 is
//! not there. Every vector runs on a stack of its own, because the precompiled `core` keeps data below the stack pointer.
//! Without a hypervisor everything works but [`hypervisor`] itself, so that a guest can be tried under plain QEMU.
#![no_std]

#[cfg(feature = "hal")]
extern crate alloc;

pub mod apic;
pub mod boot;
pub mod entry;
#[cfg(feature = "hal")]
pub mod hal;
pub mod hypervisor;
pub mod interrupt;
pub mod memory;
pub mod power;
pub mod processor;
pub mod serial;
pub mod stop;

pub use processor::local::{Processor, processor};
