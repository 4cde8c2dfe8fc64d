//! FADT: power management registers (ACPI 6.5, 5.2.9), and the one fact of the DSDT that powering off needs.

use super::table::{AcpiError, HEADER, Part};
use crate::memory::address::Spa;
use crate::memory::physical::PhysicalMemory;

/// Power management registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Power {
    /// The power management timer, 3.579545 MHz.
    pub timer: Option<PmTimer>,
    /// How to reset the machine.
    pub reset: Option<Reset>,
    /// Port of the PM1a control register.
    pub pm1a_control: Option<u16>,
    /// Port of the PM1b control register.
    pub pm1b_control: Option<u16>,
    /// What to write into SLP_TYP of PM1a and PM1b control for S5, if the DSDT says so plainly.
    pub s5_sleep_types: Option<[u8; 2]>,
}

/// The power management timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PmTimer {
    /// Its port.
    pub port: u16,
    /// Whether it counts in 32 bits rather than in 24.
    pub is_32_bit: bool,
}

/// How to reset the machine: write `value` to `register`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reset {
    /// Where; 8 bits wide.
    pub register: Register,
    /// What.
    pub value: u8,
}

/// Where a register is (ACPI 6.5, 5.2.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Register {
    /// In memory.
    Memory(Spa),
    /// At an I/O port.
    Port(u16),
    /// In the configuration space of bus 0: device in bits 47:32, function in 31:16, offset in 15:0.
    PciConfiguration(u64),
}

const FLAG_RESET_REGISTER: u32 = 1 << 10;
const FLAG_TIMER_32_BIT: u32 = 1 << 8;

pub(super) fn read(memory: &impl PhysicalMemory, fadt: Part<'_>) -> Result<Power, AcpiError> {
    let flags: u32 = fadt.field(112)?;
    let timer = port(fadt, 76, 208)?.filter(|_| fadt.optional::<u8>(91) == Some(4));
    let reset = match register(fadt, 116)? {
        Some(register) if flags & FLAG_RESET_REGISTER != 0 => Some(Reset {
            register,
            value: fadt.field(128)?,
        }),
        _ => None,
    };
    let dsdt = fadt.optional(140).filter(|address| *address != 0);
    let dsdt = Spa(dsdt.unwrap_or(fadt.field::<u32>(40)?.into()));
    Ok(Power {
        timer: timer.map(|port| PmTimer {
            port,
            is_32_bit: flags & FLAG_TIMER_32_BIT != 0,
        }),
        reset,
        pm1a_control: port(fadt, 64, 172)?,
        pm1b_control: port(fadt, 68, 184)?,
        s5_sleep_types: Part::table(memory, dsdt)
            .ok()
            .and_then(|dsdt| s5_sleep_types(&dsdt.bytes[HEADER..])),
    })
}

/// The register that the generic address structure at `offset` names, if the table has one there and it names one.
fn register(fadt: Part<'_>, offset: usize) -> Result<Option<Register>, AcpiError> {
    let (Some(space), Some(address)) = (fadt.optional::<u8>(offset), fadt.optional::<u64>(offset + 4)) else {
        return Ok(None);
    };
    match (space, u16::try_from(address)) {
        (_, Ok(0)) => Ok(None),
        (0, _) => Ok(Some(Register::Memory(Spa(address)))),
        (1, Ok(port)) => Ok(Some(Register::Port(port))),
        (2, _) => Ok(Some(Register::PciConfiguration(address))),
        (1, Err(_)) => Err(fadt.damaged(offset, "an I/O port is beyond 65535")),
        _ => Ok(None),
    }
}

/// The port that the extended field names, else the one that the 32-bit field names.
fn port(fadt: Part<'_>, offset: usize, extended: usize) -> Result<Option<u16>, AcpiError> {
    if let Some(Register::Port(port)) = register(fadt, extended)? {
        return Ok(Some(port));
    }
    match u16::try_from(fadt.field::<u32>(offset)?) {
        Ok(port) => Ok((port != 0).then_some(port)),
        Err(_) => Err(fadt.damaged(offset, "an I/O port is beyond 65535")),
    }
}

/// Finds `Name (\_S5, Package () { a, b, … })` in AML and returns a and b, where they are plain small integers (ACPI 6.5,
/// 7.4.2 and 20.2). Firmware writes it no other way; the rest of AML is the root's.
fn s5_sleep_types(aml: &[u8]) -> Option<[u8; 2]> {
    const NAME: u8 = 0x08;
    const PACKAGE: u8 = 0x12;
    let named = aml
        .windows(5)
        .enumerate()
        .filter(|(_, window)| &window[..4] == b"_S5_" && window[4] == PACKAGE);
    for (at, _) in named {
        let before = aml[..at].strip_suffix(b"\\").unwrap_or(&aml[..at]);
        if before.last() != Some(&NAME) {
            continue;
        }
        let package = &aml[at + 5..];
        // PkgLength: the two highest bits of its first byte count the bytes that follow. Then the number of elements.
        let elements = package.get(2 + usize::from(*package.first()? >> 6)..)?;
        let (a, rest) = small_integer(elements)?;
        let (b, _) = small_integer(rest)?;
        return Some([a, b]);
    }
    None
}

/// ZeroOp, OneOp or a byte constant, and what follows it.
fn small_integer(aml: &[u8]) -> Option<(u8, &[u8])> {
    match aml {
        [0x0a, value, rest @ ..] => Some((*value, rest)),
        [value @ 0..=1, rest @ ..] => Some((*value, rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_types_are_found_in_plain_packages() {
        assert_eq!(
            s5_sleep_types(b"\x08_S5_\x12\x06\x04\x00\x01\x00\x00"),
            Some([0, 1])
        );
        assert_eq!(
            s5_sleep_types(b"junk\x08\\_S5_\x12\x46\x00\x04\x0a\x05\x0a\x07"),
            Some([5, 7])
        );
    }

    #[test]
    fn sleep_types_that_are_not_plain_are_not_guessed() {
        assert_eq!(s5_sleep_types(b"\x08_S5_\x12\x06\x04\x0b\x00\x01\x00"), None);
        assert_eq!(s5_sleep_types(b"\x10_S5_\x12\x06\x04\x00\x01"), None);
        assert_eq!(s5_sleep_types(b"\x08_S5_\x12\xff"), None);
        assert_eq!(s5_sleep_types(b"\x08_S5_\x12"), None);
        assert_eq!(s5_sleep_types(b"_S5_\x12\x06\x04\x00\x01"), None);
    }
}
