//! Reading a GUID partition table (UEFI 2.10, 5.3). Everything in it is checked: anybody may have written it.

use super::crc32::Checksum;
use crate::memory::dma;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use vsp::storage::disk::{Disk, DiskError};

const SIGNATURE: &[u8; 8] = b"EFI PART";
/// Bytes of a header that are understood.
const HEADER: usize = 92;
/// Bytes of an entry that are understood.
const ENTRY: usize = 128;
/// Most bytes of a table: 128 entries of 128 bytes are usual, and take 16 KiB.
const MOST_BYTES: u64 = 256 << 10;

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
    /// There is no table.
    #[error("there is no GUID partition table on it")]
    Missing,
    /// Neither the table nor its copy is sound.
    #[error("its partition table is damaged: {0}")]
    Damaged(&'static str),
    /// The disk could not be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
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
            TableError::Missing => second,
            first => first,
        }),
        _ => Err(TableError::Missing),
    }
}

async fn read_at(disk: &impl Disk, header_sector: u64) -> Result<Vec<Partition>, TableError> {
    let geometry = disk.geometry();
    let sector_bytes = u64::from(geometry.sector_size.bytes());
    let sector = sectors(disk, header_sector, sector_bytes).await?;
    let header = Header::parse(&sector, header_sector, geometry.sectors)?;
    let bytes = u64::from(header.entries) * u64::from(header.entry_bytes);
    let table = sectors(disk, header.first_entry, bytes).await?;
    let table = table
        .get(..bytes as usize)
        .ok_or(TableError::Damaged("it is cut off"))?;
    if Checksum::of(table) != header.table_checksum {
        return Err(TableError::Damaged("the entries' checksum is wrong"));
    }
    Ok(partitions(table, &header))
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

/// What a header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Header {
    usable: (u64, u64),
    first_entry: u64,
    entries: u32,
    entry_bytes: u32,
    table_checksum: u32,
}

impl Header {
    /// Reads the header in `sector`, which lies at `at` of a disk of `sectors` sectors.
    fn parse(sector: &[u8], at: u64, sectors: u64) -> Result<Self, TableError> {
        let damaged = TableError::Damaged;
        if sector.get(..8) != Some(SIGNATURE) {
            return Err(TableError::Missing);
        }
        let length = u32_at(sector, 12) as usize;
        let header = sector.get(..length).filter(|header| header.len() >= HEADER);
        let mut header = header.ok_or(damaged("the header's length is wrong"))?.to_vec();
        let checksum = u32_at(&header, 16);
        header[16..20].fill(0);
        if Checksum::of(&header) != checksum {
            return Err(damaged("the header's checksum is wrong"));
        }
        if u64_at(&header, 24) != at {
            return Err(damaged("the header belongs elsewhere"));
        }
        let found = Self {
            usable: (u64_at(&header, 40), u64_at(&header, 48)),
            first_entry: u64_at(&header, 72),
            entries: u32_at(&header, 80),
            entry_bytes: u32_at(&header, 84),
            table_checksum: u32_at(&header, 88),
        };
        let bytes = u64::from(found.entries) * u64::from(found.entry_bytes);
        if (found.entry_bytes as usize) < ENTRY || !found.entry_bytes.is_multiple_of(8) {
            return Err(damaged("the entries' size is wrong"));
        }
        if bytes == 0 || bytes > MOST_BYTES {
            return Err(damaged("the number of entries is wrong"));
        }
        if found.usable.0 > found.usable.1 || found.usable.1 >= sectors || found.first_entry < 2 {
            return Err(damaged("it is for a larger disk"));
        }
        Ok(found)
    }
}

