//! What blocks say of a table, without a disk: a header is checked, then the entries that it tells of.

use super::Partition;
use super::layout::{Entry, Header, SIGNATURE};
use crate::checksum::Crc32;
use alloc::string::String;
use alloc::vec::Vec;
use uuid::Uuid;
use zerocopy::FromBytes;

/// Most bytes of a table; 16 KiB are usual.
const MOST_BYTES: u64 = 256 << 10;

/// Why there is no table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unsound {
    /// No header begins there.
    #[error("there is no GUID partition table on it")]
    Missing,
    /// There is one, and it is wrong.
    #[error("its partition table is damaged: {0}")]
    Damaged(&'static str),
}

/// A header that was checked.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    header: Header,
}

impl Table {
    /// The header in `block`, which lies at `at` of a disk of `blocks` blocks.
    pub fn parse(block: &[u8], at: u64, blocks: u64) -> Result<Self, Unsound> {
        let damaged = |why| Err(Unsound::Damaged(why));
        let Ok((header, _)) = Header::read_from_prefix(block) else {
            return Err(Unsound::Missing);
        };
        if header.signature != SIGNATURE {
            return Err(Unsound::Missing);
        }
        let size = header.size.get() as usize;
        let Some(whole) = block.get(..size).filter(|_| size >= size_of::<Header>()) else {
            return damaged("the header's length is wrong");
        };
        if Header::checksum_of(whole) != header.checksum.get() {
            return damaged("the header's checksum is wrong");
        }
        if header.here.get() != at {
            return damaged("the header belongs elsewhere");
        }
        let entry_size = header.entry_size.get();
        if (entry_size as usize) < size_of::<Entry>() || !entry_size.is_multiple_of(8) {
            return damaged("the entries' size is wrong");
        }
        let table = Self { header };
        if table.bytes() == 0 || table.bytes() > MOST_BYTES {
            return damaged("the number of entries is wrong");
        }
        let (first, last) = (header.first_usable.get(), header.last_usable.get());
        if first > last || last >= blocks || header.entries.get() < 2 {
            return damaged("it is for a larger disk");
        }
        Ok(table)
    }

    /// The block where the entries begin.
    pub const fn first_block(&self) -> u64 {
        self.header.entries.get()
    }

    /// Bytes of the entries, at most 256 KiB.
    pub const fn bytes(&self) -> u64 {
        self.header.count.get() as u64 * self.header.entry_size.get() as u64
    }

    /// The entries in `bytes`, as many as [`bytes`](Self::bytes) says, that are in use and lie inside the usable blocks, without those
    /// that lie over one before them.
    pub fn partitions(&self, bytes: &[u8]) -> Result<Vec<Partition>, Unsound> {
        let header = &self.header;
        if Crc32::of(bytes) != header.entries_checksum.get() {
            return Err(Unsound::Damaged("the entries' checksum is wrong"));
        }
        let usable = header.first_usable.get()..=header.last_usable.get();
        let mut found: Vec<Partition> = Vec::new();
        for (number, entry) in (1..).zip(bytes.chunks_exact(header.entry_size.get() as usize)) {
            let Ok((entry, _)) = Entry::read_from_prefix(entry) else {
                break;
            };
            let (first, last) = (entry.first.get(), entry.last.get());
            if entry.kind() == Uuid::nil() {
                continue;
            }
            let over = |other: &Partition| first < other.first + other.blocks && other.first <= last;
            if first > last || !usable.contains(&first) || !usable.contains(&last) || found.iter().any(over) {
                log::warn!("partition {number} lies where none can, and is left out");
                continue;
            }
            found.push(Partition {
                number,
                kind: entry.kind(),
                id: Uuid::from_bytes_le(entry.id),
                first,
                blocks: last - first + 1,
                name: name(entry.name.map(|unit| unit.get())),
            });
        }
        Ok(found)
    }
}

/// A name, which ends at the first zero, without what would move a terminal's cursor.
fn name(units: [u16; 36]) -> String {
    let units = units.into_iter().take_while(|unit| *unit != 0);
    let characters = char::decode_utf16(units);
    characters
        .map(|character| character.unwrap_or(char::REPLACEMENT_CHARACTER))
        .filter(|character| !character.is_control())
        .collect()
}
