//! Intel's 82574L network card (QEMU's `e1000e`; "82574 GbE Controller Family Datasheet").
//!
//! One queue each way. Frames to send are copied once, from wherever they are into the ring's own memory, and the card then
//! cuts large ones and fills in checksums; received frames are handed out from where the card wrote them. One
//! message-signalled interrupt, which is off while frames are polled. The card is not trusted: what it writes is copied and
//! checked, and it only reaches the rings.
//!
//! | module | holds |
//! |---|---|
//! | [`start`] | finding cards, their interrupt: read this first |
//! | [`card`] | bringing one up, its link, what went through it |
//! | [`receive`] | the receive ring |
//! | [`transmit`] | the transmit ring |
//! | [`descriptor`] | the entries of both |
//! | [`registers`] | its registers |
//! | [`hardware`] | what the driver needs of the world |

pub mod card;
pub mod descriptor;
pub mod hardware;
pub mod receive;
pub mod registers;
pub mod start;
pub mod transmit;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
