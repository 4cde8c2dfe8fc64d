//! Virtualisation service providers, one module a device.
//!
//! | module | what it is |
//! |---|---|
//! | [`buffer`] | the memory of one request |
//! | [`integration`] | heartbeat, shutdown, time and what a guest tells of itself |
//! | [`network`] | network cards |
//! | [`storage`] | disks |
//! | [`switch`] | where frames go |
#![no_std]

extern crate alloc;

pub mod buffer;
pub mod integration;
pub mod network;
pub mod storage;
pub mod switch;
