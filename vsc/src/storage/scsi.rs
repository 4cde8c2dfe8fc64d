//! Command blocks, and what commands return (SPC-4, SBC-3). What a unit returns is believed as far as it was transferred.

use core::fmt;
use vmbus::protocol::scsi::vital::{BLOCK_LIMITS, PROVISIONING};
use vmbus::protocol::scsi::{
    FORCE_UNIT_ACCESS, READ_CAPACITY_16, SENSE_DESCRIPTOR, SENSE_FIXED, SENSE_VALID, WRITE_CACHE,
    WRITE_PROTECTED, device_type as types, mode, operation, sense_key,
};
use vmbus::protocol::storage::MAX_CDB;

/// A command block and its length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cdb {
    pub(super) bytes: [u8; MAX_CDB],
    pub(super) length: u8,
}

impl Cdb {
    fn new<const N: usize>(bytes: [u8; N]) -> Self {
        const { assert!(N <= MAX_CDB) };
        let mut block = [0; MAX_CDB];
        block[..N].copy_from_slice(&bytes);
        Self {
            bytes: block,
            length: N as u8,
        }
    }

    pub(super) fn test_unit_ready() -> Self {
        Self::new([operation::TEST_UNIT_READY, 0, 0, 0, 0, 0])
    }

    /// Standard data, or a page of vital product data.
    pub(super) fn inquiry(page: Option<u8>, length: u16) -> Self {
        let [high, low] = length.to_be_bytes();
        Self::new([
            operation::INQUIRY,
            page.is_some().into(),
            page.unwrap_or(0),
            high,
            low,
            0,
        ])
    }

    pub(super) fn report_luns(length: u32) -> Self {
        let mut bytes = [0; 12];
        bytes[0] = operation::REPORT_LUNS;
        bytes[6..10].copy_from_slice(&length.to_be_bytes());
        Self::new(bytes)
    }

    pub(super) fn read_capacity_10() -> Self {
        let mut bytes = [0; 10];
        bytes[0] = operation::READ_CAPACITY_10;
        Self::new(bytes)
    }

    pub(super) fn read_capacity_16(length: u32) -> Self {
        let mut bytes = [0; 16];
        (bytes[0], bytes[1]) = (operation::SERVICE_ACTION_IN_16, READ_CAPACITY_16);
        bytes[10..14].copy_from_slice(&length.to_be_bytes());
        Self::new(bytes)
    }

    /// The mode page of the cache, without block descriptors.
    pub(super) fn mode_sense_caching(length: u8) -> Self {
        Self::new([operation::MODE_SENSE_6, 1 << 3, mode::CACHING, 0, length, 0])
    }

    /// A read, or a write.
    pub(super) fn transfer(transfer: &Transfer) -> Self {
        let mut bytes = [0; MAX_CDB];
        let length = transfer.encode(&mut bytes);
        Self { bytes, length }
    }

    /// All of the disk.
    pub(super) fn synchronize_cache() -> Self {
        let mut bytes = [0; 10];
        bytes[0] = operation::SYNCHRONIZE_CACHE_10;
        Self::new(bytes)
    }

    pub(super) fn unmap(list_length: u16) -> Self {
        let mut bytes = [0; 10];
        bytes[0] = operation::UNMAP;
        bytes[7..9].copy_from_slice(&list_length.to_be_bytes());
        Self::new(bytes)
    }
}

/// What a read or a write says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    pub(super) is_write: bool,
    /// Not only into a cache.
    pub(super) fua: bool,
    /// The first block.
    pub(super) block: u64,
    /// Blocks.
    pub(super) count: u32,
}

impl Transfer {
    /// Writes it as a command to `cdb`, which is zero, and gives the command's length: 10 bytes where that is enough, else 16.
    #[inline(always)]
    pub(super) fn encode(&self, cdb: &mut [u8; MAX_CDB]) -> u8 {
        let (Ok(block), Ok(count)) = (u32::try_from(self.block), u16::try_from(self.count)) else {
            return self.encode_long(cdb);
        };
        cdb[0] = match self.is_write {
            false => operation::READ_10,
            true => operation::WRITE_10,
        };
        cdb[1] = self.flags();
        cdb[2..6].copy_from_slice(&block.to_be_bytes());
        cdb[7..9].copy_from_slice(&count.to_be_bytes());
        10
    }

    #[cold]
    fn encode_long(&self, cdb: &mut [u8; MAX_CDB]) -> u8 {
        cdb[0] = match self.is_write {
            false => operation::READ_16,
            true => operation::WRITE_16,
        };
        cdb[1] = self.flags();
        cdb[2..10].copy_from_slice(&self.block.to_be_bytes());
        cdb[10..14].copy_from_slice(&self.count.to_be_bytes());
        16
    }

