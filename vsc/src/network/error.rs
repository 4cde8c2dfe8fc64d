//! Why something failed.

use crate::bus::BusError;
use vmbus::protocol::network::oid::Oid;
use vmbus::protocol::network::{nvsp, rndis};
use vmbus::ring::RingError;

/// Why a card did not do it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NetworkError {
    /// The card is gone.
    #[error("the network card is gone")]
    Gone,
    /// The host speaks none of the versions.
    #[error("the network card speaks no version that this guest knows")]
    NoVersion,
    /// The host refuses a message.
    #[error("the network card refuses: status {}", .0.0)]
    Refused(nvsp::Status),
    /// The host refuses to tell or to set something.
    #[error("the network card refuses {oid:?}: status {status:#x}", oid = .0, status = .1.0)]
    RefusedRequest(Oid, rndis::Status),
    /// The host has answered what no host may.
    #[error("the host breaks the protocol")]
    Protocol,
    /// A frame is shorter than its header, or longer than the card can send.
    #[error("a frame of {0} bytes cannot be sent")]
    FrameSize(usize),
    /// Too much was sent that the host has not taken yet: [`Card::writable`](super::Card::writable) waits.
    #[error("the network card has no room now")]
    Full,
    /// The card has no such channel.
    #[error("the network card has no channel {0}")]
    NoQueue(usize),
    /// Too many questions wait for their answers.
    #[error("too many questions wait for the network card's answers")]
    Busy,
    /// The settings cannot be.
    #[error("a network card cannot be opened with these settings: {0}")]
    Settings(&'static str),
    /// The guest system has no memory left.
    #[error("there is not enough memory")]
    NoMemory,
    /// The ring is broken.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The bus does not do it.
    #[error(transparent)]
    Bus(#[from] BusError),
}
