//! Disks of the root's memory.

use crate::memory::pages::Pages;
use vsp::storage::disk::SectorSize;
use vsp::storage::ram::STRIPE;

/// A disk of the root's pages.
pub type RamDisk = vsp::storage::ram::RamDisk<Pages>;

/// A disk of `bytes` bytes in sectors of 512, rounded up to whole [stripes](STRIPE), all zero; `None` where there is no such memory.
pub fn of_size(bytes: u64) -> Option<RamDisk> {
    let sector = SectorSize::Bytes512;
    let bytes = bytes.checked_next_multiple_of(STRIPE as u64)?;
    RamDisk::over(bytes >> sector.shift(), sector, Pages::allocate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vsp::storage::disk::Disk;

    #[test]
    fn sizes_are_rounded_up_and_what_is_too_large_is_refused() {
        assert_eq!(of_size(300_000).unwrap().geometry().sectors, 5 * 128);
        for bytes in [u64::MAX, 1 << 60] {
            assert!(of_size(bytes).is_none());
        }
    }
}
