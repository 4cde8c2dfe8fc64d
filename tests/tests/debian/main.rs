//! Debian's kernel, as its package has it, as a child. What counts is what user space says and sees.
//!
//! | module | holds |
//! |---|---|
//! | [`boot`] | user space on one and more processors, what it finds there, the shell on the console |
//! | [`changes`] | a life with pauses, and disks that come and go |
//! | [`disk`] | a system on a disk, and what the host asks of it |
//! | [`kernels`] | other kernels, other forms of them |
//! | [`lifecycle`] | power off, reboot, panic; killed at any moment |
//! | [`load`] | under disk load: processors that go and come, a neighbour's kill, its own |
//! | [`network`] | cards on a switch: two guests and what goes between them |
//! | [`outside`] | the way through the root to the outside, and back |
//! | [`vmbus`] | Debian's bus driver |
//! | [`world`] | what they share |
//!
//! The kernel is fetched when it is first wanted, as the emulator is.

mod boot;
mod changes;
mod disk;
mod kernels;
mod lifecycle;
mod load;
mod network;
mod outside;
mod vmbus;
mod world;
