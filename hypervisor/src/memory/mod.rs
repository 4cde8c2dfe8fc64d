//! Memory: what there is, who owns it, and the tables that translate to it.
//!
//! The hypervisor runs in one address space in which a virtual address equals the system physical address, so a frame's
//! address is also the pointer to it.
//!
//! | module | holds |
//! |---|---|
//! | [`address`] | system physical addresses, frames, ranges, page sizes |
//! | [`frames`] | the hypervisor's own frames |
//! | [`map`] | the firmware's memory map, repaired, and what is carved out of it |

pub mod address;
pub mod frames;
pub mod map;
