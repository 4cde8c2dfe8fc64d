//! From the boot loader to a running hypervisor.
//!
//! | module | holds |
//! |---|---|
//! | [`command_line`] | `key=value` words |
//! | [`image`] | the root image: what to load where |
//! | [`information`] | what the loader told us, whichever loader it was |
//! | [`multiboot2`] | reading it from Multiboot2 tags: GRUB |
//! | [`pvh`] | reading it from a PVH start info: QEMU |

pub mod command_line;
pub mod image;
pub mod information;
pub mod multiboot2;
pub mod pvh;
