//! Network: a card of the host's (NVSP and RNDIS over a channel's rings).
//!
//! ```ignore
//! let offer = bus.find(class::NETWORK).ok_or(NoCard)?;
//! let card = network::open(&bus, &offer, Settings::default()).await?;
//! card.send(0, &mut frame, &Beside::default())?;
//! let received = card.receive(&mut bytes)?;
//! ```
//!
//! A stack plugs in by [`station::Station`], which is smoltcp's `phy::Device` (feature `smoltcp`) and embassy-net's `Driver` (feature
//! `embassy-net-driver`).
//!
//! Each frame is copied once in each direction, as the host can change what it shares with the guest at any moment. That a received
//! packet was taken is told to the host together with what is sent next, or when it is much: so an exchange of packets costs one signal
//! a packet.
//!
//! | file | what it is |
//! |---|---|
//! | `card` | the card: sending, receiving, what can be asked and set |
//! | `open` | opening a card's channels |
//! | `setup` | what is agreed with the host before the first frame |
//! | `queue` | one channel: what comes is taken, what goes is put into the ring |
//! | `state` | what a channel's lock guards |
//! | `slots` | memory of frames that the host has not completed |
//! | `arrived` | RNDIS packets as the host writes them: checked, and made into frames |
//! | `requests` | questions that wait for their answers |
//! | `offload` | work on frames that is left to the host, or was done by it |
//! | `scale` | spreading frames over several channels |
//! | [`station`] | the card as a stack wants it |
//! | `error` | why something failed |

mod arrived;
mod card;
mod error;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod offload;
mod open;
mod queue;
mod requests;
mod scale;
mod setup;
mod slots;
mod state;
pub mod station;

pub use arrived::Received;
pub use card::{Card, Counters};
pub use error::NetworkError;
pub use offload::{Beside, Offloads};
pub use open::{Settings, Shared, connect, open};
pub use queue::Queue;
pub use vmbus::protocol::network::Mac;
pub use vmbus::protocol::network::nvsp::Version;
pub use vmbus::protocol::network::oid::PacketFilter;
