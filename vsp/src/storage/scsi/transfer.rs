//! Reads and writes (SBC-3), in all their forms: what nearly all requests are, so that they have a way of their own.

use super::Task;
use super::block::{MAX_TRANSFER, check, writable};
use super::cdb::Blocks;
use super::sense::Sense;
use crate::storage::disk::Durability;
use crate::storage::unit::Layout;
use vmbus::protocol::scsi::{FORCE_UNIT_ACCESS, operation};
use vmbus::protocol::storage::CDB_AND_SENSE;

/// A read or a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transfer {
    is_write: bool,
    /// Bits of byte 1; the shortest form has none.
    flags: u8,
    blocks: Blocks,
}

/// Flags for protection information, which we do not have.
const PROTECT: u8 = 7 << 5;

impl Transfer {
    /// The command in `cdb`, of which `length` bytes count, if it is a read or a write; an error where it is cut.
    #[inline(always)]
    pub fn parse(cdb: &[u8; CDB_AND_SENSE], length: u8) -> Option<Result<Self, Sense>> {
        use operation::*;
        let u32_at = |at: usize| u32::from_be_bytes([cdb[at], cdb[at + 1], cdb[at + 2], cdb[at + 3]]);
        let (needed, flags, first, count) = match cdb[0] {
            READ_10 | WRITE_10 => {
                let count = u16::from_be_bytes([cdb[7], cdb[8]]);
                (10, cdb[1], u32_at(2).into(), count.into())
            }
            READ_16 | WRITE_16 => {
                let first = u64::from(u32_at(2)) << 32 | u64::from(u32_at(6));
                (16, cdb[1], first, u32_at(10))
            }
            READ_12 | WRITE_12 => (12, cdb[1], u32_at(2).into(), u32_at(6)),
            READ_6 | WRITE_6 => {
                let first = u64::from(u32_at(0) & 0x1f_ffff);
                // Zero stands for 256.
                (6, 0, first, (u32::from(cdb[4]) + 255) % 256 + 1)
            }
            _ => return None,
        };
        if length < needed {
            return Some(Err(Sense::INVALID_FIELD));
        }
        Some(Ok(Self {
            is_write: matches!(cdb[0], WRITE_6 | WRITE_10 | WRITE_12 | WRITE_16),
            flags,
            blocks: Blocks { first, count },
        }))
    }

    /// What the disk has to do; nothing where there is nothing to transfer.
    #[inline(always)]
    pub fn task(self, layout: &Layout) -> Result<Option<Task>, Sense> {
        let Blocks { first, count } = self.blocks;
        if self.flags & PROTECT != 0 {
            return Err(Sense::INVALID_FIELD);
        }
        if self.is_write {
            writable(layout)?;
        }
        check(layout, first, count.into())?;
        if u64::from(count) * u64::from(layout.block) > u64::from(MAX_TRANSFER) {
            return Err(Sense::INVALID_FIELD);
        }
        if count == 0 {
            return Ok(None);
        }
        let (sector, bytes) = (layout.sector(first), (count * layout.block) as usize);
        Ok(Some(match self.is_write {
            true => Task::Write {
                sector,
                bytes,
                durability: match self.flags & FORCE_UNIT_ACCESS {
                    0 => Durability::Cached,
                    _ => Durability::OnMedium,
                },
            },
            // Whatever the medium holds that was not flushed is read all the same, so that the flag changes nothing.
            false => Task::Read { sector, bytes },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8], length: usize) -> Option<Result<Transfer, Sense>> {
        let mut cdb = [0; CDB_AND_SENSE];
        cdb[..bytes.len()].copy_from_slice(bytes);
        Transfer::parse(&cdb, length as u8)
    }

    fn blocks(bytes: &[u8]) -> Blocks {
        parse(bytes, bytes.len()).unwrap().unwrap().blocks
    }

    #[test]
    fn each_form_of_read_names_its_blocks() {
        let expected = Blocks {
            first: 0x1_0203,
            count: 5,
        };
        assert_eq!(
            blocks(&[0x08, 0xe1, 2, 3, 5, 0]),
            expected,
            "the high bits of byte 1 do not count"
        );
        assert_eq!(blocks(&[0x28, 0, 0, 1, 2, 3, 0, 0, 5, 0]), expected);
        assert_eq!(blocks(&[0xa8, 0, 0, 1, 2, 3, 0, 0, 0, 5, 0, 0]), expected);
        assert_eq!(
            blocks(&[0x88, 0, 0, 0, 0, 0, 0, 1, 2, 3, 0, 0, 0, 5, 0, 0]),
            expected
        );
        assert_eq!(blocks(&[0x08, 0, 0, 0, 0, 0]).count, 256);
        assert_eq!(blocks(&[0x28, 0, 0, 0, 0, 0, 0, 0, 0, 0]).count, 0);
    }

    #[test]
    fn a_write_is_none_by_accident() {
        for (read, write, length) in [
            (0x08, 0x0a, 6),
            (0x28, 0x2a, 10),
            (0xa8, 0xaa, 12),
            (0x88, 0x8a, 16),
        ] {
            for (code, is_write) in [(read, false), (write, true)] {
                assert_eq!(
                    parse(&[code], length).unwrap().unwrap().is_write,
                    is_write,
                    "{code:#x}"
                );
                assert_eq!(parse(&[code], length - 1).unwrap(), Err(Sense::INVALID_FIELD));
            }
        }
        assert_eq!(parse(&[0x12], 6), None);
    }
}
