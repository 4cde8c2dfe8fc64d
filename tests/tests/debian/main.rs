//! Debian's kernel, as its package has it, as a child. What counts is what user space says and sees.
//!
//! | module | holds |
//! |---|---|
//! | [`boot`] | user space on one and more processors, what it finds there, the shell on the console |
//! | [`disk`] | a system on a disk, and what the host asks of it |
//! | [`hardship`] | a life with pauses, disks that come and go, processors that do, neighbours, and a kill |
//! | [`kernels`] | other kernels, other forms of them |
//! | [`lifecycle`] | power off, reboot, panic; killed at any moment |
//! | [`network`] | cards on a switch: two guests and what goes between them |
//! | [`outside`] | the way through the root to the outside, and back |
//! | [`vmbus`] | Debian's bus driver |
//! | [`world`] | what they share |
//!
//! The kernel is fetched when it is first wanted, as the emulator is.

mod boot;
mod disk;
mod hardship;
mod kernels;
mod lifecycle;
mod network;
mod outside;
mod vmbus;
mod world;
