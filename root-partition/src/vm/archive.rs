//! The files of the boot archive.
#![allow(unsafe_code)]

use super::machine::Files;
use alloc::vec::Vec;
use core::ops::Range;
use hypercall_api::archive::{Archive, ArchiveError, Member};

/// Folder of the descriptions.
const DESCRIPTIONS: &str = "vms/";
/// How their names end.
const EXTENSION: &str = ".toml";

/// The boot archive.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootArchive {
    bytes: &'static [u8],
}

impl BootArchive {
    /// The archive in `range`.
    ///
    /// # Safety
    /// The range is mapped, and nobody writes it from now on.
    pub unsafe fn at(range: Range<u64>) -> Self {
        let length = range.end.saturating_sub(range.start) as usize;
        // SAFETY: the caller vouches for the range.
        let bytes = unsafe { core::slice::from_raw_parts(range.start as *const u8, length) };
        Self { bytes }
    }

    /// The file `name`; an error where the archive is damaged before it.
    pub fn find(&self, name: &str) -> Result<Option<Member<'static>>, ArchiveError> {
        match self.bytes.is_empty() {
            true => Ok(None),
            false => Archive::new(self.bytes).find(name),
        }
    }

    /// The names of all descriptions.
    pub fn descriptions(&self) -> Vec<&'static str> {
        let mut names: Vec<&str> = Archive::new(self.bytes)
            .filter_map(Result::ok)
            .filter(Member::is_file)
            .filter_map(|member| member.name.strip_prefix(DESCRIPTIONS)?.strip_suffix(EXTENSION))
            .collect();
        names.sort_unstable();
        names
    }
}

/// The file of the description `name`.
pub fn description_file(name: &str) -> alloc::string::String {
    alloc::format!("{DESCRIPTIONS}{name}{EXTENSION}")
}

impl Files for BootArchive {
    fn file(&self, name: &str) -> Option<&'static [u8]> {
        self.find(name).ok().flatten().map(|member| member.data)
    }

    fn descriptions(&self) -> Vec<&'static str> {
        self.descriptions()
    }
}