    const fn flags(&self) -> u8 {
        if self.fua { FORCE_UNIT_ACCESS } else { 0 }
    }
}

/// Bytes of the parameter list of `UNMAP` with one descriptor.
pub(super) const UNMAP_LIST: usize = 24;

/// The parameter list of `UNMAP` with one descriptor.
pub(super) fn unmap_list(block: u64, count: u32) -> [u8; UNMAP_LIST] {
    let mut list = [0; UNMAP_LIST];
    list[0..2].copy_from_slice(&22_u16.to_be_bytes());
    list[2..4].copy_from_slice(&16_u16.to_be_bytes());
    list[8..16].copy_from_slice(&block.to_be_bytes());
    list[16..20].copy_from_slice(&count.to_be_bytes());
    list
}

/// What a unit is. An open set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceType(pub u8);

impl DeviceType {
    /// A disk.
    pub const DISK: Self = Self(types::DISK);
    /// A CD or DVD drive.
    pub const DVD: Self = Self(types::OPTICAL);
}

/// Number of `N` bytes at `offset`.
fn number<const N: usize>(data: &[u8], offset: usize) -> Option<[u8; N]> {
    data.get(offset..)?.first_chunk().copied()
}

/// What standard inquiry data say the unit is; `None` where there is no unit.
pub(super) fn device_type(data: &[u8]) -> Option<DeviceType> {
    let first = *data.first()?;
    (first >> 5 == 0).then_some(DeviceType(first & 0x1f))
}

/// The units of what `REPORT LUNS` returns, those that can be addressed by a byte.
pub(super) fn luns(data: &[u8]) -> impl Iterator<Item = u8> + use<'_> {
    let length = number(data, 0).map_or(0, |length| u32::from_be_bytes(length) as usize);
    let list = data.get(8..).unwrap_or_default();
    let list = list.get(..length).unwrap_or(list);
    list.chunks_exact(8).filter_map(|lun| match lun {
        [0, lun, 0, 0, 0, 0, 0, 0] => Some(*lun),
        _ => None,
    })
}

/// Blocks and bytes of one, of what `READ CAPACITY(10)` returns; `None` for the blocks where they are too many to say.
pub(super) fn capacity_10(data: &[u8]) -> Option<(Option<u64>, u32)> {
    let last = u32::from_be_bytes(number(data, 0)?);
    let size = u32::from_be_bytes(number(data, 4)?);
    Some(((last != u32::MAX).then_some(u64::from(last) + 1), size))
}

/// Blocks, bytes of one, and whether they can be given up, of what `READ CAPACITY(16)` returns.
pub(super) fn capacity_16(data: &[u8]) -> Option<(u64, u32, bool)> {
    let last = u64::from_be_bytes(number(data, 0)?);
    let size = u32::from_be_bytes(number(data, 8)?);
    let flags = data.get(14).copied().unwrap_or(0);
    Some((last.checked_add(1)?, size, flags & 0x80 != 0))
}

/// Whether the medium is write-protected and whether there is a write cache, of what `MODE SENSE(6)` returns.
pub(super) fn mode_caching(data: &[u8]) -> Option<(bool, bool)> {
    let (protected, descriptors) = (data.get(2)? & WRITE_PROTECTED != 0, usize::from(*data.get(3)?));
    let page = data.get(4 + descriptors..).unwrap_or_default();
    let cache = match page {
        [code, _, flags, ..] if code & 0x3f == mode::CACHING => flags & WRITE_CACHE != 0,
        _ => false,
    };
    Some((protected, cache))
}

/// Most blocks that one `UNMAP` may name, of the page [`BLOCK_LIMITS`]; zero: none.
pub(super) fn max_unmap(data: &[u8]) -> u32 {
    match data {
        [_, BLOCK_LIMITS, ..] => number(data, 20).map_or(0, u32::from_be_bytes),
        _ => 0,
    }
}

/// Whether `UNMAP` is understood, of the page [`PROVISIONING`].
pub(super) fn understands_unmap(data: &[u8]) -> bool {
    matches!(data, [_, PROVISIONING, _, _, _, flags, ..] if flags & 0x80 != 0)
}

/// Why a unit refuses a command: sense key, additional code and qualifier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sense {
    /// Kind of failure, 4 bits.
    pub key: u8,
    /// Additional sense code.
    pub code: u8,
    /// Its qualifier.
    pub qualifier: u8,
    /// The first block that it is about, if it says so.
    pub block: Option<u64>,
}

