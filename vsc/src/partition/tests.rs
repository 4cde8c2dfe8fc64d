//! Tables that are whole, and tables that are not.

use super::*;
use crate::block::{BlockDevice, Durability, Geometry};
use crate::memory::{Buffer, of_heap};
use crate::wait;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;
use spin::Mutex;

struct Memory {
    bytes: Mutex<Vec<u8>>,
    block_size: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("beyond the end")]
struct Beyond;

impl Memory {
    fn new(blocks: usize, block_size: u32) -> Self {
        Self {
            bytes: Mutex::new(vec![0; blocks * block_size as usize]),
            block_size,
        }
    }

    fn range(&self, block: u64, size: usize) -> Result<core::ops::Range<usize>, Beyond> {
        let start = usize::try_from(block)
            .ok()
            .and_then(|block| block.checked_mul(self.block_size as usize));
        let start = start.ok_or(Beyond)?;
        let end = start
            .checked_add(size)
            .filter(|end| *end <= self.bytes.lock().len());
        Ok(start..end.ok_or(Beyond)?)
    }
}

impl BlockDevice for Memory {
    type Error = Beyond;

    fn geometry(&self) -> Geometry {
        Geometry {
            blocks: self.bytes.lock().len() as u64 / u64::from(self.block_size),
            block_size: self.block_size,
            read_only: false,
            write_cache: false,
            discard: false,
        }
    }

    async fn read(&self, block: u64, buffer: &Arc<Buffer>) -> Result<(), Beyond> {
        let range = self.range(block, buffer.size())?;
        buffer.copy_from(0, &self.bytes.lock()[range]).map_err(|_| Beyond)
    }

    async fn write(&self, block: u64, buffer: &Arc<Buffer>, _: Durability) -> Result<(), Beyond> {
        let range = self.range(block, buffer.size())?;
        buffer
            .copy_to(0, &mut self.bytes.lock()[range])
            .map_err(|_| Beyond)
    }

    async fn flush(&self) -> Result<(), Beyond> {
        Ok(())
    }

    async fn discard(&self, _: u64, _: u64) -> Result<(), Beyond> {
        Ok(())
    }
}

const KIND: Uuid = Uuid::from_u128(0x1122_3344_5566_7788_99aa_bbcc_ddee_ff00);

fn read_table(device: &Memory) -> Result<Vec<Partition>, TableError<Beyond>> {
    wait::block_on(read(device, |length| Some(of_heap(length))), || {})
}

fn create_table(device: &Memory) -> Result<(), TableError<Beyond>> {
    let partition = NewPartition {
        kind: KIND,
        id: Uuid::from_u128(2),
        name: "demo",
    };
    let creating = create(device, Uuid::from_u128(1), partition, |length| {
        Some(of_heap(length))
    });
    wait::block_on(creating, || {})
}

#[test]
fn a_table_that_was_made_is_read() {
    for (blocks, block_size, usable) in [(100, 512, 34..=66), (20, 4096, 6..=14)] {
        let device = Memory::new(blocks, block_size);
        create_table(&device).unwrap();
        let table = read_table(&device).unwrap();
        assert_eq!(table.len(), 1);
        assert_eq!(
            (table[0].number, table[0].kind, &*table[0].name),
            (1, KIND, "demo")
        );
        assert_eq!(table[0].first..=table[0].first + table[0].blocks - 1, usable);
    }
}

#[test]
fn an_empty_disk_has_none_and_a_small_one_gets_none() {
    assert_eq!(read_table(&Memory::new(100, 512)), Err(TableError::Missing));
    assert_eq!(read_table(&Memory::new(0, 512)), Err(TableError::Missing));
    for blocks in [0, 1, 2, 66] {
        assert_eq!(create_table(&Memory::new(blocks, 512)), Err(TableError::TooSmall));
    }
}

#[test]
fn where_the_first_is_damaged_the_copy_is_read() {
    let device = Memory::new(100, 512);
    create_table(&device).unwrap();
    let whole = read_table(&device).unwrap();
    device.bytes.lock()[1024] ^= 1;
    assert_eq!(read_table(&device).unwrap(), whole);
    let copy = (99 - 32) * 512;
    device.bytes.lock()[copy] ^= 1;
    assert_eq!(
        read_table(&device),
        Err(TableError::Damaged("the entries' checksum is wrong"))
    );
}

proptest! {
    #[test]
    fn a_table_that_was_changed_anywhere_is_read_as_it_was_or_not_at_all(
        changes in prop::collection::vec((0..100 * 512_usize, any::<u8>()), 1..20),
        ends_too in any::<bool>(),
    ) {
        let device = Memory::new(100, 512);
        create_table(&device).unwrap();
        let whole = read_table(&device).unwrap();
        for (at, value) in changes {
            let at = if ends_too { at } else { at % 1024 };
            device.bytes.lock()[at] = value;
        }
        match read_table(&device) {
            Ok(table) => prop_assert_eq!(table, whole),
            Err(error) => prop_assert!(matches!(error, TableError::Damaged(_) | TableError::Missing)),
        }
    }
}
