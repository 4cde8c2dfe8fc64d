//! Key/value exchange: pools of pairs of text. The guest's system fills the pool [`Pool::AUTOMATIC`] with what it is.

use super::frame::Version;
use alloc::string::String;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Versions, the newest first.
pub const VERSIONS: [Version; 3] = [Version::new(4, 0), Version::new(3, 0), Version::new(1, 0)];

/// Bytes of a key, UTF-16 with a zero at its end.
pub const KEY: usize = 512;
/// Bytes of a value.
pub const VALUE: usize = 2048;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub struct Operation(pub u8);

impl Operation {
    /// The value of a key.
    pub const GET: Self = Self(0);
    /// A key gets a value.
    pub const SET: Self = Self(1);
    /// A key goes away.
    pub const DELETE: Self = Self(2);
    /// The pair of a number.
    pub const ENUMERATE: Self = Self(3);
}

/// Which pairs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub struct Pool(pub u8);

impl Pool {
    /// Written by the host.
    pub const EXTERNAL: Self = Self(0);
    /// Written by programs in the guest.
    pub const GUEST: Self = Self(1);
    /// Written by the guest's system: its name, version and addresses.
    pub const AUTOMATIC: Self = Self(2);
}

/// How a value is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub struct ValueType(pub U32);

impl ValueType {
    /// Text, UTF-16 with a zero at its end.
    pub const TEXT: Self = Self(U32::new(1));
    /// A number of 32 bits.
    pub const U32: Self = Self(U32::new(4));
    /// A number of 64 bits.
    pub const U64: Self = Self(U32::new(8));
}

/// A pair by its number, in requests and answers of [`Operation::ENUMERATE`].
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Enumerate {
    /// [`Operation::ENUMERATE`].
    pub operation: Operation,
    /// The pool.
    pub pool: Pool,
    /// Zero.
    pub reserved: [u8; 2],
    /// Number of the pair, from 0.
    pub index: U32,
    /// How the value is meant.
    pub value_type: ValueType,
    /// Bytes of the key, its zero included.
    pub key_size: U32,
    /// Bytes of the value.
    pub value_size: U32,
    /// The key.
    pub key: [u8; KEY],
    /// The value.
    pub value: [u8; VALUE],
}
const _: () = assert!(size_of::<Enumerate>() == 20 + KEY + VALUE);

impl Enumerate {
    /// A request for pair `index` of `pool`.
    pub fn new(pool: Pool, index: u32) -> Self {
        Self {
            operation: Operation::ENUMERATE,
            pool,
            index: U32::new(index),
            ..Self::new_zeroed()
        }
    }

    /// The key, as far as it is text.
    pub fn key(&self) -> String {
        text(&self.key, self.key_size.get())
    }

    /// The value as text, whatever its type.
    pub fn value(&self) -> String {
        let number = || u64::from_le_bytes(core::array::from_fn(|at| self.value[at]));
        match self.value_type {
            ValueType::U32 => alloc::format!("{}", number() as u32),
            ValueType::U64 => alloc::format!("{}", number()),
            _ => text(&self.value, self.value_size.get()),
        }
    }
}

/// The text in the first `size` bytes, up to a zero; control characters, which could upset a terminal, are left out.
fn text(bytes: &[u8], size: u32) -> String {
    let bytes = bytes.get(..size as usize).unwrap_or(bytes);
    let units = bytes
        .chunks_exact(2)
        .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
        .take_while(|&unit| unit != 0);
    char::decode_utf16(units)
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .filter(|character| !character.is_control())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_ends_at_its_zero_and_at_its_size() {
        let wide: alloc::vec::Vec<u8> = "Debian\x1b[2J\0rest"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        assert_eq!(text(&wide, wide.len() as u32), "Debian[2J");
        assert_eq!(text(&wide, 6), "Deb");
        assert_eq!(text(&wide, u32::MAX), "Debian[2J");
        assert_eq!(text(&[0x00, 0xd8, 0x41], 3), "\u{fffd}");
    }

    #[test]
    fn numbers_are_told_as_numbers() {
        let mut pair = Enumerate::new(Pool::GUEST, 0);
        pair.value[..8].copy_from_slice(&0x1_0000_0002_u64.to_le_bytes());
        pair.value_type = ValueType::U32;
        assert_eq!(pair.value(), "2");
        pair.value_type = ValueType::U64;
        assert_eq!(pair.value(), "4294967298");
    }
}
