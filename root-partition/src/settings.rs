//! TOML files of the boot archive, read with errors that name the line, the setting as it stands and what would be right.

use crate::shell::commands::dispatch::closest;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::ops::RangeInclusive;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong with a file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{file}:{line}: {what}")]
pub struct SettingsError {
    /// File of the boot archive.
    pub file: String,
    /// Line in it, from 1.
    pub line: usize,
    /// A sentence.
    pub what: String,
}

/// A file that is being read.
#[derive(Clone, Copy, Debug)]
pub struct SettingsFile<'a> {
    name: &'a str,
    text: &'a [u8],
}

/// A value with what is needed to complain of it.
#[derive(Clone, Copy, Debug)]
pub struct Item<'t, 'i> {
    /// Its key.
    pub key: &'t str,
    /// The value, and where it stands.
    pub value: &'t Spanned<DeValue<'i>>,
}

/// The value of a key, if the table has it.
pub fn item<'t, 'i>(table: &'t DeTable<'i>, key: &'t str) -> Option<Item<'t, 'i>> {
    table.get(key).map(|value| Item { key, value })
}

/// A table of an array, and where it begins.
pub type Entry<'t, 'i> = (&'t DeTable<'i>, usize);

impl<'a> SettingsFile<'a> {
    /// The file `name` with the contents `text`.
    pub const fn new(name: &'a str, text: &'a [u8]) -> Self {
        Self { name, text }
    }

    /// Its name.
    pub const fn name(&self) -> &'a str {
        self.name
    }

    /// What stands in it.
    pub fn parse(&self) -> Result<Spanned<DeTable<'a>>, SettingsError> {
        let source = core::str::from_utf8(self.text)
            .map_err(|error| self.error(error.valid_up_to(), "the file is not UTF-8 text"))?;
        DeTable::parse(source).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            self.error(at, one_line(error.message()))
        })
    }

    /// An error about the byte `at`.
    pub fn error(&self, at: usize, what: impl fmt::Display) -> SettingsError {
        let before = &self.text[..at.min(self.text.len())];
        SettingsError {
            file: self.name.to_string(),
            line: before.iter().filter(|&&byte| byte == b'\n').count() + 1,
            what: what.to_string(),
        }
    }

    /// An error about a value: the setting as it stands, and what would be right.
    pub fn bad(&self, item: &Item<'_, '_>, advice: impl fmt::Display) -> SettingsError {
        let span = item.value.span();
        let shown = String::from_utf8_lossy(self.text.get(span.clone()).unwrap_or_default());
        self.error(
            span.start,
            format_args!("{} = {}: {advice}", item.key, one_line(&shown)),
        )
    }

    /// Checks that a table has none but `keys`.
    pub fn known(&self, table: &DeTable<'_>, keys: &[&str]) -> Result<(), SettingsError> {
        let unknown = table.keys().find(|key| !keys.contains(&&**key.get_ref()));
        let Some(key) = unknown else { return Ok(()) };
        let name: &str = key.get_ref();
        let advice = match closest(name, keys) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("there are {}", keys.join(", ")),
        };
        Err(self.error(
            key.span().start,
            format_args!("unknown key '{}': {advice}", one_line(name)),
        ))
    }

    /// The table under `key`, which has none but `keys`.
    pub fn table<'t, 'i>(
        &self,
        table: &'t DeTable<'i>,
        key: &'t str,
        keys: &[&str],
    ) -> Result<Option<&'t DeTable<'i>>, SettingsError> {
        let Some(item) = item(table, key) else {
            return Ok(None);
        };
        let found = item.value.get_ref().as_table();
        let found = found.ok_or_else(|| self.bad(&item, format_args!("give a table, as in [{key}]")))?;
        self.known(found, keys)?;
        Ok(Some(found))
    }

    /// The tables of a list, each of which has none but `keys`.
    pub fn tables<'t, 'i>(
        &self,
        item: &Item<'t, 'i>,
        keys: &[&str],
        advice: impl fmt::Display,
    ) -> Result<Vec<Entry<'t, 'i>>, SettingsError> {
        let list = item.value.get_ref().as_array();
        let list = list.ok_or_else(|| self.bad(item, &advice))?;
        let entry = |entry: &'t Spanned<DeValue<'i>>| {
            let table = entry.get_ref().as_table();
            let table = table.ok_or_else(|| self.bad(item, &advice))?;
            self.known(table, keys)?;
            Ok((table, entry.span().start))
        };
        list.iter().map(entry).collect()
    }

    /// A text that can be passed on; `example` is one.
    pub fn text_like<'t>(&self, item: &Item<'t, '_>, example: &str) -> Result<&'t str, SettingsError> {
        let advice = format_args!("give a text in quotes, as in {} = \"{example}\"", item.key);
        let text = item.value.get_ref().as_str();
        let text = text.ok_or_else(|| self.bad(item, advice))?;
        match text.contains('\0') {
            true => Err(self.bad(item, "a NUL character cannot be passed on")),
            false => Ok(text),
        }
    }

    /// A text that can be passed on.
    pub fn text<'t>(&self, item: &Item<'t, '_>) -> Result<&'t str, SettingsError> {
        self.text_like(item, "…")
    }

    /// True or false.
    pub fn flag(&self, item: &Item<'_, '_>) -> Result<bool, SettingsError> {
        let flag = item.value.get_ref().as_bool();
        flag.ok_or_else(|| self.bad(item, "give true or false"))
    }

    /// A number of `range`.
    pub fn number(&self, item: &Item<'_, '_>, range: RangeInclusive<u64>) -> Result<u64, SettingsError> {
        let integer = item.value.get_ref().as_integer();
        let number = integer.and_then(|integer| u64::from_str_radix(integer.as_str(), integer.radix()).ok());
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            let advice = format_args!("give a number from {} to {}", range.start(), range.end());
            self.bad(item, advice)
        })
    }

    /// One of `choices`.
    pub fn choice<T: Copy>(&self, item: &Item<'_, '_>, choices: &[(&str, T)]) -> Result<T, SettingsError> {
        let text = self.text(item)?;
        let found = choices.iter().find(|(name, _)| *name == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            self.bad(item, format_args!("give {}", names.join(" or ")))
        })
    }
}

/// The first line of a text that may be long.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 60;
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_string(),
    }
}
