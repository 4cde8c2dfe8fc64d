//! The management shell: commands in, tables or JSON out.
//!
//! The kernel implements [`system::System`] and [`terminal::Terminal`] and runs a [`session::Session`] as one task.
//! Nothing here touches hardware, so that all of it is tested on the host.
//!
//! | module | holds |
//! |---|---|
//! | [`commands`] | the table of commands, and what each does |
//! | [`console`] | the terminal as session and commands share it |
//! | [`disks`] | the trait by which commands see disks |
//! | [`editor`] | line editing, history |
//! | [`machines`] | the trait by which commands see virtual machines |
//! | [`network`] | the trait by which commands see the root's network |
//! | [`output`] | reports: tables for people, JSON for programs |
//! | [`parser`] | a line to words |
//! | [`session`] | one user at one terminal; scripts |
//! | [`status`] | how a command ended |
//! | [`switches`] | the trait by which commands see virtual switches and network cards |
//! | [`system`] | the trait by which commands see the world |
//! | [`terminal`] | the byte stream that the shell talks over |

pub mod commands;
pub mod console;
pub mod disks;
pub mod editor;
pub mod machines;
pub mod network;
pub mod output;
pub mod parser;
pub mod session;
pub mod status;
pub mod switches;
pub mod system;
pub mod terminal;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod fake_disks;
#[cfg(test)]
mod fake_machines;
#[cfg(test)]
mod fake_network;
#[cfg(test)]
mod fake_switches;
