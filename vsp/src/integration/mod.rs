//! Integration services: small requests of the host that the guest's system answers.
//!
//! Each is a state machine without I/O: it makes the packets that its channel shall carry and takes those that came. A
//! guest without a driver for one never answers, and that service stays silent.
//!
//! | module | what it is |
//! |---|---|
//! | [`session`] | versions, and one request at a time |
//! | [`heartbeat`] | whether the guest lives |
//! | [`shutdown`] | power off and reboot in good order |
//! | [`time_sync`] | the wall clock |
//! | [`key_value`] | what the guest tells of itself |

#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod heartbeat;
pub mod key_value;
pub mod session;
pub mod shutdown;
pub mod time_sync;

use alloc::vec::Vec;
use uuid::Uuid;

/// A packet's bytes, to be sent in band, without asking for a completion.
pub type Packet = Vec<u8>;

/// What all services have in common, for whoever owns their channels.
pub trait Service {
    /// The class of device that is offered.
    fn class(&self) -> Uuid;
    /// The guest has opened the channel; returns what to send.
    fn opened(&mut self) -> Packet;
    /// Takes a packet of the guest; returns what to send next, if something.
    fn receive(&mut self, packet: &[u8]) -> Option<Packet>;
    /// The guest has closed the channel, or is gone.
    fn closed(&mut self);
}
