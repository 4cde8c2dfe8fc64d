//! The driver of network cards: against the provider of this project, and against hosts that lie.

mod card;
mod liar;
mod stack;
mod world;
