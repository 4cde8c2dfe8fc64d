//! Lengths of the instructions that exit, for processors that do not tell them. Which instruction it is, the exit says;
//! its bytes say how many prefixes stand before it.

/// Longest instruction, in bytes.
pub const LONGEST: usize = 15;

/// An instruction that exits, by the bytes of its opcode and ModRM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// HLT: one opcode byte.
    OneByte = 1,
    /// CPUID, RDMSR, WRMSR, INVD: two opcode bytes.
    TwoBytes = 2,
    /// VMMCALL, VMCALL, XSETBV: two opcode bytes and a ModRM byte.
    ThreeBytes = 3,
}

/// Length of the instruction that `bytes` begin with, which is `kind`. Bytes that cannot be read count as no prefix.
#[inline]
pub fn length(kind: Kind, bytes: &[u8], is_64_bit: bool) -> usize {
    let prefixes = bytes
        .iter()
        .take_while(|&&byte| is_prefix(byte, is_64_bit))
        .count();
    (prefixes + kind as usize).min(LONGEST)
}

/// Whether `byte` is a prefix: of the legacy kind, or REX.
#[inline]
pub fn is_prefix(byte: u8, is_64_bit: bool) -> bool {
    match byte {
        0x0f => false,
        0x66 | 0x67 | 0xf0 | 0xf2 | 0xf3 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 => true,
        0x40..=0x4f => is_64_bit,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_instructions_have_their_opcodes_length() {
        assert_eq!(length(Kind::TwoBytes, &[0x0f, 0xa2], true), 2);
        assert_eq!(length(Kind::ThreeBytes, &[0x0f, 0x01, 0xd9], true), 3);
        assert_eq!(length(Kind::OneByte, &[0xf4], false), 1);
    }

    #[test]
    fn prefixes_count_and_rex_only_in_64_bit_mode() {
        assert_eq!(length(Kind::TwoBytes, &[0xf3, 0x48, 0x0f, 0xa2], true), 4);
        assert_eq!(length(Kind::OneByte, &[0x66, 0x67, 0xf4], false), 3);
        assert_eq!(length(Kind::OneByte, &[0x48, 0xf4], false), 1);
    }

    #[test]
    fn an_endless_run_of_prefixes_is_cut() {
        assert_eq!(length(Kind::TwoBytes, &[0x66; LONGEST], true), LONGEST);
    }
}
