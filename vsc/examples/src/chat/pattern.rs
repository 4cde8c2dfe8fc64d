//! The bytes of streams: each says where it is, so that none can be lost, doubled or misplaced unseen.

use alloc::vec::Vec;

/// Bytes after which the pattern repeats: a prime, so that no buffer or segment is as long.
const PERIOD: usize = 65_521;

/// The pattern.
pub(super) struct Pattern(Vec<u8>);

impl Pattern {
    pub(super) fn new() -> Self {
        let mut state = 0x9e37_79b9_u32;
        let bytes = (0..PERIOD).map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        });
        Self(bytes.collect())
    }

    /// As many bytes from `position` of the stream on as there are in a row, `most` at most.
    pub(super) fn piece(&self, position: u64, most: usize) -> &[u8] {
        let rest = &self.0[(position % PERIOD as u64) as usize..];
        &rest[..most.min(rest.len())]
    }

    /// Where the first byte is, from `position` on, that is wrong among `bytes`.
    pub(super) fn first_wrong(&self, mut position: u64, mut bytes: &[u8]) -> Option<u64> {
        while !bytes.is_empty() {
            let piece = self.piece(position, bytes.len());
            let (now, later) = bytes.split_at(piece.len());
            if now != piece {
                let at = now.iter().zip(piece).position(|(one, other)| one != other);
                return Some(position + at.unwrap_or(0) as u64);
            }
            position += piece.len() as u64;
            bytes = later;
        }
        None
    }
}
