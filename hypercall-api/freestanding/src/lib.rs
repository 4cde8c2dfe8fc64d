//! What every image of ours needs because there is no libc under it: the C memory functions that
//! the compiler calls, stand-ins for the unwinder, the PVH boot stub, and (beside this folder's
//! sources) `image.ld`, the one linker script.
//!
//! Only the thin `main.rs` of an image may depend on this crate: on the host its symbols would
//! take the place of libc's.
#![no_std]

pub mod entry;
mod memory;
mod unwind;
