//! What the hypervisor hands over at the start.
//!
//! | module | holds |
//! |---|---|
//! | [`start_info`] | `hvm_start_info`, copied once and checked |
//! | [`command_line`] | the words of the command line |

pub mod command_line;
pub mod start_info;

pub use command_line::CommandLine;
pub use start_info::{BootError, BootInfo};
