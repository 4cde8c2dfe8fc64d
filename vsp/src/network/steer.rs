//! Which channel a frame goes to: receive-side scaling.

use crate::switch::frame::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, FrameHeader};
use alloc::sync::Arc;
use vmbus::protocol::network::rndis;
use vmbus::protocol::network::scale::{
    HASH_KEY, HashInfo, INDIRECTION_TABLE, OBJECT_PARAMETERS, ParameterFlags, ReceiveScaleParameters,
    toeplitz,
};
use zerocopy::FromBytes;

const TCP: u8 = 6;

/// How frames are spread.
#[derive(Clone, Debug)]
pub struct Steering {
    rules: Option<Arc<Rules>>,
}

#[derive(Clone, Debug)]
struct Rules {
    hash: HashInfo,
    key: [u8; HASH_KEY],
    table: [u16; INDIRECTION_TABLE],
    /// Entries in use; not zero.
    entries: usize,
}

impl Steering {
    /// All frames go to the first channel.
    pub const fn new() -> Self {
        Self { rules: None }
    }

    /// Takes a guest's parameters; `None` if they make no sense.
    pub fn set(&mut self, value: &[u8], queues: u16) -> Option<()> {
        let (parameters, _) = ReceiveScaleParameters::read_from_prefix(value).ok()?;
        if parameters.header.object_type != OBJECT_PARAMETERS {
            return None;
        }
        let flags = ParameterFlags::from_bits_truncate(parameters.flags);
        if flags.contains(ParameterFlags::DISABLE) {
            self.rules = None;
            return Some(());
        }
        let before = self.rules.as_deref();
        let mut rules = Rules {
            hash: HashInfo::from_bits_truncate(parameters.hash),
            key: [0; HASH_KEY],
            table: [0; INDIRECTION_TABLE],
            entries: 0,
        };
        if flags.contains(ParameterFlags::HASH_UNCHANGED) {
            rules.hash = before?.hash;
        }
        if flags.contains(ParameterFlags::KEY_UNCHANGED) {
            rules.key = before?.key;
        } else {
            let key = rndis::value(value, parameters.key_offset, parameters.key_size.into())?;
            rules.key = *key.first_chunk()?;
        }
        if flags.contains(ParameterFlags::TABLE_UNCHANGED) {
            (rules.table, rules.entries) = (before?.table, before?.entries);
        } else {
            let table = rndis::value(value, parameters.table_offset, parameters.table_size.into())?;
            let entries = table.as_chunks::<4>().0;
            if entries.is_empty() || entries.len() > INDIRECTION_TABLE {
                return None;
            }
            for (to, from) in rules.table.iter_mut().zip(entries) {
                let queue = u32::from_le_bytes(*from);
                *to = u16::try_from(queue).ok().filter(|&queue| queue < queues)?;
            }
            rules.entries = entries.len();
        }
        self.rules = Some(Arc::new(rules));
        Some(())
    }

    /// The channel for a frame, and its hash. Where there is none, the first channel.
    #[inline]
    pub fn channel(&self, head: &[u8]) -> (u16, Option<u32>) {
        let Some(rules) = self.rules.as_deref() else {
            return (0, None);
        };
        let Some(hash) = rules.hash(head) else {
            return (0, None);
        };
        let queue = rules.table.get(hash as usize % rules.entries.max(1));
        (queue.copied().unwrap_or(0), Some(hash))
    }
}

impl Default for Steering {
    fn default() -> Self {
        Self::new()
    }
}

impl Rules {
    fn hash(&self, head: &[u8]) -> Option<u32> {
        let header = FrameHeader::read(head, None)?;
        let packet = head.get(header.payload..)?;
        let (addresses, protocol, transport, with_ports, without) = match header.ethertype {
            ETHERTYPE_IPV4 => {
                let start = usize::from(packet.first()? & 0xf) * 4;
                let fragment = u16::from_be_bytes(*packet.get(6..)?.first_chunk()?) & 0x3fff != 0;
                let protocol = if fragment { 0 } else { *packet.get(9)? };
                (
                    packet.get(12..20)?,
                    protocol,
                    start,
                    HashInfo::TCP_IPV4,
                    HashInfo::IPV4,
                )
            }
            ETHERTYPE_IPV6 => (
                packet.get(8..40)?,
                *packet.get(6)?,
                40,
                HashInfo::TCP_IPV6,
                HashInfo::IPV6,
            ),
            _ => return None,
        };
        let ports = packet.get(transport..).and_then(|transport| transport.get(..4));
        let ports = ports.filter(|_| protocol == TCP && self.hash.contains(with_ports));
        if ports.is_none() && !self.hash.contains(without) {
            return None;
        }
        let input = addresses.iter().chain(ports.unwrap_or(&[])).copied();
        Some(toeplitz(&self.key, input))
    }
}
