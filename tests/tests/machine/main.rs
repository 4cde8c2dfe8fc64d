//! Whole machines: the hypervisor and the root partition under QEMU, from power on to the shell.
//!
//! | module | holds |
//! |---|---|
//! | [`boot`] | every way to start, numbers of processors, sizes of memory |
//! | [`broken`] | a hypervisor that finds itself wrong |
//! | [`disk`] | NVMe disks |
//! | [`figures`] | what exits and the boot cost, in instructions |
//! | [`hardware`] | processors and IOMMUs that lack something |
//! | [`iommu`] | what devices reach, and which interrupts they raise |
//! | [`network`] | the root's own network |
//! | [`power`] | power off, reset |
//! | [`refused`] | what the root must not do, and what ends it |
//! | [`shell`] | every command, for people and for programs |
//! | [`start`] | starts that cannot succeed |
//! | [`typing`] | a user at the serial console |

mod boot;
mod broken;
mod disk;
mod figures;
mod hardware;
mod iommu;
mod network;
mod power;
mod refused;
mod shell;
mod start;
mod typing;
