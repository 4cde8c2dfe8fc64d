//! What a ring does in these benchmarks.

/// A ring with a writer and a reader, which may be in two threads.
pub(crate) trait Contender {
    /// The writing end.
    type Writer: Send;
    /// The reading end.
    type Reader: Send;

    /// An empty ring with room for 8 messages of 16 KiB.
    fn new() -> (Self::Writer, Self::Reader);

    /// Writes the message `COUNT` times and makes them visible at once; `false` if there is no room.
    fn write<const SIZE: usize, const COUNT: usize>(writer: &mut Self::Writer, from: &[u8; SIZE]) -> bool;

    /// Copies out the messages that are there, `MOST` at most, one after the other into the same place; gives back their room at
    /// once, and says how many there were.
    fn read<const SIZE: usize, const MOST: usize>(reader: &mut Self::Reader, into: &mut [u8; SIZE]) -> usize;
}
