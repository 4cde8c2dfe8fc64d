//! CRC-32 (IEEE 802.3), as `crc32` and `gzip -v` compute it, so that contents can be compared anywhere; partition tables use it too.

use core::fmt;
use crc::{CRC_32_ISO_HDLC, Crc, Digest, Table};

/// Sixteen bytes at once.
type Width = Table<16>;

static ALGORITHM: Crc<u32, Width> = Crc::<u32, Width>::new(&CRC_32_ISO_HDLC);

/// A checksum that grows.
#[derive(Clone)]
pub struct Crc32(Digest<'static, u32, Width>);

impl Default for Crc32 {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Crc32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crc32({:08x})", self.value())
    }
}

impl Crc32 {
    /// That of nothing.
    pub fn new() -> Self {
        Self(ALGORITHM.digest())
    }

    /// Adds bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Its value.
    pub fn value(&self) -> u32 {
        self.0.clone().finalize()
    }

    /// That of `bytes`.
    pub fn of(bytes: &[u8]) -> u32 {
        ALGORITHM.checksum(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_one_that_everybody_computes() {
        assert_eq!(Crc32::of(b"123456789"), 0xcbf4_3926);
        assert_eq!(Crc32::of(&[]), 0);
        let mut parts = Crc32::new();
        b"123456789".chunks(4).for_each(|part| parts.add(part));
        assert_eq!(parts.value(), 0xcbf4_3926);
    }
}
