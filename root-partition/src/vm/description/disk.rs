//! The disks of a machine: tables `[[disk]]`.

use super::{DescriptionError, Item, Reader};
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
    pub(super) fn disks(&self, item: &Item<'_, '_>) -> Result<Vec<DiskDescription>, DescriptionError> {
        let advice = || self.bad(item, "give tables, as in [[disk]] and source = \"nvme0\"");
        let list = item.value.get_ref().as_array().ok_or_else(advice)?;
        if list.len() > usize::from(MAX_UNITS) {
            return Err(self.bad(item, format_args!("a machine has at most {MAX_UNITS} disks")));
        }
        list.iter()
            .map(|entry| {
                let table = entry.get_ref().as_table().ok_or_else(advice)?;
                self.disk(table, entry.span().start)
            })
            .collect()
    }

    fn disk(&self, table: &DeTable<'_>, at: usize) -> Result<DiskDescription, DescriptionError> {
        for key in table.keys() {
            self.known(key.get_ref(), key.span().start, KEYS)?;
        }
        let item = |key| table.get(key).map(|value| Item { key, value });
        let source = match item("source") {
            Some(source) => {
                let name = self.text(&source)?;
                if name.is_empty() {
                    let advice = "give a disk, as in \"nvme0\", \"archive:a.iso\" or \"ram:64MiB\"";
                    return Err(self.bad(&source, advice));
                }
                Some(name.to_string())
            }
            None => None,
        };
        let flag = |key| match item(key) {
            Some(item) => match item.value.get_ref().as_bool() {
                Some(flag) => Ok(Some(flag)),
                None => Err(self.bad(&item, "give true or false")),
            },
            None => Ok(None),
        };
        let (read_only, dvd) = (flag("read_only")?, flag("dvd")?.unwrap_or(false));
        if source.is_none() && !dvd {
            return Err(self.error(
                at,
                "a [[disk]] without source: give one, as in source = \"nvme0\", or dvd = true for an empty drive",
            ));
        }
        match (read_only, dvd, item("read_only")) {
            (Some(false), true, Some(item)) => {
                Err(self.bad(&item, "the medium of a DVD drive is always read-only"))
            }
            _ => Ok(DiskDescription {
                source,
                read_only: dvd || read_only.unwrap_or(false),
                dvd,
            }),
        }
    }
}
