//! Why a disk is not to be had.

use crate::disk::gpt::TableError;
use alloc::string::String;

/// Longest name of a disk that is made.
pub(super) const MOST_NAME: usize = 32;

/// Why a disk is not to be had.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DiskRefused {
    /// There is none of that name.
    #[error("there is no disk '{name}'{advice}")]
    Unknown {
        /// The name.
        name: String,
        /// What to do, beginning with a colon.
        advice: String,
    },
    /// Somebody else uses it, or a part of it.
    #[error("'{name}' is in use by {user}")]
    InUse {
        /// What is used.
        name: String,
        /// By whom.
        user: String,
    },
    /// It cannot be written.
    #[error("'{0}' is read-only")]
    ReadOnly(String),
    /// A disk of that name exists.
    #[error("there is a disk '{0}' already")]
    Exists(String),
    /// The name cannot be one.
    #[error(
        "'{0}' cannot be the name of a disk: take letters, digits, '-' and '_', a letter first, at most {MOST_NAME}, and none that \
         begins with nvme"
    )]
    Name(String),
    /// It is not a disk of memory.
    #[error("'{0}' is not a disk of memory, and stays")]
    NotMemory(String),
    /// It is not one that partitions are looked for on.
    #[error("'{0}' is a partition, or has none")]
    NoPartitions(String),
    /// Its size makes no sense.
    #[error("'{0}': give a size, as in ram:64MiB")]
    Size(String),
    /// There is too little memory.
    #[error("there is too little memory for a disk of {0} MiB; {1} MiB can be had")]
    Memory(u64, u64),
    /// Its partition table cannot be read.
    #[error("'{0}': {1}")]
    Table(String, TableError),
}
