//! Entry for fuzzers: a disk whose partition table is what somebody likes.

use super::layout::{Entry, Header, SIGNATURE};
use super::table::Table;
use crate::checksum::Crc32;
use alloc::vec;
use vmbus::fuzz::Input;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

const BLOCK: usize = 512;

/// A header and entries: any bytes, and a header whose checksums are right and whose numbers are small. What is found lies inside of
/// the disk, and nothing over anything else.
pub fn table(data: &[u8]) {
    let _ = Table::parse(data, 1, 1000);
    let mut input = Input::new(data);
    let blocks = 40 + u64::from(input.byte()) * 4;
    let (count, entry_size) = (input.small(20), 128 + 8 * input.small(3));
    let mut bytes = vec![0; (count * entry_size) as usize];
    for entry in bytes.chunks_exact_mut(entry_size as usize) {
        let (kind, first, length) = (input.small(3) as u8, input.word() % 1100, u32::from(input.byte()));
        entry[0] = kind;
        entry[32..40].copy_from_slice(&u64::from(first).to_le_bytes());
        let last = match input.small(16) {
            0 => u64::MAX - u64::from(length),
            _ => u64::from(first + length),
        };
        entry[40..48].copy_from_slice(&last.to_le_bytes());
        entry[56..size_of::<Entry>()].fill_with(|| input.byte());
    }
    let number = |value: u32| U64::new(value.into());
    let mut header = Header {
        signature: SIGNATURE,
        revision: U32::new(0x1_0000),
        size: U32::new(size_of::<Header>() as u32 + input.small(4)),
        checksum: U32::ZERO,
        reserved: U32::ZERO,
        here: number(1),
        other: number(input.small(2)),
        first_usable: number(input.small(60)),
        last_usable: number(input.word() % 1100),
        disk: [0; 16],
        entries: number(input.small(8)),
        count: U32::new(count),
        entry_size: U32::new(entry_size),
        entries_checksum: U32::new(Crc32::of(&bytes)),
    };
    let mut block = [0; BLOCK];
    block[..size_of::<Header>()].copy_from_slice(header.as_bytes());
    header.checksum = U32::new(Crc32::of(&block[..header.size.get() as usize]));
    block[..size_of::<Header>()].copy_from_slice(header.as_bytes());
    let Ok(table) = Table::parse(&block, 1, blocks) else {
        return;
    };
    assert_eq!(table.bytes(), bytes.len() as u64);
    let found = table.partitions(&bytes).unwrap_or_default();
    for (index, one) in found.iter().enumerate() {
        let end = one.first + one.blocks;
        assert!(one.blocks > 0 && end <= blocks, "a partition beyond the disk");
        assert!(one.name.chars().all(|character| !character.is_control()));
        for other in &found[..index] {
            assert!(
                other.first + other.blocks <= one.first || end <= other.first,
                "two overlap"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_table_that_lies_names_nothing_outside_of_its_disk(data in prop::collection::vec(any::<u8>(), 0..2000)) {
            super::table(&data);
        }
    }
}
