//! Memory: what there is, who owns it, and the tables that translate to it.
//!
//! The hypervisor runs in one address space in which a virtual address equals the system physical address, so a frame's
//! address is also the pointer to it.
//!
//! | module | holds |
//! |---|---|
//! | [`address`] | system physical addresses, frames, ranges, page sizes |
//! | [`frames`] | the hypervisor's own frames |
//! | [`host_paging`] | the hypervisor's own address space |
//! | [`map`] | the firmware's memory map, repaired, and what is carved out of it |
//! | [`nested`] | a partition's guest physical address space, for AMD and for Intel |
//! | [`physical`] | reading what firmware and boot loaders left in memory |
//! | [`ownership`] | which frames are deposited, and which children map |
//! | [`physical`] | reading what firmware left |
//! | [`pool`] | frames that were deposited for a partition |
//! | [`tables`] | what both kinds of page tables have in common |

pub mod address;
pub mod frames;
pub mod host_paging;
pub mod map;
pub mod nested;
pub mod ownership;
pub mod physical;
pub mod pool;
mod table;
pub mod tables;
