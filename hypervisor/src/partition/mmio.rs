//! Decoding of the moves by which kernels reach memory-mapped registers: 32-bit loads and stores in 32-bit and 64-bit code.
//! Anything else is left to the parent, who has a whole decoder.

/// What an instruction does with the 32 bits at the address that faulted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Move {
    /// It loads them into a general register, by its number.
    Load(usize),
    /// It stores a general register.
    Store(usize),
    /// It stores a constant.
    StoreConstant(u32),
}

/// A decoded move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryMove {
    /// What it does.
    pub operation: Move,
    /// Its length, in bytes.
    pub length: usize,
}

/// Decodes the move that `bytes` begin with; `None` where it is another instruction, or of another width.
pub fn decode(bytes: &[u8], is_64_bit: bool) -> Option<MemoryMove> {
    let mut at = 0;
    // Segment prefixes change the address, which the fault has told already.
    while matches!(bytes.get(at)?, 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65) {
        at += 1;
    }
    let rex = match *bytes.get(at)? {
        rex @ 0x40..=0x4f if is_64_bit => {
            at += 1;
            rex
        }
        _ => 0,
    };
    // REX.W makes it a 64-bit move.
    if rex & 8 != 0 {
        return None;
    }
    let opcode = *bytes.get(at)?;
    at += 1;
    let offset = if is_64_bit { 8 } else { 4 };
    match opcode {
        0xa1 | 0xa3 => {
            bytes.get(at + offset - 1)?;
            let operation = if opcode == 0xa1 {
                Move::Load(0)
            } else {
                Move::Store(0)
            };
            return Some(MemoryMove {
                operation,
                length: at + offset,
            });
        }
        0x8b | 0x89 | 0xc7 => {}
        _ => return None,
    }
    let modrm = *bytes.get(at)?;
    at += 1;
    let (mode, memory) = (modrm >> 6, modrm & 7);
    if mode == 3 {
        return None;
    }
    let mut displacement = match mode {
        1 => 1,
        2 => 4,
        _ => 0,
    };
    if memory == 4 {
        let sib = *bytes.get(at)?;
        at += 1;
        if mode == 0 && sib & 7 == 5 {
            displacement = 4;
        }
    } else if mode == 0 && memory == 5 {
        displacement = 4;
    }
    at += displacement;
    let register = (modrm >> 3 & 7 | (rex & 4) << 1) as usize;
    let (operation, end) = match opcode {
        0x8b => (Move::Load(register), at),
        0x89 => (Move::Store(register), at),
        _ => {
            let constant = bytes.get(at..at + 4)?.try_into().ok()?;
            (Move::StoreConstant(u32::from_le_bytes(constant)), at + 4)
        }
    };
    if opcode == 0xc7 && modrm >> 3 & 7 != 0 {
        return None;
    }
    (end <= bytes.len()).then_some(MemoryMove {
        operation,
        length: end,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(bytes: &[u8]) -> Option<(Move, usize)> {
        decode(bytes, true).map(|found| (found.operation, found.length))
    }

    #[test]
    fn the_moves_of_kernels_are_decoded() {
        assert_eq!(decoded(&[0x8b, 0x07]), Some((Move::Load(0), 2)));
        assert_eq!(decoded(&[0x44, 0x8b, 0x47, 0x20]), Some((Move::Load(8), 4)));
        assert_eq!(
            decoded(&[0x89, 0x34, 0x25, 0xb0, 0x00, 0xe0, 0xfe]),
            Some((Move::Store(6), 7))
        );
        assert_eq!(
            decoded(&[0xc7, 0x80, 0xb0, 0, 0, 0, 5, 0, 0, 0]),
            Some((Move::StoreConstant(5), 10))
        );
        assert_eq!(
            decoded(&[0xc7, 0x05, 0, 0, 0, 0, 1, 2, 0, 0]),
            Some((Move::StoreConstant(0x201), 10))
        );
        assert_eq!(
            decode(&[0xa1, 0x20, 0, 0xe0, 0xfe], false).map(|found| found.length),
            Some(5)
        );
    }

    #[test]
    fn other_instructions_and_widths_are_not() {
        assert_eq!(decoded(&[0x48, 0x8b, 0x07]), None);
        assert_eq!(decoded(&[0x8b, 0xc7]), None);
        assert_eq!(decoded(&[0x66, 0x8b, 0x07]), None);
        assert_eq!(decoded(&[0x0f, 0xb6, 0x07]), None);
        assert_eq!(decoded(&[0x8b]), None);
        assert_eq!(decoded(&[]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_inside_their_length(bytes in proptest::collection::vec(any::<u8>(), 0..16), long: bool) {
            if let Some(found) = decode(&bytes, long) {
                prop_assert!(found.length <= bytes.len());
            }
        }
    }
}
