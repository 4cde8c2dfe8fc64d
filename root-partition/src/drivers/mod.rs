//! Drivers of physical devices.
//!
//! | module | holds |
//! |---|---|
//! | [`nvme`] | NVMe controllers and their namespaces |
//! | [`pci`] | configuration space, enumeration, message-signalled interrupts |
//! | [`real_time_clock`] | what time it is |
//! | [`serial`] | the 16550 UART |

pub mod nvme;
pub mod pci;
pub mod real_time_clock;
pub mod serial;
