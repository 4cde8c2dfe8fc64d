//! Frames of a port, kept in the form of a pcap file.

use crate::vm::signal::Signal;
use alloc::vec;
use alloc::vec::Vec;
use spin::Mutex;
use vsp::network::Frame;
use vsp::network::wire::Tap;
use vsp::switch::capture::{FileHeader, FrameRecord};
use vsp::switch::port::PortId;
use zerocopy::IntoBytes;

/// Bytes of a frame that are kept.
const MOST_OF_FRAME: usize = 64 << 10;
/// Bytes that are kept in all; a capture that has them is full.
const MOST: usize = 4 << 20;
/// Where a VLAN tag goes into a frame.
const TAG: usize = 12;

/// A capture under way, or done.
pub struct Capture {
    /// Frames after which it is full.
    frames: usize,
    /// Added to the time of a frame.
    time_base: u64,
    kept: Mutex<Kept>,
    full: Signal,
}

struct Kept {
    file: Vec<u8>,
    frames: usize,
}

impl Capture {
    /// An empty capture that is full after `frames` frames, whose times are `time_base` ticks after those of the frames.
    pub fn new(frames: usize, time_base: u64) -> Self {
        Self {
            frames,
            time_base,
            kept: Mutex::new(Kept {
                file: FileHeader::new(MOST_OF_FRAME as u32).as_bytes().to_vec(),
                frames: 0,
            }),
            full: Signal::default(),
        }
    }

    /// Completes when it is full.
    pub async fn full(&self) {
        self.full.wait().await;
    }

    /// Frames, and the file.
    pub fn take(&self) -> (usize, Vec<u8>) {
        let mut kept = self.kept.lock();
        (kept.frames, core::mem::take(&mut kept.file))
    }
}

impl Tap for Capture {
    fn see(&self, _port: PortId, frame: &Frame<'_>, now: u64) {
        let mut bytes = vec![0; frame.length.min(MOST_OF_FRAME)];
        // A sender can take its memory away under us; there is nothing to see then.
        if frame.copy_to(0, &mut bytes).is_err() {
            return;
        }
        let mut length = frame.length;
        if let Some(tag) = frame.tag.filter(|_| bytes.len() >= TAG) {
            let [high, low] = tag.to_be_bytes();
            bytes.splice(TAG..TAG, [0x81, 0, high, low]);
            length += 4;
        }
        let mut kept = self.kept.lock();
        if kept.frames >= self.frames || kept.file.is_empty() || kept.file.len() + bytes.len() > MOST {
            return;
        }
        let record = FrameRecord::new(self.time_base.saturating_add(now), bytes.len(), length);
        kept.file.extend_from_slice(record.as_bytes());
        kept.file.extend_from_slice(&bytes);
        kept.frames += 1;
        let full = kept.frames == self.frames || kept.file.len() + MOST_OF_FRAME > MOST;
        drop(kept);
        if full {
            self.full.raise();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_header_and_as_many_frames_as_were_asked_for() {
        let capture = Capture::new(2, 16_000_000_000_000_000);
        let mut frame = Frame::of_bytes(&[7; 60]);
        capture.see(PortId(0), &frame, 25);
        frame.tag = Some(5);
        capture.see(PortId(0), &frame, 30);
        capture.see(PortId(0), &frame, 35);
        let (frames, file) = capture.take();
        assert_eq!((frames, file.len()), (2, 24 + 16 + 60 + 16 + 64));
        assert_eq!(file[..4], 0xa1b2_3c4d_u32.to_le_bytes());
        assert_eq!(file[24..28], 1_600_000_000_u32.to_le_bytes());
        assert_eq!(file[28..32], 2_500_u32.to_le_bytes());
        assert_eq!(file[116 + 12..116 + 16], [0x81, 0, 0, 5]);
    }
}
