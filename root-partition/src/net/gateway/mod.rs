//! The way out for guests: the gateway of an internal switch, with a DHCP server, a relay for name servers, address
//! translation (NAT), and port forwards.
//!
//! ```text
//! guests ── internal switch ── gateway ── root's port of the external switch ── uplink
//!                                  └─ the root's stack, for what is not translated
//! ```
//!
//! A packet goes on by its first bytes, which are rewritten; the rest stays where it is until the next port copies it, and a
//! packet that is to be cut stays whole. What does not fit is decided thus:
//!
//! - Parts of a packet (fragments) go the way of its first one. Those that come before it, and those for the gateway itself, are
//!   dropped and counted.
//! - DHCP tells guests the uplink's MTU, and a packet that is larger is answered by an ICMP error that names the MTU, whether it may be
//!   fragmented or not. Connections never come to that: neither end is told of larger segments than fit the uplink's packets.
//! - A flow's port outside is the guest's own, where that is free. Other hosts reach a guest by the flows that it began, and
//!   by forwards.
//! - The guests reach the root's address outside, but not each other by it.
//! - IPv4 only.
//!
//! | module | holds |
//! |---|---|
//! | [`route`] | the gateway as a state machine: read this first |
//! | [`verdict`] | what becomes of frames |
//! | `own` | what is for the gateway itself |
//! | [`packet`] | a packet by its first bytes |
//! | [`flows`] | what is translated |
//! | [`parts`] | what becomes of parts of packets |
//! | [`forwards`] | port forwards |
//! | [`dhcp`] | the DHCP server |
//! | [`neighbours`] | who has which address |
//! | [`build`] | frames of the gateway's own |
//! | [`port`] | the gateway in its ports |

pub mod build;
pub mod dhcp;
pub mod flows;
pub mod forwards;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod neighbours;
mod own;
pub mod packet;
pub mod parts;
pub mod port;
pub mod route;
#[cfg(test)]
mod tests;
pub mod verdict;

pub use route::Gateway;
