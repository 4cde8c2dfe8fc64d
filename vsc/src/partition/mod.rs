//! GUID partition tables (UEFI 2.10, 5.3): reading one, and putting one on an empty disk. What is read is checked before it is
//! believed, as anybody may have written it.
//!
//! | file | what it is |
//! |---|---|
//! | `layout` | the structures on the disk |
//! | [`table`] | what blocks say of a table, without a disk |
//! | `read` | reading a table, from the disk's beginning or else from its end |
//! | `create` | putting a table on a disk |

mod create;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod layout;
mod read;
pub mod table;
#[cfg(test)]
mod tests;

pub use create::{NewPartition, create};
pub use read::{TableError, read};

use alloc::string::String;
use uuid::Uuid;

/// A partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    /// Its place in the table, from 1.
    pub number: u32,
    /// What it is for.
    pub kind: Uuid,
    /// Its name for ever.
    pub id: Uuid,
    /// Its first block.
    pub first: u64,
    /// Blocks.
    pub blocks: u64,
    /// Its name for people.
    pub name: String,
}