impl Sense {
    /// [`key`](Self::key): not ready.
    pub const NOT_READY: u8 = sense_key::NOT_READY;
    /// [`key`](Self::key): the medium is bad.
    pub const MEDIUM_ERROR: u8 = sense_key::MEDIUM_ERROR;
    /// [`key`](Self::key): the request makes no sense.
    pub const ILLEGAL_REQUEST: u8 = sense_key::ILLEGAL_REQUEST;
    /// [`key`](Self::key): something has changed.
    pub const UNIT_ATTENTION: u8 = sense_key::UNIT_ATTENTION;
    /// [`key`](Self::key): given up, may be tried again.
    pub const ABORTED: u8 = sense_key::ABORTED;

    /// What sense data say, in the fixed or the descriptor format; `None` if they are none.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let byte = |index: usize| data.get(index).copied().unwrap_or(0);
        let first = *data.first()?;
        match first & 0x7e {
            SENSE_FIXED if data.len() >= 3 => {
                let block = number(data, 3).map(|block| u64::from(u32::from_be_bytes(block)));
                Some(Self {
                    key: byte(2) & 0xf,
                    code: byte(12),
                    qualifier: byte(13),
                    block: block.filter(|_| first & SENSE_VALID != 0),
                })
            }
            SENSE_DESCRIPTOR if data.len() >= 4 => Some(Self {
                key: byte(1) & 0xf,
                code: byte(2),
                qualifier: byte(3),
                block: None,
            }),
            _ => None,
        }
    }
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key, code, qualifier, ..
        } = self;
        write!(f, "sense {key:x}/{code:02x}/{qualifier:02x}")?;
        match self.block {
            Some(block) => write!(f, " at block {block}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn a_transfer_takes_the_shortest_command_that_can_say_it() {
        let transfer = |is_write, fua, block, count| {
            Cdb::transfer(&Transfer {
                is_write,
                fua,
                block,
                count,
            })
        };
        let short = transfer(false, false, u32::MAX.into(), u16::MAX.into());
        assert_eq!((short.bytes[0], short.length), (0x28, 10));
        for (block, count) in [(1 << 32, 1), (0, 1 << 16)] {
            let long = transfer(true, true, block, count);
            assert_eq!((long.bytes[0], long.bytes[1], long.length), (0x8a, 8, 16));
        }
        assert_eq!(
            transfer(false, false, 0x0102_0304_0506, 7).bytes,
            [0x88, 0, 0, 0, 1, 2, 3, 4, 5, 6, 0, 0, 0, 7, 0, 0]
        );
    }

    #[test]
    fn nothing_is_read_beyond_what_was_transferred() {
        let data = [0xff; 64];
        for length in 0..data.len() {
            let data = &data[..length];
            let _ = (device_type(data), capacity_10(data), capacity_16(data));
            let _ = (mode_caching(data), max_unmap(data), understands_unmap(data));
            let _ = Sense::parse(data);
            assert!(luns(data).count() <= length / 8);
        }
    }

    #[test]
    fn a_list_of_luns_ends_where_it_says() {
        let mut data = [0; 40];
        data[3] = 16;
        data[17] = 5;
        data[25] = 6;
        assert_eq!(luns(&data).collect::<Vec<_>>(), [0, 5]);
        data[8] = 0x40;
        assert_eq!(luns(&data).collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn a_capacity_that_does_not_fit_is_not_believed() {
        assert_eq!(
            capacity_10(&[0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0]),
            Some((None, 512))
        );
        assert_eq!(capacity_16(&[0xff; 32]), None);
    }

    #[test]
    fn sense_is_read_in_either_format_and_cut_short() {
        let sense = |key, code, qualifier, block| {
            Some(Sense {
                key,
                code,
                qualifier,
                block,
            })
        };
        assert_eq!(Sense::parse(&[0x72, 6, 0x29, 1]), sense(6, 0x29, 1, None));
        let fixed = [0xf0, 0, 3, 0, 0, 1, 0, 10, 0, 0, 0, 0, 0x11, 2];
        assert_eq!(Sense::parse(&fixed), sense(3, 0x11, 2, Some(256)));
        assert_eq!(Sense::parse(&[0x70, 0, 6]), sense(6, 0, 0, None));
        for bytes in [&[][..], &[0x70], &[0x72, 6], &[0x28, 0, 6, 0]] {
            assert_eq!(Sense::parse(bytes), None);
        }
    }
}
