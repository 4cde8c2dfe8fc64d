//! Virtualisation service consumers: the driver library for authors of guest systems.
//!
//! A guest system implements [`hal::Hal`] (hypercalls, pages, the SynIC, time), makes a [`bus::Bus`] with it, and gets its devices
//! from there. `vsc/README.md` leads from an empty crate to a guest that reads a disk.
//!
//! | module | what it is |
//! |---|---|
//! | [`hal`] | what the library needs of the guest system |
//! | [`memory`] | memory that is shared with the host |
//! | [`bus`] | the driver of VMBus: contact, offers, channels |
//! | [`block`] | what a block device is |
//! | [`network`] | network cards |
//! | [`partition`] | GUID partition tables |
//! | [`checksum`] | CRC-32 |
//! | [`storage`] | SCSI controllers and their disks |
//! | [`wait`] | running futures without an executor |
//!
//! Everything asynchronous is an ordinary future that any executor can run; [`bus::Bus::block_on`] runs one without an executor.
//! Nothing here may be called from an interrupt handler: locks are held, and the allocator is used.
#![no_std]

extern crate alloc;

pub mod block;
pub mod bus;
pub mod checksum;
pub mod hal;
pub mod memory;
pub mod network;
pub mod partition;
pub mod storage;
pub mod wait;
