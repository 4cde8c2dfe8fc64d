//! Virtualisation service providers, one module a device.
//!
//! Nothing stands here yet; the first provider is storage.
#![no_std]
