//! Virtual machines: the VM worker.
//!
//! | module | holds |
//! |---|---|
//! | [`chipset`] | serial ports, IOAPIC, power registers |
//! | [`description`] | a machine as its TOML file has it |
//! | [`emulate`] | instructions that access devices in memory |
//! | [`loader`] | kernels into memory |
//! | [`memory`] | a child's RAM |
//! | [`ring`] | what a console keeps |

pub mod chipset;
pub mod description;
pub mod emulate;
pub mod loader;
pub mod memory;
pub mod ring;
