//! Receive-side scaling: packets are spread over queues by a hash of their addresses and ports.

use super::offload::ObjectHeader;
use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Type of [`ReceiveScaleCapabilities`].
pub const OBJECT_CAPABILITIES: u8 = 0x88;
/// Type of [`ReceiveScaleParameters`].
pub const OBJECT_PARAMETERS: u8 = 0x89;
/// Entries of the indirection table.
pub const INDIRECTION_TABLE: usize = 128;
/// Bytes of the hash's key.
pub const HASH_KEY: usize = 40;
/// Channels of a card at most.
pub const MAX_CHANNELS: u16 = 64;

/// What a card can do, up to the last field and no further: Linux takes no longer answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed(2))]
pub struct ReceiveScaleCapabilities {
    /// [`OBJECT_CAPABILITIES`].
    pub header: ObjectHeader,
    /// Hash functions and kinds ([`HashInfo`]), and how interrupts are sent.
    pub flags: u32,
    /// Interrupts.
    pub interrupts: u32,
    /// Queues.
    pub queues: u32,
    /// Entries of the indirection table.
    pub table_entries: u16,
}
const _: () = assert!(size_of::<ReceiveScaleCapabilities>() == 18);

/// What a guest sets; table and key follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ReceiveScaleParameters {
    /// [`OBJECT_PARAMETERS`].
    pub header: ObjectHeader,
    /// [`ParameterFlags`].
    pub flags: u16,
    /// Unused.
    pub base_processor: u16,
    /// [`HashInfo`].
    pub hash: u32,
    /// Bytes of the table.
    pub table_size: u16,
    /// Nothing.
    pub padding: u16,
    /// Where the table begins.
    pub table_offset: u32,
    /// Bytes of the key.
    pub key_size: u16,
    /// Nothing.
    pub padding_2: u16,
    /// Where the key begins.
    pub key_offset: u32,
    /// Unused.
    pub masks_offset: u32,
    /// Unused.
    pub masks: u32,
    /// Unused.
    pub mask_size: u32,
}
const _: () = assert!(size_of::<ReceiveScaleParameters>() == 40);

bitflags! {
    /// Which parts of [`ReceiveScaleParameters`] do not count.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct ParameterFlags: u16 {
        /// The hash is as it was.
        const HASH_UNCHANGED = 1 << 1;
        /// The table is as it was.
        const TABLE_UNCHANGED = 1 << 2;
        /// The key is as it was.
        const KEY_UNCHANGED = 1 << 3;
        /// No scaling.
        const DISABLE = 1 << 4;
    }

    /// Over what the hash goes.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct HashInfo: u32 {
        /// Toeplitz' function.
        const TOEPLITZ = 1 << 0;
        /// IPv4 addresses.
        const IPV4 = 1 << 8;
        /// And TCP ports.
        const TCP_IPV4 = 1 << 9;
        /// IPv6 addresses.
        const IPV6 = 1 << 10;
        /// And TCP ports.
        const TCP_IPV6 = 1 << 12;
    }
}

/// Bits of [`ReceiveScaleCapabilities::flags`]: interrupts by message, classification when they come; Toeplitz over IPv4
/// (0x100), IPv6 (0x200).
pub const CAPABILITIES: u32 = 0x0100_0000 | 0x0200_0000 | 0x100 | 0x200 | 1;

/// Toeplitz' hash of `input` with `key`.
pub fn toeplitz(key: &[u8; HASH_KEY], input: impl IntoIterator<Item = u8>) -> u32 {
    let mut hash = 0;
    let [a, b, c, d, ..] = *key;
    let mut window = u32::from_be_bytes([a, b, c, d]);
    for (byte, next) in input.into_iter().zip(key.iter().skip(4)) {
        for bit in (0..8).rev() {
            if byte >> bit & 1 != 0 {
                hash ^= window;
            }
            window = window << 1 | u32::from(next >> bit & 1);
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key and the cases of Microsoft's "Verifying the RSS Hash Calculation".
    const KEY: [u8; HASH_KEY] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
        0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
        0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    #[test]
    fn the_hash_is_that_of_the_specification() {
        let addresses = [66, 9, 149, 187, 161, 142, 100, 80];
        assert_eq!(toeplitz(&KEY, addresses), 0x323e_8fc2);
        let ports = [2794u16.to_be_bytes(), 1766u16.to_be_bytes()].concat();
        assert_eq!(toeplitz(&KEY, addresses.into_iter().chain(ports)), 0x51cc_c178);
    }
}
