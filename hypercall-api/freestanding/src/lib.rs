//! What every image of ours needs because there is no libc and no kernel under it. With the feature `image`: the C memory functions
//! that the compiler calls, stand-ins for the unwinder, the PVH boot stub, and (beside this folder's sources) `image.ld`, the one
//! linker script. Only the thin `main.rs` of an image may ask for these: on the host their symbols would take the place of libc's.
//!
//! | module | holds |
//! |---|---|
//! | [`exception`] | entry points, the frame that they push, the interrupt descriptor table |
//! | [`probe`] | accesses that may fault |
//! | [`trampoline`] | the code in which further processors start |
//! | `entry` | the boot stub |
//! | `memory`, `unwind` | what the compiler calls |
#![no_std]

#[cfg(feature = "image")]
pub mod entry;
pub mod exception;
#[cfg(feature = "image")]
mod memory;
pub mod probe;
pub mod trampoline;
#[cfg(feature = "image")]
mod unwind;
