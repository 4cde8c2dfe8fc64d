//! How a command ended.

use alloc::string::String;
use core::fmt;

use super::{parser::ParseError, system::SystemError};

/// The status of a command. An open set: later commands may have more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status(pub u8);

impl Status {
    /// It did what was asked.
    pub const OK: Self = Self(0);
    /// It could not, or found that something is wrong.
    pub const FAILED: Self = Self(1);
    /// It was not understood, and nothing was done.
    pub const USAGE: Self = Self(2);
    /// Ctrl-C ended it.
    pub const INTERRUPTED: Self = Self(130);

    /// Whether it is [`Status::OK`].
    pub fn is_ok(self) -> bool {
        self == Self::OK
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Why a command did not do what was asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// The line is wrong: a sentence that says what is, and what would be right.
    #[error("{0}")]
    Usage(String),
    /// The line cannot be split into words.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The system could not do it.
    #[error(transparent)]
    System(#[from] SystemError),
}

impl Failure {
    /// The status that it gives the command.
    pub fn status(&self) -> Status {
        match self {
            Self::Usage(_) | Self::Parse(_) => Status::USAGE,
            Self::System(_) => Status::FAILED,
        }
    }
}
