//! Which physical memory is free: a bitmap of 4 KiB frames under every 2 MiB block of RAM. It hands out single frames,
//! short runs, and whole blocks for the large pages of virtual machines. It allocates nothing itself, so that the heap
//! may grow out of it.

use alloc::vec::Vec;
use core::ops::Range;

/// Bytes of a frame.
pub const FRAME_SIZE: u64 = 4096;
/// Bytes of a block.
pub const BLOCK_SIZE: u64 = 2 << 20;
/// Frames of a block.
const FRAMES: usize = (BLOCK_SIZE / FRAME_SIZE) as usize;

/// 2 MiB of address space: a set bit is a free frame.
#[derive(Clone, Copy, Debug)]
struct Block {
    bits: [u64; FRAMES / 64],
    free: u16,
}

impl Block {
    const USED: Self = Self {
        bits: [0; FRAMES / 64],
        free: 0,
    };
    const FREE: Self = Self {
        bits: [u64::MAX; FRAMES / 64],
        free: FRAMES as u16,
    };

    fn is_free(&self, frame: usize) -> bool {
        self.bits[frame / 64] & 1 << (frame % 64) != 0
    }

    fn set_free(&mut self, frame: usize, free: bool) {
        if self.is_free(frame) != free {
            self.bits[frame / 64] ^= 1 << (frame % 64);
            self.free = if free { self.free + 1 } else { self.free - 1 };
        }
    }

    /// First of `count` free frames in a row.
    fn find_run(&self, count: usize) -> Option<usize> {
        let mut length = 0;
        for frame in 0..FRAMES {
            length = if self.is_free(frame) { length + 1 } else { 0 };
            if length == count {
                return Some(frame + 1 - count);
            }
        }
        None
    }
}

/// The allocator. Addresses are physical.
#[derive(Default, Debug)]
pub struct Frames {
    blocks: Vec<Block>,
    /// No block before this one has a free frame.
    first_partial: usize,
    free: u64,
}

impl Frames {
    /// An allocator for addresses below `end`, all in use.
    pub fn new(end: u64) -> Self {
        Self {
            blocks: alloc::vec![Block::USED; end.div_ceil(BLOCK_SIZE) as usize],
            first_partial: 0,
            free: 0,
        }
    }

    /// Free bytes.
    pub fn free_bytes(&self) -> u64 {
        self.free * FRAME_SIZE
    }

    /// Makes the whole frames inside `range` free. Those that are free already, or past the end, are left.
    pub fn release(&mut self, range: Range<u64>) {
        let end = (range.end / FRAME_SIZE).min((self.blocks.len() * FRAMES) as u64);
        let mut frame = range.start.div_ceil(FRAME_SIZE);
        while frame < end {
            frame += match self.blocks.get_mut((frame / FRAMES as u64) as usize) {
                Some(block) if frame.is_multiple_of(FRAMES as u64) && end - frame >= FRAMES as u64 => {
                    self.free += FRAMES as u64 - u64::from(block.free);
                    *block = Block::FREE;
                    self.first_partial = self.first_partial.min((frame / FRAMES as u64) as usize);
                    FRAMES as u64
                }
                _ => {
                    self.mark(frame, true);
                    1
                }
            };
        }
    }

    /// Takes every frame that `range` touches out of use.
    pub fn reserve(&mut self, range: Range<u64>) {
        let end = range
            .end
            .div_ceil(FRAME_SIZE)
            .min((self.blocks.len() * FRAMES) as u64);
        for frame in range.start / FRAME_SIZE..end {
            self.mark(frame, false);
        }
    }

    /// One frame, the lowest there is.
    pub fn allocate(&mut self) -> Option<u64> {
        self.allocate_run(1)
    }

