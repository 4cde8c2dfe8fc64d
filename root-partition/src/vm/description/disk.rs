//! The disks of a machine: tables `[[disk]]`.

use super::Reader;
use crate::settings::{Item, SettingsError, item};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use toml::de::DeTable;
use vsp::storage::controller::MAX_UNITS;

const KEYS: &[&str] = &["source", "read_only", "dvd"];

/// A disk as it was described.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskDescription {
    /// What is behind it: a name that [`Registry::claim`](crate::disk::Registry::claim) knows; none is a drive without a medium.
    pub source: Option<String>,
    /// The guest cannot write it.
    pub read_only: bool,
    /// It is a DVD drive, and what is behind it the medium.
    pub dvd: bool,
}

impl Reader<'_> {
    pub(super) fn disks(&self, item: &Item<'_, '_>) -> Result<Vec<DiskDescription>, SettingsError> {
        let advice = "give tables, as in [[disk]] and source = \"nvme0\"";
        let list = self.file.tables(item, KEYS, advice)?;
        if list.len() > usize::from(MAX_UNITS) {
            return Err(self
                .file
                .bad(item, format_args!("a machine has at most {MAX_UNITS} disks")));
        }
        list.into_iter().map(|(table, at)| self.disk(table, at)).collect()
    }

    fn disk(&self, table: &DeTable<'_>, at: usize) -> Result<DiskDescription, SettingsError> {
        let item = |key| item(table, key);
        let source = match item("source") {
            Some(source) => {
                let name = self.file.text(&source)?;
                if name.is_empty() {
                    let advice = "give a disk, as in \"nvme0\", \"archive:a.iso\" or \"ram:64MiB\"";
                    return Err(self.file.bad(&source, advice));
                }
                Some(name.to_string())
            }
            None => None,
        };
        let flag = |key| item(key).map(|item| self.file.flag(&item)).transpose();
        let (read_only, dvd) = (flag("read_only")?, flag("dvd")?.unwrap_or(false));
        if source.is_none() && !dvd {
            return Err(self.file.error(
                at,
                "a [[disk]] without source: give one, as in source = \"nvme0\", or dvd = true for an empty drive",
            ));
        }
        match (read_only, dvd, item("read_only")) {
            (Some(false), true, Some(item)) => Err(self
                .file
                .bad(&item, "the medium of a DVD drive is always read-only")),
            _ => Ok(DiskDescription {
                source,
                read_only: dvd || read_only.unwrap_or(false),
                dvd,
            }),
        }
    }
}
