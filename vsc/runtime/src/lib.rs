//! The smallest guest kernel. Nothing stands here yet; it comes with the first guests.
#![no_std]
