//! Initial RAM disks: cpio archives (newc) that Linux unpacks into its first file system.

use std::io::Write;

use anyhow::{Context, Result};
use cpio::newc;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// Collects what an initial RAM disk holds.
#[derive(Debug, Default)]
pub struct Initrd {
    bytes: Vec<u8>,
    entries: u32,
}

impl Initrd {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a folder, whose own folder was added before.
    pub fn folder(self, name: &str) -> Result<Self> {
        self.entry(name, FOLDER, &[], None)
    }

    /// Adds a file that can be run.
    pub fn program(self, name: &str, contents: &[u8]) -> Result<Self> {
        self.entry(name, PROGRAM, contents, None)
    }

    /// Adds a file.
    pub fn file(self, name: &str, contents: &[u8]) -> Result<Self> {
        self.entry(name, FILE, contents, None)
    }

    /// Adds a character device.
    pub fn device(self, name: &str, major: u32, minor: u32) -> Result<Self> {
        self.entry(name, CHARACTER_DEVICE, &[], Some((major, minor)))
    }

    /// The archive.
    pub fn build(mut self) -> Result<Vec<u8>> {
        newc::trailer(&mut self.bytes)?;
        Ok(self.bytes)
    }

    fn entry(mut self, name: &str, mode: u32, contents: &[u8], device: Option<(u32, u32)>) -> Result<Self> {
        let length =
            u32::try_from(contents.len()).with_context(|| format!("{name} is too large for an archive"))?;
        self.entries += 1;
        let (major, minor) = device.unwrap_or_default();
        let entry = newc::Builder::new(name)
            .ino(self.entries)
            .mode(mode)
            .nlink(1)
            .rdev_major(major)
            .rdev_minor(minor);
        let mut writer = entry.write(&mut self.bytes, length);
        writer.write_all(contents)?;
        writer.finish()?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_devices_are_kept() {
        let initrd = Initrd::new()
            .folder("dev")
            .and_then(|initrd| initrd.device("dev/console", 5, 1))
            .and_then(|initrd| initrd.program("init", b"#!/bin/sh\n"))
            .and_then(Initrd::build)
            .unwrap();
        let mut rest = initrd.as_slice();
        let mut found = Vec::new();
        loop {
            let reader = newc::Reader::new(rest).unwrap();
            let entry = reader.entry();
            if entry.is_trailer() {
                break;
            }
            found.push((
                entry.name().to_owned(),
                entry.mode(),
                entry.rdev_major(),
                entry.rdev_minor(),
            ));
            rest = reader.finish().unwrap();
        }
        assert_eq!(
            found,
            [
                ("dev".to_owned(), 0o040_755, 0, 0),
                ("dev/console".to_owned(), 0o020_600, 5, 1),
                ("init".to_owned(), 0o100_755, 0, 0),
            ]
        );
    }
}
