//! What `Identify` returns (NVM Express Base 2.0, 5.17; NVM Command Set 1.0, 4.1.5). The bytes are a copy, and nothing in
//! them is believed without a look.

use alloc::string::String;
use vsp::storage::disk::SectorSize;

/// Bytes of every answer.
pub const ANSWER: usize = 4096;

/// Most namespaces of a controller that are used.
pub const MAX_NAMESPACES: usize = 64;

/// What the controller says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Controller {
    /// Model number.
    pub model: String,
    /// Serial number.
    pub serial: String,
    /// Firmware revision.
    pub firmware: String,
    /// Bytes of the largest transfer; `None`: it sets no limit.
    pub most_bytes: Option<u64>,
    /// Highest namespace id.
    pub namespaces: u32,
    /// It has dataset management.
    pub deallocates: bool,
    /// It has a write cache that forgets.
    pub write_cache: bool,
    /// It takes submission entries of 64 and completion entries of 16 bytes.
    pub entry_sizes_fit: bool,
}

impl Controller {
    /// Reads the answer.
    pub fn parse(answer: &[u8; ANSWER]) -> Self {
        let entry_fits = |offset: usize, wanted: u8| {
            let sizes = answer[offset];
            (sizes & 0xf..=sizes >> 4).contains(&wanted)
        };
        Self {
            serial: text(&answer[4..24]),
            model: text(&answer[24..64]),
            firmware: text(&answer[64..72]),
            most_bytes: match answer[77] {
                0 => None,
                power => Some(4096u64.checked_shl(power.into()).unwrap_or(0)).filter(|&bytes| bytes >= 4096),
            },
            namespaces: u32_at(answer, 516),
            deallocates: answer[520] & 1 << 2 != 0,
            write_cache: answer[525] & 1 != 0,
            entry_sizes_fit: entry_fits(512, 6) && entry_fits(513, 4),
        }
    }
}

/// What the controller says of a namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Namespace {
    /// Sectors.
    pub sectors: u64,
    /// Bytes of one.
    pub sector_size: SectorSize,
    /// It cannot be written.
    pub write_protected: bool,
}

/// Why a namespace cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unusable {
    /// It is not there.
    #[error("it is not active")]
    Inactive,
    /// Its sectors have another size.
    #[error("its sectors have 2^{0} bytes; 512 and 4096 can be used")]
    SectorSize(u8),
    /// Its sectors carry metadata.
    #[error("its sectors carry {0} bytes of metadata each")]
    Metadata(u16),
}

impl Namespace {
    /// Reads the answer.
    pub fn parse(answer: &[u8; ANSWER]) -> Result<Self, Unusable> {
        let sectors = u64_at(answer, 0);
        if sectors == 0 {
            return Err(Unusable::Inactive);
        }
        let chosen = answer[26];
        let format = usize::from(chosen & 0xf | chosen >> 1 & 0x30);
        let at = 128 + 4 * format;
        let metadata = u16::from_le_bytes([answer[at], answer[at + 1]]);
        if metadata != 0 {
            return Err(Unusable::Metadata(metadata));
        }
        let sector_size = match answer[at + 2] {
            9 => SectorSize::Bytes512,
            12 => SectorSize::Bytes4096,
            other => return Err(Unusable::SectorSize(other)),
        };
        Ok(Self {
            // More than 2^64 bytes cannot be counted; no medium has them.
            sectors: sectors.min(u64::MAX >> sector_size.shift()),
            sector_size,
            write_protected: answer[99] & 1 != 0,
        })
    }
}

/// The ids in a list of active namespaces, which rise and end at the first zero.
pub fn namespace_list(answer: &[u8; ANSWER]) -> impl Iterator<Item = u32> + '_ {
    let ids = (0..ANSWER / 4).map(|index| u32_at(answer, 4 * index));
    let mut last = 0;
    ids.take_while(move |&id| id > core::mem::replace(&mut last, id))
        .take(MAX_NAMESPACES)
}

/// A field of ASCII, padded with blanks; other bytes are left out.
fn text(field: &[u8]) -> String {
    let printable = field.iter().filter(|byte| (0x20..0x7f).contains(*byte));
    let text: String = printable.map(|&byte| char::from(byte)).collect();
    String::from(text.trim())
}

fn u32_at(answer: &[u8; ANSWER], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&answer[at..at + 4]);
    u32::from_le_bytes(bytes)
}

fn u64_at(answer: &[u8; ANSWER], at: usize) -> u64 {
    u64::from(u32_at(answer, at + 4)) << 32 | u64::from(u32_at(answer, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_namespace_of_4096_bytes_a_sector_is_read() {
        let mut answer = [0; ANSWER];
        answer[..8].copy_from_slice(&1000u64.to_le_bytes());
        answer[26] = 4;
        answer[128 + 16 + 2] = 12;
        let namespace = Namespace::parse(&answer).unwrap();
        assert_eq!(
            (namespace.sectors, namespace.sector_size),
            (1000, SectorSize::Bytes4096)
        );
        answer[128 + 16] = 8;
        assert_eq!(Namespace::parse(&answer), Err(Unusable::Metadata(8)));
    }

    #[test]
    fn a_list_of_namespaces_that_does_not_rise_ends_there() {
        let mut answer = [0; ANSWER];
        for (index, id) in [1u32, 2, 5, 5, 6].into_iter().enumerate() {
            answer[4 * index..4 * index + 4].copy_from_slice(&id.to_le_bytes());
        }
        assert_eq!(namespace_list(&answer).collect::<Vec<_>>(), [1, 2, 5]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_answer_is_read_without_a_panic(seed in proptest::collection::vec(any::<u8>(), ANSWER)) {
            let answer: [u8; ANSWER] = seed.try_into().unwrap();
            let controller = Controller::parse(&answer);
            prop_assert!(controller.most_bytes.is_none_or(|bytes| bytes >= 4096));
            if let Ok(namespace) = Namespace::parse(&answer) {
                prop_assert!(namespace.sectors.checked_mul(namespace.sector_size.bytes().into()).is_some());
            }
            prop_assert!(namespace_list(&answer).count() <= MAX_NAMESPACES);
        }
    }
}
