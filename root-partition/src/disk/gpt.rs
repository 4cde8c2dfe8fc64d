//! Reading a GUID partition table (UEFI 2.10, 5.3): [`vsc::partition::table`] checks all that is in it, as anybody may have written it.

use crate::memory::dma;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use vsc::partition::table::{Table, Unsound};
use vsp::storage::disk::{Disk, DiskError};

/// A partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    /// Its place in the table, from 1.
    pub number: u32,
    /// Its sectors.
    pub sectors: Range<u64>,
    /// Its name.
    pub name: String,
}

/// Why there are no partitions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TableError {
    /// There is no table, or neither it nor its copy is sound.
    #[error(transparent)]
    Unsound(#[from] Unsound),
    /// The disk could not be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl TableError {
    /// There is none.
    pub const MISSING: Self = Self::Unsound(Unsound::Missing);
}

/// The partitions of `disk`, from the table at its beginning, or else from the copy at its end.
pub async fn read(disk: &impl Disk) -> Result<Vec<Partition>, TableError> {
    let sectors = disk.geometry().sectors;
    let first = match read_at(disk, 1).await {
        Ok(partitions) => return Ok(partitions),
        Err(error) => error,
    };
    match sectors.checked_sub(1) {
        Some(last) if last > 1 => read_at(disk, last).await.map_err(|second| match first {
            TableError::MISSING => second,
            first => first,
        }),
        _ => Err(TableError::MISSING),
    }
}

async fn read_at(disk: &impl Disk, header_sector: u64) -> Result<Vec<Partition>, TableError> {
    let geometry = disk.geometry();
    let sector = sectors(disk, header_sector, geometry.sector_size.bytes().into()).await?;
    let table = Table::parse(&sector, header_sector, geometry.sectors)?;
    let mut entries = sectors(disk, table.first_block(), table.bytes()).await?;
    entries.truncate(table.bytes() as usize);
    let partitions = table.partitions(&entries)?.into_iter();
    Ok(partitions
        .map(|partition| Partition {
            number: partition.number,
            sectors: partition.first..partition.first + partition.blocks,
            name: partition.name,
        })
        .collect())
}

