//! NVMe controllers and their namespaces (NVM Express Base 2.0).
//!
//! A controller has an admin queue and an I/O queue pair a processor, as far as it and its interrupts reach; more
//! processors share them. A request goes to the queues of the processor that runs, and that processor's interrupt wakes it.
//! The device is not trusted: what it writes is copied and checked, what it does not do is done without it in the end.
//!
//! | module | holds |
//! |---|---|
//! | [`start`] | finding controllers, their interrupts: read this first |
//! | [`controller`] | bringing one up, admin commands |
//! | [`namespace`] | a namespace as a disk |
//! | [`recovery`] | late commands, resets, controllers that fail |
//! | [`pair`] | a queue pair, and requests as futures |
//! | [`slots`] | the commands under way |
//! | [`rings`] | the two queues in memory |
//! | [`prp`] | scattered memory as page lists |
//! | [`command`] | commands and completions |
//! | [`identify`] | what the controller says of itself and of namespaces |
//! | [`registers`] | its registers |
//! | [`hardware`] | what the driver needs of the world |

pub mod command;
pub mod controller;
pub mod hardware;
pub mod identify;
pub mod namespace;
pub mod pair;
pub mod prp;
pub mod recovery;
pub mod registers;
pub mod rings;
pub mod slots;
pub mod start;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
