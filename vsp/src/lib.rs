//! Virtualisation service providers, one module a device.
//!
//! | module | what it is |
//! |---|---|
//! | [`buffer`] | the memory of one request |
//! | [`storage`] | disks |
#![no_std]

extern crate alloc;

pub mod buffer;
pub mod storage;
