//! The management shell: commands in, tables or JSON out.
//!
//! | module | holds |
//! |---|---|
//! | [`system`] | the trait by which commands see the world; the kernel implements it |
//! | [`terminal`] | the byte stream that the shell talks over; the kernel implements it |

pub mod editor;
pub mod parser;
pub mod system;
pub mod terminal;
