//! Virtual machines: the VM worker.
//!
//! A machine is described by a file, and made into a child partition each time that it starts. Its VPs run until an
//! intercept suspends one; that VP's task reads why, does it, and lets the VP go on.
//!
//! | module | holds |
//! |---|---|
//! | [`acpi`] | the tables that tell a guest of its machine |
//! | [`archive`] | the boot archive's files |
//! | [`assignment`] | physical devices of machines |
//! | [`boot_state`] | VP 0's first registers |
//! | [`child`] | a child partition: created, run, destroyed |
//! | [`bus`] | VMBus: its server, the devices on it |
//! | [`chipset`] | serial ports, IOAPIC, power registers |
//! | [`description`] | a machine as its TOML file has it |
//! | [`devices`] | what a machine has on its bus |
//! | [`emulate`] | instructions that access devices in memory |
//! | [`enlightenments`] | which parts of the hypervisor's interface a guest is told of |
//! | [`firmware`] | where a PC begins |
//! | [`host`] | what the worker needs of kernel and hypervisor |
//! | [`intercept`] | what is done about each intercept |
//! | [`loader`] | kernels into memory |
//! | [`machine`] | one machine: its states, its task |
//! | [`memory`] | a child's RAM |
//! | [`network`] | switches and network cards, as the shell commands them |
//! | [`pool`] | deposits and withdrawals |
//! | [`ring`] | what a console keeps |
//! | [`root_host`] | the real kernel and hypervisor |
//! | [`signal`] | waiting |
//! | [`vp`] | a VP's task |
//! | [`worker`] | all machines, by name |

pub mod acpi;
pub mod archive;
pub mod assignment;
pub mod boot_state;
pub mod bus;
pub mod child;
pub mod chipset;
pub mod description;
pub mod devices;
pub mod emulate;
pub mod enlightenments;
pub mod firmware;
pub mod host;
pub mod intercept;
pub mod loader;
pub mod machine;
pub mod memory;
mod network;
pub mod pool;
pub mod ring;
pub mod root_host;
pub mod signal;
pub mod vp;
pub mod worker;

#[cfg(test)]
#[allow(unsafe_code)] // it hands out memory
mod fake;
#[cfg(test)]
mod tests;
