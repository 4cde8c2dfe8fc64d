//! Drivers of physical devices.
//!
//! | module | holds |
//! |---|---|
//! | [`pci`] | configuration space, enumeration, message-signalled interrupts |
//! | [`serial`] | the 16550 UART |

pub mod pci;
pub mod serial;