/// At least `bytes` bytes from `sector` on, in whole sectors.
async fn sectors(disk: &impl Disk, sector: u64, bytes: u64) -> Result<Vec<u8>, TableError> {
    let sector_bytes = u64::from(disk.geometry().sector_size.bytes());
    let length = bytes.next_multiple_of(sector_bytes) as usize;
    let buffer = dma::buffer(length).ok_or(TableError::Disk(DiskError::Failed))?;
    disk.read(sector, &buffer).await?;
    let mut copy = vec![0; length];
    buffer
        .copy_to(0, &mut copy)
        .map_err(|_| TableError::Disk(DiskError::BufferSize))?;
    Ok(copy)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::disk::ram::{self, RamDisk};
    use crate::shell::fake::block_on;
    use alloc::sync::Arc;
    use proptest::prelude::*;
    use vsc::checksum::Crc32;
    use vsp::storage::disk::Durability;

    const SECTOR: usize = 512;
    /// Bytes of a header, and of an entry.
    const HEADER: usize = 92;
    const ENTRY: usize = 128;

    /// A table for a disk of `sectors` sectors of 512 bytes, as at `at`: one sector of header, 32 of entries.
    pub(crate) fn table(
        sectors: u64,
        at: u64,
        entries_at: u64,
        partitions: &[(Range<u64>, &str)],
    ) -> (Vec<u8>, Vec<u8>) {
        let mut entries = vec![0; 128 * ENTRY];
        for ((range, name), entry) in partitions.iter().zip(entries.chunks_mut(ENTRY)) {
            entry[..16].fill(0xaa);
            entry[32..40].copy_from_slice(&range.start.to_le_bytes());
            entry[40..48].copy_from_slice(&(range.end - 1).to_le_bytes());
            for (unit, bytes) in name.encode_utf16().zip(entry[56..].chunks_mut(2)) {
                bytes.copy_from_slice(&unit.to_le_bytes());
            }
        }
        let mut header = vec![0; SECTOR];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..16].copy_from_slice(&[0, 0, 1, 0, 92, 0, 0, 0]);
        for (offset, value) in [(24, at), (40, 34), (48, sectors - 34), (72, entries_at)] {
            header[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        }
        for (offset, value) in [(80, 128), (84, ENTRY as u32), (88, Crc32::of(&entries))] {
            header[offset..offset + 4].copy_from_slice(&u32::to_le_bytes(value));
        }
        seal(&mut header);
        (header, entries)
    }

    fn seal(header: &mut [u8]) {
        header[16..20].fill(0);
        let sum = Crc32::of(&header[..HEADER]);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
    }

    pub(crate) fn put(disk: &RamDisk, sector: u64, bytes: &[u8]) {
        let buffer = dma::buffer(bytes.len()).unwrap();
        buffer.copy_from(0, bytes).unwrap();
        block_on(disk.write(sector, &buffer, Durability::Cached)).unwrap();
    }

    /// A disk of 1 MiB with these partitions.
    pub(crate) fn disk(partitions: &[(Range<u64>, &str)]) -> Arc<RamDisk> {
        let disk = Arc::new(ram::of_size(1 << 20).unwrap());
        let sectors = disk.geometry().sectors;
        let (header, entries) = table(sectors, 1, 2, partitions);
        put(&disk, 1, &header);
        put(&disk, 2, &entries);
        let (header, entries) = table(sectors, sectors - 1, sectors - 33, partitions);
        put(&disk, sectors - 1, &header);
        put(&disk, sectors - 33, &entries);
        disk
    }

    #[test]
    fn partitions_are_read_with_their_numbers_ranges_and_names() {
        let disk = disk(&[(64..128, "boot"), (128..129, "größe")]);
        let found = block_on(read(&*disk)).unwrap();
        let seen: Vec<_> = found
            .iter()
            .map(|partition| (partition.number, partition.sectors.clone(), &*partition.name))
            .collect();
        assert_eq!(seen, [(1, 64..128, "boot"), (2, 128..129, "größe")]);
    }

    #[test]
    fn a_damaged_table_is_replaced_by_its_copy_and_without_that_refused() {
        let disk = disk(&[(64..128, "boot")]);
        put(&disk, 3, &[0xff; SECTOR]);
        put(&disk, 2, &[0xee; SECTOR]);
        assert_eq!(block_on(read(&*disk)).unwrap().len(), 1);
        let last = disk.geometry().sectors - 1;
        put(&disk, last, &[0; SECTOR]);
        assert_eq!(
            block_on(read(&*disk)),
            Err(TableError::Unsound(Unsound::Damaged(
                "the entries' checksum is wrong"
            )))
        );
    }

    #[test]
    fn an_empty_disk_has_no_table() {
        for bytes in [1, 1 << 20] {
            assert_eq!(
                block_on(read(&ram::of_size(bytes).unwrap())),
                Err(TableError::MISSING)
            );
        }
    }

    #[test]
    fn entries_that_overlap_or_leave_the_disk_are_left_out() {
        let disk = disk(&[
            (64..128, "a"),
            (100..200, "b"),
            (2040..4000, "c"),
            (1..2, "d"),
            (128..130, "e"),
        ]);
        let names: Vec<String> = block_on(read(&*disk))
            .unwrap()
            .into_iter()
            .map(|partition| partition.name)
            .collect();
        assert_eq!(names, ["a", "e"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// A header with right checksums and any numbers in it reads nothing outside of the disk and gives no partition there.
        #[test]
        fn any_header_is_read_without_a_panic(
            at in 24usize..88, value: u64, length in 0u32..700, entry in proptest::collection::vec(any::<u8>(), 128),
        ) {
            let disk = disk(&[(64..128, "boot")]);
            let sectors = disk.geometry().sectors;
            let (mut header, mut entries) = table(sectors, 1, 2, &[]);
            entries[..128].copy_from_slice(&entry);
            let sum = Crc32::of(&entries);
            header[88..92].copy_from_slice(&sum.to_le_bytes());
            header[12..16].copy_from_slice(&length.to_le_bytes());
            header[at..at + 4].copy_from_slice(&value.to_le_bytes()[..4]);
            seal(&mut header);
            put(&disk, 1, &header);
            put(&disk, 2, &entries);
            put(&disk, sectors - 1, &[0; SECTOR]);
            if let Ok(partitions) = block_on(read(&*disk)) {
                prop_assert!(partitions.iter().all(|partition| partition.sectors.end <= sectors));
            }
        }
    }
}
