//! Placeholder, filled by the next commits.
#![cfg_attr(not(test), no_std)]

pub mod boot;
pub mod memory;
pub mod platform;
