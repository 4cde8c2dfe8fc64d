//! The PC's real-time clock, read once at the start: it counts seconds only, and slowly.
#![allow(unsafe_code)]

use x86_64::instructions::port::Port;

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;

const SECONDS: u8 = 0;
const MINUTES: u8 = 2;
const HOURS: u8 = 4;
const DAY: u8 = 7;
const MONTH: u8 = 8;
const YEAR: u8 = 9;
const STATUS_A: u8 = 10;
const STATUS_B: u8 = 11;

/// Status A: the registers are about to change.
const UPDATING: u8 = 1 << 7;
/// Status B: hours count to 24.
const HOURS_24: u8 = 1 << 1;
/// Status B: registers are binary, not decimal digits.
const BINARY: u8 = 1 << 2;
/// Hours: afternoon, where hours count to 12.
const AFTERNOON: u8 = 1 << 7;
/// The clock tells the year without its century.
const CENTURY: u32 = 2000;
/// Looks at the clock before it is given up; an update takes 2 ms, a look some microseconds.
const PATIENCE: u32 = 20_000;

/// The registers, as read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Registers {
    seconds: u8,
    minutes: u8,
    hours: u8,
    day: u8,
    month: u8,
    year: u8,
    status: u8,
}

/// Seconds since 1970, UTC, as the clock has it; `None` where there is no clock, or it tells nonsense.
pub fn unix_time() -> Option<u64> {
    let mut before = None;
    for _ in 0..PATIENCE {
        if register(STATUS_A) & UPDATING != 0 {
            before = None;
            continue;
        }
        let now = Registers {
            seconds: register(SECONDS),
            minutes: register(MINUTES),
            hours: register(HOURS),
            day: register(DAY),
            month: register(MONTH),
            year: register(YEAR),
            status: register(STATUS_B),
        };
        // Two readings that agree were not torn by an update.
        if before == Some(now) {
            return decode(now);
        }
        before = Some(now);
    }
    None
}

fn decode(registers: Registers) -> Option<u64> {
    let number = |register: u8| {
        if registers.status & BINARY != 0 {
            Some(u32::from(register))
        } else {
            let (tens, ones) = (register >> 4, register & 15);
            (tens < 10 && ones < 10).then_some(u32::from(tens) * 10 + u32::from(ones))
        }
    };
    let hour = if registers.status & HOURS_24 != 0 {
        number(registers.hours)?
    } else {
        let afternoon = registers.hours & AFTERNOON != 0;
        let hour = number(registers.hours & !AFTERNOON)?;
        if !(1..=12).contains(&hour) {
            return None;
        }
        hour % 12 + if afternoon { 12 } else { 0 }
    };
    let (minute, second) = (number(registers.minutes)?, number(registers.seconds)?);
    let (year, month, day) = (
        CENTURY + number(registers.year)?,
        number(registers.month)?,
        number(registers.day)?,
    );
    let valid =
        hour < 24 && minute < 60 && second < 60 && (1..=12).contains(&month) && (1..=31).contains(&day);
    valid.then(|| {
        let days = u64::from(days_since_1970(year, month, day));
        days * 86_400 + u64::from(hour * 3600 + minute * 60 + second)
    })
}

/// Days from 1 January 1970 to a day of the years 2000 to 2099, in which each fourth year is a leap year.
fn days_since_1970(year: u32, month: u32, day: u32) -> u32 {
    const DAYS_TO_2000: u32 = 10_957;
    const BEFORE_MONTH: [u32; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let years = year - CENTURY;
    let leap_days = years.div_ceil(4) + u32::from(years.is_multiple_of(4) && month > 2);
    DAYS_TO_2000 + years * 365 + leap_days + BEFORE_MONTH[month as usize - 1] + day - 1
}

fn register(index: u8) -> u8 {
    // SAFETY: the ports are the clock's, which nobody else uses; reading has no effect. Bit 7 of the index stays clear,
    // which lets NMIs through.
    unsafe {
        Port::new(INDEX).write(index);
        Port::new(DATA).read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECIMAL: Registers = Registers {
        seconds: 0x06,
        minutes: 0x30,
        hours: 0x16,
        day: 0x21,
        month: 0x11,
        year: 0x26,
        status: HOURS_24,
    };
    /// 2026-11-21 16:30:06 UTC.
    const SECONDS: u64 = 1_795_278_606;

    #[test]
    fn all_forms_of_the_registers_tell_the_same_time() {
        assert_eq!(decode(DECIMAL), Some(SECONDS));
        let binary = Registers {
            seconds: 6,
            minutes: 30,
            hours: 16,
            day: 21,
            month: 11,
            year: 26,
            status: HOURS_24 | BINARY,
        };
        assert_eq!(decode(binary), Some(SECONDS));
        let twelve = Registers {
            hours: 0x04 | AFTERNOON,
            status: 0,
            ..DECIMAL
        };
        assert_eq!(decode(twelve), Some(SECONDS));
    }

    #[test]
    fn noon_and_midnight_are_twelve() {
        let midnight = decode(Registers {
            hours: 0x12,
            status: 0,
            ..DECIMAL
        });
        let noon = decode(Registers {
            hours: 0x12 | AFTERNOON,
            status: 0,
            ..DECIMAL
        });
        assert_eq!(noon, midnight.map(|seconds| seconds + 12 * 3600));
        assert_eq!(midnight, Some(SECONDS - 16 * 3600));
    }

    #[test]
    fn days_are_counted_over_leap_years() {
        assert_eq!(days_since_1970(2000, 1, 1), 10_957);
        assert_eq!(days_since_1970(2000, 3, 1) - days_since_1970(2000, 2, 28), 2);
        assert_eq!(days_since_1970(2001, 1, 1) - days_since_1970(2000, 1, 1), 366);
        assert_eq!(days_since_1970(2023, 3, 1) - days_since_1970(2023, 2, 28), 1);
        assert_eq!(days_since_1970(2024, 2, 29), 19_782);
    }

    #[test]
    fn nonsense_is_no_time() {
        let floating = Registers {
            seconds: 0xff,
            minutes: 0xff,
            hours: 0xff,
            day: 0xff,
            month: 0xff,
            year: 0xff,
            status: 0xff,
        };
        assert_eq!(decode(floating), None);
        assert_eq!(decode(Registers { month: 0, ..DECIMAL }), None);
        assert_eq!(
            decode(Registers {
                minutes: 0x5a,
                ..DECIMAL
            }),
            None
        );
    }
}
