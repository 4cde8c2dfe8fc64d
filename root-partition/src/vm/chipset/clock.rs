//! The time registers of a PC's clock, to be read, and nothing else of it: no alarm, no interrupt, no memory, and nothing
//! can be set. ACPI says that there is no such clock, so no driver takes it (`rtc_cmos` is not there).
//!
//! Linux asks these registers all the same, whatever ACPI says, before anything else can tell it the time
//! (arch/x86/kernel/rtc.c, mach_get_cmos_time). Were they like other unclaimed ports, it would wait for seconds for an update
//! to end, say that it cannot read the time, and begin in 1970 until its time service is loaded: time stamps of the root file
//! system and of the log would be wrong, for good where no service is loaded. Guests of Hyper-V's second generation ask UEFI
//! instead, which ours are started without.

use vmbus::protocol::integration::time_sync::UNIX_EPOCH;

/// Port of the register's number.
pub const INDEX: u16 = 0x70;
/// Port of the register.
pub const DATA: u16 = 0x71;

/// Ticks of 100 ns a second.
const TICKS_PER_SECOND: u64 = 10_000_000;
const SECONDS_PER_DAY: u64 = 86_400;
/// Bit 7 of the index masks NMIs.
const NUMBER: u8 = 0x7f;
/// Register B: hours count to 24, numbers are decimal digits, and local time is UTC.
const HOURS_24: u8 = 1 << 1;
/// Register D: the time is valid.
const VALID: u8 = 1 << 7;

/// The clock. Without a time all its registers are 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    index: u8,
    time: Option<Time>,
}

/// A time of day, UTC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Time {
    year: u64,
    month: u64,
    day: u64,
    /// Since midnight.
    second: u64,
}

impl Clock {
    /// Tells it the time: 100 ns since 1601, UTC.
    pub fn set(&mut self, now: Option<u64>) {
        self.time = now
            .and_then(|now| now.checked_sub(UNIX_EPOCH))
            .map(|ticks| Time::of(ticks / TICKS_PER_SECOND));
    }

    /// The guest writes to [`INDEX`].
    pub fn select(&mut self, index: u8) {
        self.index = index & NUMBER;
    }

    /// The guest reads [`DATA`]. An update is never in progress: register A is 0.
    pub fn read(&self) -> u8 {
        let Some(time) = self.time else { return 0 };
        match self.index {
            0 => digits(time.second % 60),
            2 => digits(time.second / 60 % 60),
            4 => digits(time.second / 3600),
            7 => digits(time.day),
            8 => digits(time.month),
            9 => digits(time.year % 100),
            0x0b => HOURS_24,
            0x0d => VALID,
            _ => 0,
        }
    }
}

impl Time {
    /// The time `seconds` after the beginning of 1970.
    fn of(seconds: u64) -> Self {
        const DAYS_IN_400_YEARS: u64 = 146_097;
        /// From 1 March of the year 0 to the beginning of 1970.
        const DAYS_BEFORE: u64 = 719_468;
        // Years that begin in March end with the leap day.
        let days = seconds / SECONDS_PER_DAY + DAYS_BEFORE;
        let (era, day) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        // From March on, five months have 153 days.
        let month = (5 * day + 2) / 153;
        let next_year = month >= 10;
        Self {
            year: 400 * era + year + u64::from(next_year),
            month: if next_year { month - 9 } else { month + 3 },
            day: day - (153 * month + 2) / 5 + 1,
            second: seconds % SECONDS_PER_DAY,
        }
    }
}

/// Two decimal digits.
fn digits(number: u64) -> u8 {
    (((number / 10 % 10) << 4) | (number % 10)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> [u8; 6] {
        let mut clock = Clock::default();
        clock.set(Some(UNIX_EPOCH + seconds * TICKS_PER_SECOND));
        [9, 8, 7, 4, 2, 0].map(|register| {
            clock.select(register);
            clock.read()
        })
    }

    #[test]
    fn it_tells_the_time_in_decimal_digits() {
        assert_eq!(at(0), [0x70, 0x01, 0x01, 0, 0, 0]);
        assert_eq!(at(951_782_399), [0x00, 0x02, 0x28, 0x23, 0x59, 0x59]);
        assert_eq!(at(951_782_400), [0x00, 0x02, 0x29, 0, 0, 0]);
        assert_eq!(at(1_709_251_199), [0x24, 0x02, 0x29, 0x23, 0x59, 0x59]);
        assert_eq!(at(1_798_761_599), [0x26, 0x12, 0x31, 0x23, 0x59, 0x59]);
        assert_eq!(at(1_798_761_600), [0x27, 0x01, 0x01, 0, 0, 0]);
        assert_eq!(at(4_107_542_399), [0x00, 0x02, 0x28, 0x23, 0x59, 0x59]);
        assert_eq!(at(4_107_542_400), [0x00, 0x03, 0x01, 0, 0, 0]);
    }

    #[test]
    fn its_state_is_valid_and_never_being_updated() {
        let mut clock = Clock::default();
        clock.set(Some(UNIX_EPOCH));
        let states = [0x0a, 0x8b, 0x0c, 0x0d, 0x32].map(|register| {
            clock.select(register);
            clock.read()
        });
        assert_eq!(states, [0, 2, 0, 0x80, 0]);
    }

    #[test]
    fn without_a_time_all_is_zero() {
        let mut clock = Clock::default();
        for now in [None, Some(0), Some(UNIX_EPOCH - 1)] {
            clock.set(now);
            for register in 0..=u8::MAX {
                clock.select(register);
                assert_eq!(clock.read(), 0);
            }
        }
        clock.set(Some(u64::MAX));
        clock.select(8);
        assert_ne!(clock.read(), 0);
    }
}
