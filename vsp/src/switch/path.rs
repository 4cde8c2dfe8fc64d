//! The way of a port's last frame: the next ones of the same conversation go there without being looked up.
//!
//! What each frame is counted and guarded for is done for each all the same; only where it goes is remembered, for as long as
//! nothing has changed that this follows from.

use super::frame::{ETHERTYPE_VLAN, FrameHeader};
use super::{Egress, TICKS_A_SECOND};
use vmbus::protocol::network::ETHERNET_HEADER;

/// So long a way is remembered; then it is looked up again, so that addresses age.
const KEPT: u64 = TICKS_A_SECOND;

/// Where frames without a tag go that begin with the same addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    /// Destination and source, in a row.
    addresses: [u8; 12],
    egress: Egress,
    /// The switch's changes up to when it was looked up.
    changes: u64,
    since: u64,
}

impl Path {
    /// The way of the frame that begins with `bytes`, which was looked up just now; `None` if it has a tag.
    pub(super) fn new(
        bytes: &[u8],
        header: &FrameHeader,
        egress: Egress,
        changes: u64,
        now: u64,
    ) -> Option<Self> {
        header.tag.is_none().then_some(Self {
            addresses: *bytes.first_chunk()?,
            egress,
            changes,
            since: now,
        })
    }

    /// Where the frame that begins with `bytes` and has no tag beside it goes, its kind of payload, and where that begins; `None` if it
    /// is to be looked up.
    #[inline]
    pub(super) fn leads(&self, bytes: &[u8], changes: u64, now: u64) -> Option<(Egress, u16)> {
        let header = bytes.first_chunk::<ETHERNET_HEADER>()?;
        let &[.., t0, t1] = header;
        let ethertype = u16::from_be_bytes([t0, t1]);
        let same = header.first_chunk() == Some(&self.addresses)
            && ethertype != ETHERTYPE_VLAN
            && self.changes == changes
            && now.wrapping_sub(self.since) < KEPT;
        same.then_some((self.egress, ethertype))
    }
}
