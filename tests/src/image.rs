//! Disk images for machines, and what is on them.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::Result;
use tempfile::TempDir;

/// Bytes of a sector of the images that are made here.
pub const SECTOR: usize = 512;
const ENTRY: usize = 128;

/// A folder for images, gone when it is dropped.
#[derive(Debug)]
pub struct Images(TempDir);

impl Images {
    /// An empty folder.
    pub fn new() -> Result<Self> {
        Ok(Self(
            tempfile::Builder::new().prefix("partita-images-").tempdir()?,
        ))
    }

    /// An image with these bytes.
    pub fn image(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.0.path().join(name);
        fs::write(&path, bytes)?;
        Ok(path)
    }
}

/// Bytes that repeat nowhere nearby.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = vec![0; length];
    for word in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
    }
    bytes
}

/// CRC-32 (IEEE 802.3), bit by bit: written apart from the one that is tested.
pub fn crc32(bytes: &[u8]) -> u32 {
    let table: Vec<u32> = (0..256)
        .map(|byte| {
            (0..8).fold(byte, |value: u32, _| {
                value >> 1 ^ (0xedb8_8320 & (value & 1).wrapping_neg())
            })
        })
        .collect();
    !bytes.iter().fold(!0, |sum: u32, byte| {
        sum >> 8 ^ table[usize::from(sum as u8 ^ byte)]
    })
}

/// The checksum of a file, as the shell shows it.
pub fn file_crc32(path: &Path) -> Result<String> {
    Ok(format!("{:08x}", crc32(&fs::read(path)?)))
}

/// Writes a GUID partition table (UEFI 2.10, 5.3) and its copy over `image`.
pub fn partition(image: &mut [u8], partitions: &[(Range<u64>, &str)]) {
    let sectors = (image.len() / SECTOR) as u64;
    let mut entries = vec![0; 128 * ENTRY];
    for ((number, (range, name)), entry) in (1..).zip(partitions).zip(entries.chunks_mut(ENTRY)) {
        entry[..32].fill(number);
        entry[32..40].copy_from_slice(&range.start.to_le_bytes());
        entry[40..48].copy_from_slice(&(range.end - 1).to_le_bytes());
        for (unit, bytes) in name.encode_utf16().zip(entry[56..].chunks_mut(2)) {
            bytes.copy_from_slice(&unit.to_le_bytes());
        }
    }
    let last = sectors - 1;
    for (at, entries_at) in [(1, 2), (last, last - 32)] {
        let header = header(at, last - at + 1, entries_at, sectors, crc32(&entries));
        put(image, at, &header);
        put(image, entries_at, &entries);
    }
}

fn header(at: u64, other: u64, entries_at: u64, sectors: u64, entries_sum: u32) -> Vec<u8> {
    let mut header = vec![0; 92];
    header[..16].copy_from_slice(b"EFI PART\0\0\x01\0\x5c\0\0\0");
    for (offset, value) in [
        (24, at),
        (32, other),
        (40, 34),
        (48, sectors - 34),
        (72, entries_at),
    ] {
        header[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    }
    for (offset, value) in [(80, 128), (84, ENTRY as u32), (88, entries_sum)] {
        header[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }
    let sum = crc32(&header);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    header
}

fn put(image: &mut [u8], sector: u64, bytes: &[u8]) {
    let at = sector as usize * SECTOR;
    image[at..at + bytes.len()].copy_from_slice(bytes);
}
