//! Storage: SCSI over VMBus, and the disks behind it.
//!
//! | file | what it is |
//! |---|---|
//! | [`disk`] | what a disk is, whatever is behind it |
//! | [`unit`] | a disk or drive as SCSI sees it |
//! | [`scsi`] | what a unit does with a command |
//! | [`controller`] | the units behind one controller |
//! | [`channel`] | a channel of a controller: read this first |
//! | [`epoch`] | the requests between two resets |
//! | [`request`] | one request, from the guest's packet to the answer |
//! | [`ram`] | a disk of memory |

pub mod channel;
pub mod controller;
pub mod disk;
pub mod epoch;
#[cfg(any(test, feature = "fuzz"))]
pub mod faulty;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
#[cfg(any(test, feature = "fuzz"))]
mod guest;
pub mod ram;
pub mod request;
pub mod scsi;
pub mod unit;

#[cfg(test)]
mod tests;
