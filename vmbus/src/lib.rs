//! VMBus as a library: rings, packets, channel messages and both ends as state machines without I/O.
//!
//! Nothing stands here yet; the bus comes with the storage pair.
#![no_std]
