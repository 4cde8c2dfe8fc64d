//! Quantities as people read them. Integers only: the kernel has no reason to touch floating point.

use alloc::{format, string::String};

/// Bytes with a binary unit: `512 B`, `2.0 GiB`.
pub fn bytes(value: u64) -> String {
    scaled(value, 1024, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

/// Hz with a decimal unit: `2.995 GHz`.
pub fn hertz(value: u64) -> String {
    for (unit, name) in [(1_000_000_000, "GHz"), (1_000_000, "MHz"), (1_000, "kHz")] {
        if value >= unit {
            return format!("{}.{:03} {name}", value / unit, value % unit * 1000 / unit);
        }
    }
    format!("{value} Hz")
}

/// A time: `1.234 ms`, `12.300 s`, `1 h 02 min 03 s`.
pub fn nanoseconds(value: u64) -> String {
    let seconds = value / 1_000_000_000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0 if value < 1_000 => format!("{value} ns"),
        0 if value < 1_000_000 => format!("{}.{:03} µs", value / 1_000, value % 1_000),
        0 => format!("{}.{:03} ms", value / 1_000_000, value / 1_000 % 1_000),
        1..60 => format!("{seconds}.{:03} s", value / 1_000_000 % 1_000),
        60..3600 => format!("{minutes} min {:02} s", seconds % 60),
        3600..86400 => format!("{hours} h {:02} min {:02} s", minutes % 60, seconds % 60),
        _ => format!("{days} d {:02} h {:02} min", hours % 24, minutes % 60),
    }
}

/// `value` in the largest unit that leaves at least 1, with one decimal, rounded.
fn scaled(value: u64, step: u64, units: &[&str]) -> String {
    let mut unit = 1u128;
    for (index, name) in units.iter().enumerate() {
        let tenths = (u128::from(value) * 10 + unit / 2) / unit;
        if tenths < u128::from(step) * 10 || index + 1 == units.len() {
            return match index {
                0 => format!("{value} {name}"),
                _ => format!("{}.{} {name}", tenths / 10, tenths % 10),
            };
        }
        unit *= u128::from(step);
    }
    format!("{value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_one_decimal_and_the_unit_that_fits() {
        for (value, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (2 << 30, "2.0 GiB"),
            ((2 << 30) - 1, "2.0 GiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (17_000_000, "16.2 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(value), shown);
        }
    }

    #[test]
    fn frequencies_keep_three_decimals() {
        assert_eq!(hertz(2_995_123_456), "2.995 GHz");
        assert_eq!(hertz(1_000_000_000), "1.000 GHz");
        assert_eq!(hertz(62_500), "62.500 kHz");
        assert_eq!(hertz(18), "18 Hz");
    }

    #[test]
    fn times_go_from_nanoseconds_to_days() {
        for (value, shown) in [
            (0, "0 ns"),
            (1_500, "1.500 µs"),
            (12_345_678, "12.345 ms"),
            (12_300_000_000, "12.300 s"),
            (62_000_000_000, "1 min 02 s"),
            (3_723_000_000_000, "1 h 02 min 03 s"),
            (90_060_000_000_000, "1 d 01 h 01 min"),
        ] {
            assert_eq!(nanoseconds(value), shown);
        }
    }
}
