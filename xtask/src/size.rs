//! Amounts of memory as people write them: `512MiB`, `2GiB`.

use std::fmt;
use std::str::FromStr;

/// An amount of memory in whole MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemorySize(u64);

impl MemorySize {
    /// That many MiB.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib)
    }

    /// The amount in MiB.
    pub const fn mib(self) -> u64 {
        self.0
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            mib if mib != 0 && mib % 1024 == 0 => write!(out, "{}GiB", mib / 1024),
            mib => write!(out, "{mib}MiB"),
        }
    }
}

impl FromStr for MemorySize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number
            .parse()
            .map_err(|_| format!("{text:?} does not begin with a whole number; write 512MiB or 2GiB"))?;
        let factor = match unit.trim() {
            "MiB" | "M" => 1,
            "GiB" | "G" => 1024,
            "" => return Err(format!("{text:?} has no unit; write {text}MiB or {text}GiB")),
            unit => return Err(format!("{unit:?} is no unit of memory here; write MiB or GiB")),
        };
        match number.checked_mul(factor) {
            Some(mib) if mib > 0 => Ok(Self(mib)),
            _ => Err(format!("{text:?} is out of range")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_with_a_unit_are_read() {
        for (text, mib) in [
            ("512MiB", 512),
            ("2GiB", 2048),
            ("4G", 4096),
            (" 64 MiB ", 64),
            ("100M", 100),
        ] {
            assert_eq!(text.parse(), Ok(MemorySize::from_mib(mib)), "{text}");
        }
    }

    #[test]
    fn sizes_without_a_sensible_unit_or_number_are_refused_with_advice() {
        assert_eq!(
            "64".parse::<MemorySize>().unwrap_err(),
            "\"64\" has no unit; write 64MiB or 64GiB"
        );
        for text in [
            "",
            "GiB",
            "-1GiB",
            "1.5GiB",
            "0MiB",
            "2TB",
            "99999999999999999999GiB",
            "18446744073709551615GiB",
        ] {
            assert!(text.parse::<MemorySize>().is_err(), "{text}");
        }
    }

    #[test]
    fn display_can_be_read_back() {
        for mib in [1, 512, 1024, 1536, 4096] {
            let size = MemorySize::from_mib(mib);
            assert_eq!(size.to_string().parse(), Ok(size));
        }
    }
}
