//! Network: the provider of a card (NVSP and RNDIS over a channel's rings), and the wire that joins cards by a switch.
//!
//! A frame goes from its sender's memory into its receiver's with one copy: `intake` takes a packet from the sender's ring,
//! [`transmit`] reads what is beside the frame, [`wire`] asks the switch, and [`deliver`] writes into the receivers' buffers and rings.
//! Work that a sender leaves to the card (checksums, segments) is done only for a receiver that wants it done.
//!
//! | file | what it is |
//! |---|---|
//! | [`link`] | what a card needs of the bus |
//! | [`nic`] | the card: its cable, its link, its channels |
//! | `queue` | a channel that is open, and its completions |
//! | `intake` | what a guest sends: read this first |
//! | `agree` | packets that carry no frames |
//! | [`setup`] | what was agreed with the guest: NVSP messages |
//! | [`control`] | RNDIS requests: what is asked and set |
//! | [`transmit`] | RNDIS packets, as a guest sends them |
//! | [`frame`] | a frame on its way |
//! | [`wire`] | the switch and who is at its ports |
//! | [`deliver`] | frames into a guest's receive buffer |
//! | [`pool`] | the parts of that buffer |
//! | [`segment`] | cutting large frames, working out checksums |
//! | [`steer`] | which channel a frame goes to |

mod agree;
pub mod control;
pub mod deliver;
pub mod frame;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
#[cfg(any(test, feature = "fuzz"))]
#[cfg_attr(not(test), allow(dead_code))] // tests do more with it than the fuzzer
mod guest;
mod intake;
pub mod link;
pub mod nic;
pub mod pool;
mod queue;
pub mod segment;
pub mod setup;
pub mod steer;
#[cfg(test)]
mod tests;
pub mod transmit;
pub mod wire;

pub use frame::{Body, Frame};
pub use link::Link;
pub use nic::{Nic, Progress, Settings};
pub use wire::{Endpoint, Wire};
