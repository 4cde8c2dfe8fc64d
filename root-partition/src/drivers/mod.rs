//! Drivers of physical devices.
//!
//! | module | holds |
//! |---|---|
//! | [`e1000e`] | network cards |
//! | [`edu`] | QEMU's device for tests of the IOMMU |
//! | [`nvme`] | NVMe controllers and their namespaces |
//! | [`pci`] | configuration space, enumeration, message-signalled interrupts |
//! | [`real_time_clock`] | what time it is |
//! | [`serial`] | the 16550 UART |

pub mod e1000e;
pub mod edu;
pub mod nvme;
pub mod pci;
pub mod real_time_clock;
pub mod serial;
