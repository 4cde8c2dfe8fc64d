//! Spreading frames over several channels: a hash of addresses and ports says which.

use vmbus::protocol::network::offload::ObjectHeader;
use vmbus::protocol::network::scale::{
    HASH_KEY, HashInfo, INDIRECTION_TABLE, OBJECT_PARAMETERS, ReceiveScaleParameters,
};
use zerocopy::{FromZeros, Immutable, IntoBytes};

/// The key of Microsoft's "Verifying the RSS Hash Calculation", which everybody uses.
const KEY: [u8; HASH_KEY] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
    0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
    0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// What the host is told: parameters, table, key.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Spread {
    parameters: ReceiveScaleParameters,
    table: [u32; INDIRECTION_TABLE],
    key: [u8; HASH_KEY],
}

impl Spread {
    /// Over channels 0 to `channels`, evenly.
    pub(super) fn over(channels: u32) -> Self {
        let head = size_of::<ReceiveScaleParameters>();
        let table_size = size_of::<[u32; INDIRECTION_TABLE]>();
        let hash =
            HashInfo::TOEPLITZ | HashInfo::IPV4 | HashInfo::TCP_IPV4 | HashInfo::IPV6 | HashInfo::TCP_IPV6;
        let mut number = 0;
        Self {
            parameters: ReceiveScaleParameters {
                header: ObjectHeader {
                    object_type: OBJECT_PARAMETERS,
                    revision: 2,
                    size: head as u16,
                },
                hash: hash.bits(),
                table_size: table_size as u16,
                table_offset: head as u32,
                key_size: HASH_KEY as u16,
                key_offset: (head + table_size) as u32,
                ..ReceiveScaleParameters::new_zeroed()
            },
            table: [(); INDIRECTION_TABLE].map(|()| {
                number += 1;
                (number - 1) % channels.max(1)
            }),
            key: KEY,
        }
    }
}
