//! The VMBus ring.

use crate::contender::Contender;
use std::hint::black_box;
use vmbus::ring::{PacketFlags, PacketType, Reader, Writer, loopback};

/// Bytes of the ring's data. Its end is in the middle of a packet as often as chance would have it.
pub(crate) const SIZE: usize = 34 * 4096;
/// Bytes that a packet takes besides its payload.
pub(crate) const AROUND: usize = 24;

/// A ring with so many bytes of data.
pub(crate) struct Ring<const DATA: usize>;

/// The ring that is compared.
pub(crate) type Ours = Ring<SIZE>;

/// A payload whose packet is an eighth of [`Uncut`].
pub(crate) const UNCUT: usize = 16384 - AROUND;

/// A ring whose end is always one of such a packet too. Where the data is mapped twice in a row, packets are as good as this.
pub(crate) type Uncut = Ring<{ 8 * 16384 }>;

impl<const DATA: usize> Contender for Ring<DATA> {
    type Writer = Writer;
    type Reader = Reader;

    fn new() -> (Writer, Reader) {
        let (guest, host, _) = loopback::channel(DATA / 4096).expect("so many pages are a ring");
        (guest.outgoing, host.incoming)
    }

    #[inline(always)]
    fn write<const SIZE: usize, const COUNT: usize>(writer: &mut Writer, from: &[u8; SIZE]) -> bool {
        let mut batch = writer.batch().expect("nobody lies");
        for _ in 0..COUNT {
            let pushed = batch.push(PacketType::IN_BAND, 7, PacketFlags::empty(), &[from]);
            if pushed.is_err() {
                return false;
            }
        }
        let _ = black_box(batch.commit());
        true
    }

    #[inline(always)]
    fn read<const SIZE: usize, const MOST: usize>(reader: &mut Reader, into: &mut [u8; SIZE]) -> usize {
        let mut batch = reader.batch();
        let mut count = 0;
        while count < MOST
            && let Some(packet) = batch.next().expect("nobody lies")
        {
            packet.copy_payload(0, into).expect("it has that size");
            count += 1;
        }
        let _ = black_box(batch.finish());
        count
    }
}
