//! Virtualisation service consumers: the driver library for authors of guest systems.
//!
//! Nothing stands here yet; the first consumer is storage.
#![no_std]
