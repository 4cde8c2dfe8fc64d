//! Captured frames in the format of pcap files, which Wireshark and tcpdump read.

use super::TICKS_A_SECOND;
use zerocopy::{Immutable, IntoBytes};

/// What a file begins with.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct FileHeader {
    magic: u32,
    major: u16,
    minor: u16,
    zone: u32,
    accuracy: u32,
    max_length: u32,
    link_type: u32,
}
const _: () = assert!(size_of::<FileHeader>() == 24);

impl FileHeader {
    /// Ethernet frames of at most `max_length` bytes each, times in nanoseconds.
    pub const fn new(max_length: u32) -> Self {
        Self {
            magic: 0xa1b2_3c4d,
            major: 2,
            minor: 4,
            zone: 0,
            accuracy: 0,
            max_length,
            link_type: 1,
        }
    }
}

/// What each frame begins with.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct FrameRecord {
    seconds: u32,
    nanoseconds: u32,
    captured: u32,
    length: u32,
}
const _: () = assert!(size_of::<FrameRecord>() == 16);

impl FrameRecord {
    /// The first `captured` of `length` bytes of a frame at `ticks` (of 100 ns) since 1970.
    pub const fn new(ticks: u64, captured: usize, length: usize) -> Self {
        Self {
            seconds: (ticks / TICKS_A_SECOND) as u32,
            nanoseconds: (ticks % TICKS_A_SECOND) as u32 * 100,
            captured: captured as u32,
            length: length as u32,
        }
    }
}
