//! From the boot loader to a running hypervisor.
//!
//! | module | holds |
//! |---|---|
//! | [`command_line`] | `key=value` words |
//! | [`describe`] | what was found, as the root is told |
//! | [`image`] | the root image: what to load where |
//! | [`information`] | what the loader told us, whichever loader it was |
//! | [`multiboot2`] | reading it from Multiboot2 tags: GRUB |
//! | [`processors`] | processors, interrupt controllers and clocks |
//! | [`pvh`] | reading it from a PVH start info: QEMU |
//! | [`root`] | building the root partition |
//! | [`start`] | the order of it all |

pub mod command_line;
pub mod describe;
pub mod image;
pub mod information;
pub mod multiboot2;
mod processors;
pub mod pvh;
pub mod root;
pub mod start;
