//! Finds the emulator, or fetches it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

use crate::packages::QEMU;
use crate::paths;

/// The oldest QEMU major version that has what the machine needs (x2APIC under TCG, AMD's SVM as we use it).
const OLDEST_QEMU: u32 = 9;

const QEMU_PROGRAM: &str = "qemu-system-x86_64";

/// An emulator that is new enough.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// What to start.
    pub program: PathBuf,
    /// Its version.
    pub version: Version,
}

/// A version of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl Version {
    /// Parses what `qemu-system-x86_64 --version` prints.
    pub fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.lines().next()?.split_once(" version ")?;
        let mut numbers = rest.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some(Self {
            major: numbers.next()?.ok()?,
            minor: numbers.next()?.ok()?,
        })
    }
}

/// A QEMU that is new enough: PATH's, else the private package root's, which is made when missing.
/// Looks once a process.
pub fn qemu() -> Result<Qemu> {
    static FOUND: Mutex<Option<Qemu>> = Mutex::new(None);
    let mut found = FOUND.lock().unwrap_or_else(|poison| poison.into_inner());
    if let Some(qemu) = &*found {
        return Ok(qemu.clone());
    }
    let qemu = find_qemu()?;
    *found = Some(qemu.clone());
    Ok(qemu)
}

fn find_qemu() -> Result<Qemu> {
    if let Some(program) = paths::in_path(QEMU_PROGRAM)
        && let Ok(version) = version_of(&program)
        && version.major >= OLDEST_QEMU
    {
        return Ok(Qemu { program, version });
    }
    let program = QEMU.ensure()?.program(QEMU_PROGRAM);
    let version = version_of(&program)?;
    if version.major < OLDEST_QEMU {
        bail!(
            "this distribution's {QEMU_PROGRAM} is {}.{}, but {OLDEST_QEMU}.0 or newer is needed; put one into PATH",
            version.major,
            version.minor
        );
    }
    Ok(Qemu { program, version })
}

fn version_of(program: &Path) -> Result<Version> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Version::parse(&text).with_context(|| {
        format!(
            "{} printed no version: {text}{}",
            program.display(),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_distributions_and_of_upstream_are_read() {
        for (text, major, minor) in [
            (
                "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)\nCopyright",
                10,
                0,
            ),
            ("QEMU emulator version 7.2.15 (Debian 1:7.2+dfsg-7)\n", 7, 2),
            ("QEMU emulator version 9.1.50 (v9.1.0-100-gabcdef)", 9, 1),
            ("QEMU emulator version 11.0\n", 11, 0),
        ] {
            assert_eq!(Version::parse(text), Some(Version { major, minor }), "{text}");
        }
    }

    #[test]
    fn other_text_is_no_version() {
        for text in [
            "",
            "qemu",
            "QEMU emulator version",
            "QEMU emulator version x.y",
            "QEMU emulator version 9",
        ] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }
}