/// The entries that are in use and make sense: inside the usable sectors, and not over one another.
fn partitions(table: &[u8], header: &Header) -> Vec<Partition> {
    let mut found: Vec<Partition> = Vec::new();
    for (number, entry) in (1..).zip(table.chunks_exact(header.entry_bytes as usize)) {
        if entry.iter().take(16).all(|&byte| byte == 0) {
            continue;
        }
        let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
        if first < header.usable.0 || last > header.usable.1 || first > last {
            log::warn!("partition {number} lies outside of its disk, and is left out");
            continue;
        }
        let sectors = first..last + 1;
        let overlaps =
            |other: &&Partition| other.sectors.start < sectors.end && sectors.start < other.sectors.end;
        if let Some(other) = found.iter().find(overlaps) {
            log::warn!(
                "partition {number} overlaps partition {}, and is left out",
                other.number
            );
            continue;
        }
        found.push(Partition {
            number,
            sectors,
            name: name(entry.get(56..ENTRY).unwrap_or_default()),
        });
    }
    found
}

/// A name in UTF-16, which ends at the first zero.
fn name(field: &[u8]) -> String {
    let (pairs, _) = field.as_chunks::<2>();
    let units = pairs.iter().map(|pair| u16::from_le_bytes(*pair));
    let characters = char::decode_utf16(units.take_while(|&unit| unit != 0));
    characters
        .map(|character| character.unwrap_or(char::REPLACEMENT_CHARACTER))
        .filter(|character| !character.is_control())
        .collect()
}

/// The number at `at`, zero where there is none.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let number = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    number.map_or(0, u32::from_le_bytes)
}

/// As [`u32_at`].
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let number = bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    number.map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::disk::ram::RamDisk;
    use crate::shell::fake::block_on;
    use proptest::prelude::*;
    use vsp::storage::disk::Durability;

    const SECTOR: usize = 512;

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
        header[..8].copy_from_slice(SIGNATURE);
        header[8..16].copy_from_slice(&[0, 0, 1, 0, 92, 0, 0, 0]);
        for (offset, value) in [(24, at), (40, 34), (48, sectors - 34), (72, entries_at)] {
            header[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        }
        for (offset, value) in [(80, 128), (84, ENTRY as u32), (88, Checksum::of(&entries))] {
            header[offset..offset + 4].copy_from_slice(&u32::to_le_bytes(value));
        }
        seal(&mut header);
        (header, entries)
    }

    fn seal(header: &mut [u8]) {
        header[16..20].fill(0);
        let sum = Checksum::of(&header[..HEADER]);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
    }

    pub(crate) fn put(disk: &RamDisk, sector: u64, bytes: &[u8]) {
        let buffer = dma::buffer(bytes.len()).unwrap();
        buffer.copy_from(0, bytes).unwrap();
        block_on(disk.write(sector, &buffer, Durability::Cached)).unwrap();
    }

    /// A disk of 1 MiB with these partitions.
    pub(crate) fn disk(partitions: &[(Range<u64>, &str)]) -> RamDisk {
        let disk = RamDisk::new(1 << 20).unwrap();
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
        let found = block_on(read(&disk)).unwrap();
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
        assert_eq!(block_on(read(&disk)).unwrap().len(), 1);
        let last = disk.geometry().sectors - 1;
        put(&disk, last, &[0; SECTOR]);
        assert_eq!(
            block_on(read(&disk)),
            Err(TableError::Damaged("the entries' checksum is wrong"))
        );
    }

    #[test]
    fn an_empty_disk_has_no_table() {
        for bytes in [1, 1 << 20] {
            assert_eq!(
                block_on(read(&RamDisk::new(bytes).unwrap())),
                Err(TableError::Missing)
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
        let names: Vec<String> = block_on(read(&disk))
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
            let sum = Checksum::of(&entries);
            header[88..92].copy_from_slice(&sum.to_le_bytes());
            header[12..16].copy_from_slice(&length.to_le_bytes());
            header[at..at + 4].copy_from_slice(&value.to_le_bytes()[..4]);
            seal(&mut header);
            put(&disk, 1, &header);
            put(&disk, 2, &entries);
            put(&disk, sectors - 1, &[0; SECTOR]);
            if let Ok(partitions) = block_on(read(&disk)) {
                prop_assert!(partitions.iter().all(|partition| partition.sectors.end <= sectors));
            }
        }
    }
}
