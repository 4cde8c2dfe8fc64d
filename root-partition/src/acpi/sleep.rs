//! The `\_S5_` package: what to write for soft off (ACPI 7.4.2). Instead of interpreting AML, this looks for the one
//! definition `Name (_S5_, Package () { a, b, … })`, whose encoding every firmware shares.

/// `SLP_TYP` values of a sleep state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SleepType {
    /// For the PM1a control register.
    pub pm1a: u8,
    /// For PM1b.
    pub pm1b: u8,
}

const NAME_OP: u8 = 0x08;
const PACKAGE_OP: u8 = 0x12;
const ZERO_OP: u8 = 0x00;
const ONE_OP: u8 = 0x01;
const BYTE_PREFIX: u8 = 0x0a;
const WORD_PREFIX: u8 = 0x0b;
const DWORD_PREFIX: u8 = 0x0c;
const ROOT_CHAR: u8 = b'\\';

/// Looks for the package in `aml`.
pub fn find_s5(aml: &[u8]) -> Option<SleepType> {
    aml.windows(4)
        .enumerate()
        .filter(|(_, name)| name == b"_S5_")
        .find_map(|(at, _)| {
            let before = aml[..at].strip_suffix(&[ROOT_CHAR]).unwrap_or(&aml[..at]);
            match before.last() {
                Some(&NAME_OP) => package(&aml[at + 4..]),
                _ => None,
            }
        })
}

/// The first two elements of the package that `aml` begins with; one element counts for both registers.
fn package(aml: &[u8]) -> Option<SleepType> {
    let (&opcode, rest) = aml.split_first()?;
    if opcode != PACKAGE_OP {
        return None;
    }
    // PkgLength (ACPI 20.2.4): bits 7:6 of the first byte say how many more follow.
    let more = usize::from(rest.first()? >> 6);
    let (&count, elements) = rest.get(1 + more..)?.split_first()?;
    if count == 0 {
        return None;
    }
    let (pm1a, elements) = integer(elements)?;
    let pm1b = match count {
        1 => pm1a,
        _ => integer(elements)?.0,
    };
    (pm1a < 8 && pm1b < 8).then_some(SleepType { pm1a, pm1b })
}

/// The integer that `aml` begins with, and what follows it. Values above a byte cannot be a `SLP_TYP`.
fn integer(aml: &[u8]) -> Option<(u8, &[u8])> {
    match *aml {
        [value @ (ZERO_OP | ONE_OP), ref rest @ ..] => Some((value, rest)),
        [BYTE_PREFIX, value, ref rest @ ..] => Some((value, rest)),
        [WORD_PREFIX, value, 0, ref rest @ ..] => Some((value, rest)),
        [DWORD_PREFIX, value, 0, 0, 0, ref rest @ ..] => Some((value, rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As q35's firmware has it: Name (_S5, Package (0x04) { Zero, Zero, Zero, Zero }).
    const ZEROS: &[u8] = b"\x10\x20\x5c_SB_\x08_S5_\x12\x06\x04\x00\x00\x00\x00\x14";

    #[test]
    fn the_two_values_are_found() {
        assert_eq!(find_s5(ZEROS), Some(SleepType { pm1a: 0, pm1b: 0 }));
        assert_eq!(
            find_s5(b"\x08\\_S5_\x12\x0a\x04\x0a\x07\x0a\x05\x00\x00"),
            Some(SleepType { pm1a: 7, pm1b: 5 })
        );
        assert_eq!(
            find_s5(b"\x08_S5_\x12\x48\x00\x02\x01\x0b\x06\x00"),
            Some(SleepType { pm1a: 1, pm1b: 6 })
        );
    }

    #[test]
    fn the_name_alone_is_not_the_package() {
        let aml = [b"\x10_S5_\x12\x06\x02\x0a\x01\x0a\x01".as_slice(), ZEROS].concat();
        assert_eq!(find_s5(&aml), Some(SleepType { pm1a: 0, pm1b: 0 }));
        assert_eq!(find_s5(b"\x08_S5_"), None);
        assert_eq!(find_s5(b"_S5_\x12"), None);
    }

    #[test]
    fn values_that_no_register_has_are_refused() {
        assert_eq!(find_s5(b"\x08_S5_\x12\x06\x02\x0a\x09\x00"), None);
        assert_eq!(find_s5(b"\x08_S5_\x12\x06\x00\x00\x00"), None);
    }

    #[test]
    fn a_table_cut_off_anywhere_gives_nothing_or_the_package() {
        for length in 0..ZEROS.len() {
            assert!(find_s5(&ZEROS[..length]).is_none_or(|found| found.pm1a == 0));
        }
    }

    proptest! {
        #[test]
        fn no_damaged_byte_makes_it_panic(at in 0..ZEROS.len(), value: u8, tail in prop::collection::vec(any::<u8>(), 0..32)) {
            let mut aml = ZEROS.to_vec();
            aml[at] = value;
            aml.extend(tail);
            let _ = find_s5(&aml);
        }
    }
}
