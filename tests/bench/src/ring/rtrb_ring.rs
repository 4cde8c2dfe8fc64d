//! `rtrb`: a ring within one program, whose ends trust each other.

use crate::contender::Contender;
use rtrb::{Consumer, Producer, RingBuffer};

pub(crate) struct Rtrb;

impl Contender for Rtrb {
    type Writer = Producer<u8>;
    type Reader = Consumer<u8>;

    fn new() -> (Producer<u8>, Consumer<u8>) {
        RingBuffer::new(crate::ours::SIZE)
    }

    #[inline(always)]
    fn write<const SIZE: usize, const COUNT: usize>(writer: &mut Producer<u8>, from: &[u8; SIZE]) -> bool {
        // Nothing of its interface writes several slices with one update of the index but this.
        if COUNT == 1 {
            return writer.push_entire_slice(from).is_ok();
        }
        let Ok(chunk) = writer.write_chunk_uninit(SIZE * COUNT) else {
            return false;
        };
        chunk.fill_from_iter(from.iter().copied().cycle().take(SIZE * COUNT));
        true
    }

    #[inline(always)]
    fn read<const SIZE: usize, const MOST: usize>(reader: &mut Consumer<u8>, into: &mut [u8; SIZE]) -> usize {
        let mut count = 0;
        while count < MOST && reader.pop_entire_slice(into).is_ok() {
            count += 1;
        }
        count
    }
}
