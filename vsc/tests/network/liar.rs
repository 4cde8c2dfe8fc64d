//! Hosts that lie in one thing each; `vsc::network::fuzz` has those that lie in all.
