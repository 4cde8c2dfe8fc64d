//! The driver of network cards: against the provider of this project. Hosts that lie are in `vsc::network::fuzz`.

mod card;
mod stack;
mod world;
