//! CRC-32 (IEEE 802.3), as `crc32` and `gzip -v` compute it, so that a disk's contents can be compared anywhere;
//! partition tables use it too.

/// The polynomial, its bits turned round.
const POLYNOMIAL: u32 = 0xedb8_8320;

static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut value = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 != 0 {
                value >> 1 ^ POLYNOMIAL
            } else {
                value >> 1
            };
            bit += 1;
        }
        tables[0][byte] = value;
        byte += 1;
    }
    let mut further = 1;
    while further < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[further - 1][byte];
            tables[further][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        further += 1;
    }
    tables
}

/// A checksum that grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checksum(u32);

impl Default for Checksum {
    fn default() -> Self {
        Self::new()
    }
}

impl Checksum {
    /// That of nothing.
    pub const fn new() -> Self {
        Self(!0)
    }

    /// Adds bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            let [a, b, c, d, e, f, g, h] = *word;
            let first = (u32::from_le_bytes([a, b, c, d]) ^ self.0).to_le_bytes();
            let entry = |table: usize, byte: u8| TABLES[table][usize::from(byte)];
            self.0 = entry(7, first[0])
                ^ entry(6, first[1])
                ^ entry(5, first[2])
                ^ entry(4, first[3])
                ^ entry(3, e)
                ^ entry(2, f)
                ^ entry(1, g)
                ^ entry(0, h);
        }
        for byte in rest {
            self.0 = self.0 >> 8 ^ TABLES[0][usize::from(self.0 as u8 ^ byte)];
        }
    }

    /// That of `bytes`.
    pub fn of(bytes: &[u8]) -> u32 {
        let mut sum = Self::new();
        sum.add(bytes);
        sum.value()
    }

    /// Its value.
    pub const fn value(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_one_that_everybody_computes() {
        let mut whole = Checksum::new();
        whole.add(b"123456789");
        assert_eq!(whole.value(), 0xcbf4_3926);
        let mut parts = Checksum::new();
        b"123456789".chunks(4).for_each(|part| parts.add(part));
        assert_eq!(parts, whole);
        assert_eq!(Checksum::new().value(), 0);
    }
}
