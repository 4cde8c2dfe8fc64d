//! The memory functions take the place of libc's in this program too, and are compared with loops over bytes.
#![allow(unsafe_code)]

#[path = "../src/memory.rs"]
mod memory;

use std::ffi::c_int;

unsafe extern "C" {
    fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8;
    fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8;
    fn memset(to: *mut u8, byte: c_int, length: usize) -> *mut u8;
    fn memcmp(left: *const u8, right: *const u8, length: usize) -> c_int;
    fn bcmp(left: *const u8, right: *const u8, length: usize) -> c_int;
    fn strlen(text: *const u8) -> usize;
}

/// Lengths on both sides of a word, of a few words and of a page.
const LENGTHS: [usize; 24] = [
    0, 1, 2, 3, 5, 7, 8, 9, 12, 15, 16, 17, 23, 24, 25, 31, 32, 33, 63, 64, 65, 100, 4095, 4096,
];
/// Room before and behind what is written, which must stay as it is.
const MARGIN: usize = 16;
const SIZE: usize = 4096 + 2 * MARGIN + 64;

/// Bytes of which each differs from those around it.
fn pattern() -> Vec<u8> {
    (0..SIZE).map(|index| (index * 31 % 251) as u8).collect()
}

#[test]
fn memcpy_copies_what_it_is_told_and_no_more() {
    let from = pattern();
    for length in LENGTHS {
        for (source, target) in [(0, 0), (1, 0), (0, 3), (5, 7)] {
            let mut to = vec![0xee; SIZE];
            let place = MARGIN + target;
            // SAFETY: both ranges are inside their vectors.
            let result = unsafe { memcpy(to.as_mut_ptr().add(place), from.as_ptr().add(source), length) };
            assert_eq!(result, to[place..].as_mut_ptr());
            for (index, byte) in to.iter().enumerate() {
                let copied = index.checked_sub(place).filter(|&offset| offset < length);
                assert_eq!(
                    *byte,
                    copied.map_or(0xee, |offset| from[source + offset]),
                    "{length} {index}"
                );
            }
        }
    }
}

#[test]
fn memmove_copies_between_ranges_that_overlap_either_way() {
    for length in LENGTHS {
        for distance in [0, 1, 3, 7, 8, 9, 16, 40] {
            for (source, target) in [(MARGIN, MARGIN + distance), (MARGIN + distance, MARGIN)] {
                let before = pattern();
                let mut bytes = before.clone();
                let start = bytes.as_mut_ptr();
                // SAFETY: both ranges are inside the vector.
                let result = unsafe { memmove(start.add(target), start.add(source), length) };
                assert_eq!(result, bytes[target..].as_mut_ptr());
                for (index, byte) in bytes.iter().enumerate() {
                    let moved = index.checked_sub(target).filter(|&offset| offset < length);
                    let expected = moved.map_or(before[index], |offset| before[source + offset]);
                    assert_eq!(*byte, expected, "{length} from {source} to {target}, {index}");
                }
            }
        }
    }
}

#[test]
fn memset_fills_what_it_is_told_and_no_more() {
    for length in LENGTHS {
        for offset in [0, 1, 5] {
            let mut bytes = vec![0xee; SIZE];
            let place = MARGIN + offset;
            // SAFETY: the range is inside the vector. Only the lowest byte of the value counts.
            let result = unsafe { memset(bytes.as_mut_ptr().add(place), 0x1a5, length) };
            assert_eq!(result, bytes[place..].as_mut_ptr());
            for (index, byte) in bytes.iter().enumerate() {
                let filled = (place..place + length).contains(&index);
                assert_eq!(*byte, if filled { 0xa5 } else { 0xee }, "{length} {index}");
            }
        }
    }
}

#[test]
fn memcmp_is_decided_by_the_first_byte_that_differs() {
    let left = pattern();
    for length in LENGTHS {
        // SAFETY: the range is inside the vectors.
        let compare = |right: &[u8]| unsafe {
            let (left, right) = (left.as_ptr(), right.as_ptr());
            let difference = memcmp(left, right, length);
            assert_eq!(difference == 0, bcmp(left, right, length) == 0);
            difference.signum()
        };
        let mut right = left.clone();
        right[length..].fill(0);
        assert_eq!(compare(&right), 0, "{length}");
        for index in (0..length).filter(|index| *index < 40 || index + 10 > length) {
            for (change, sign) in [(-1i8, 1), (1, -1), (-128, 0)] {
                let mut right = left.clone();
                right[index] = left[index].wrapping_add_signed(change);
                // What differs behind counts for nothing.
                right[index + 1..].fill(0x80);
                let expected = match sign {
                    0 => left[index].cmp(&right[index]) as c_int,
                    _ if right[index].abs_diff(left[index]) == 1 => sign,
                    _ => continue,
                };
                assert_eq!(compare(&right), expected, "{length} {index}");
            }
        }
    }
}

#[test]
fn strlen_counts_up_to_the_zero() {
    for text in [c"", c"a", c"a longer one"] {
        // SAFETY: it ends with a zero.
        assert_eq!(unsafe { strlen(text.as_ptr().cast()) }, text.count_bytes());
    }
}