    /// `count` frames in a row, not across a block's border, so at most 512.
    pub fn allocate_run(&mut self, count: usize) -> Option<u64> {
        if count == 0 || count > FRAMES {
            return None;
        }
        while self
            .blocks
            .get(self.first_partial)
            .is_some_and(|block| block.free == 0)
        {
            self.first_partial += 1;
        }
        for index in self.first_partial..self.blocks.len() {
            let block = &mut self.blocks[index];
            if usize::from(block.free) < count {
                continue;
            }
            if let Some(first) = block.find_run(count) {
                (first..first + count).for_each(|frame| block.set_free(frame, false));
                self.free -= count as u64;
                return Some(index as u64 * BLOCK_SIZE + first as u64 * FRAME_SIZE);
            }
        }
        None
    }

    /// `count` blocks in a row, aligned to their size; from the top, as page tables and stacks come from the bottom.
    pub fn allocate_blocks(&mut self, count: usize) -> Option<u64> {
        if count == 0 {
            return None;
        }
        let mut length = 0;
        for index in (0..self.blocks.len()).rev() {
            length = match usize::from(self.blocks[index].free) {
                FRAMES => length + 1,
                _ => 0,
            };
            if length == count {
                self.blocks[index..index + count].fill(Block::USED);
                self.free -= (count * FRAMES) as u64;
                return Some(index as u64 * BLOCK_SIZE);
            }
        }
        None
    }

    fn mark(&mut self, frame: u64, free: bool) {
        let index = (frame / FRAMES as u64) as usize;
        let Some(block) = self.blocks.get_mut(index) else {
            return;
        };
        let before = block.free;
        block.set_free((frame % FRAMES as u64) as usize, free);
        self.free = self.free + u64::from(block.free) - u64::from(before);
        if free {
            self.first_partial = self.first_partial.min(index);
        }
    }
}

const _: () = assert!(Block::FREE.free as usize == FRAMES);

#[cfg(test)]
mod tests {
    use super::*;

    /// 8 MiB with a hole of a frame in the second block.
    fn frames() -> Frames {
        let mut frames = Frames::new(8 << 20);
        frames.release(0..8 << 20);
        frames.reserve(0x20_1000..0x20_1800);
        frames
    }

    #[test]
    fn frames_come_from_the_bottom_and_blocks_from_the_top() {
        let mut frames = frames();
        assert_eq!(frames.allocate(), Some(0));
        assert_eq!(frames.allocate(), Some(0x1000));
        assert_eq!(frames.allocate_blocks(1), Some(6 << 20));
    }

    #[test]
    fn a_run_avoids_what_is_in_use() {
        let mut frames = frames();
        assert_eq!(frames.allocate_run(512), Some(0));
        assert_eq!(frames.allocate_run(512), Some(4 << 20));
        assert_eq!(frames.allocate_run(2), Some(0x20_2000));
        assert_eq!(frames.allocate_run(1), Some(0x20_0000));
    }

    #[test]
    fn a_block_with_a_hole_is_no_block() {
        let mut frames = frames();
        assert_eq!(frames.allocate_blocks(2), Some(4 << 20));
        assert_eq!(frames.allocate_blocks(1), Some(0));
        assert_eq!(frames.allocate_blocks(1), None);
    }

    #[test]
    fn only_whole_frames_are_released_and_twice_counts_once() {
        let mut frames = Frames::new(4 << 20);
        frames.release(0x800..0x2fff);
        frames.release(0x1000..0x2000);
        assert_eq!(frames.free_bytes(), 0x1000);
        assert_eq!(frames.allocate(), Some(0x1000));
        assert_eq!(frames.allocate(), None);
        frames.release(0x1000..0x2000);
        assert_eq!(frames.allocate(), Some(0x1000));
    }

    #[test]
    fn what_cannot_be_had_changes_nothing() {
        let mut frames = frames();
        let free = frames.free_bytes();
        assert_eq!(frames.allocate_run(513), None);
        assert_eq!(frames.allocate_blocks(4), None);
        assert_eq!(frames.free_bytes(), free);
    }
}
