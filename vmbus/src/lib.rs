//! VMBus as a library: rings, packets, channel messages and both ends as state machines without I/O.
//!
//! | module | what it is |
//! |---|---|
//! | [`ring`] | the ring buffers of a channel, and the packets in them |
//! | [`protocol`] | channel messages, and the messages of each device |
//! | [`server`] | the root's end |
//! | [`client`] | a guest's end |
//! | [`shared`] | copies out of and into memory that the other side writes to |
#![no_std]

extern crate alloc;

pub mod client;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod protocol;
pub mod ring;
pub mod server;
pub mod shared;
#[cfg(test)]
mod tests;
#[cfg(any(test, feature = "fuzz"))]
pub mod world;
