//! The description of a virtual machine: a TOML file of the boot archive.
//!
//! | key | what | default |
//! |---|---|---|
//! | `name` | letters, digits, `-`, `_`, `.` | the file's name |
//! | `processors` | 1 to 64 | 1 |
//! | `memory` | with a unit: `"64MiB"`, `"2GiB"` | none: it must be given |
//! | `kernel` | file of the boot archive | none: it must be given |
//! | `modules` | list of files | none |
//! | `command_line` | text for the kernel | empty |
//! | `console` | `"com1"` or `"com2"` | `"com1"` |
//! | `weight` | 1 to 10000, against other machines | 100 |
//! | `cap` | most processor time, percent of a processor for each VP | no cap |
//! | `reserve` | processor time that is sure, likewise | 0 |
//! | `devices` | names of devices on its bus: `"echo"` | none |
//! | `triple_fault` | `"crash"` keeps the machine for a look, `"reset"` starts it anew | `"crash"` |
//! | `unknown_msr` | an MSR that it does not have: `"fault"` raises #GP, `"ignore"` reads zero and drops writes | `"fault"` |
//! | `loopback` | it can post messages and signal events to itself, for guests that test the interface | `false` |
//!
//! Each table `[[disk]]` is a disk on its SCSI controller:
//!
//! | key | what | default |
//! |---|---|---|
//! | `source` | a disk of the root as `disk list` names it, `"archive:FILE"`, or `"ram:64MiB"` | none: it must be given |
//! | `read_only` | the guest cannot write it | `false` |
//! | `dvd` | it is a medium in a DVD drive, read-only | `false` |
//!
//! Each table `[[network]]` is a network card:
//!
//! | key | what | default |
//! |---|---|---|
//! | `switch` | the switch that it is plugged into; a private one is made where there is none of the name | `"default"` |
//! | `mac` | its address | one that is made up, always the same |
//! | `vlan` | the VLAN that it is in, 1 to 4094 | none |
//!
//! Each table `[[cpuid]]` is a feature mask, for what CPUID says to the guest:
//!
//! | key | what | default |
//! |---|---|---|
//! | `leaf` | the leaf, EAX of CPUID | none: it must be given |
//! | `subleaf` | the subleaf, ECX of CPUID | every one |
//! | `register` | `"eax"`, `"ebx"`, `"ecx"` or `"edx"` | none: it must be given |
//! | `clear` | bits that read as zero | 0 |
//! | `set` | bits that read as one | 0 |
//!
//! Some bits imply others: Linux 6.1 that finds FSRM (leaf 7, EDX bit 4) but not ERMS (EBX bit 9) moves memory without end.
//!
//! Each table `[[msr]]` is a rule for an MSR that the hypervisor does not give to the guest:
//!
//! | key | what | default |
//! |---|---|---|
//! | `number` | the MSR | none: it must be given |
//! | `read` | the value that it reads as | as `unknown_msr` says |
//! | `write` | `"ignore"` or `"fault"` | as `unknown_msr` says |
//!
//! A table `[enlightenments]` has a switch for each part of the hypervisor's interface that a guest need not be told of
//! ([`SWITCHES`]), as in `tlb_flush = false`; `hypervisor = false` hides all of it.

mod disk;
mod network;
mod processor;

pub use disk::DiskDescription;
pub use network::{MAX_CARDS, NetworkDescription};
pub use processor::{CpuidMask, MsrAnswer, MsrPolicy, MsrRule};

use super::bus::device::BY_NAME;
use super::enlightenments::{Enlightenments, SWITCHES};
use crate::settings::{Item, SettingsError, SettingsFile, item};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use toml::de::DeTable;

/// Most VPs of a machine.
pub const MAX_PROCESSORS: u32 = 64;
/// Least memory.
pub const MIN_MEMORY: u64 = 1 << 20;
/// Most memory.
const MAX_MEMORY: u64 = 1 << 40;
/// Memory comes in so many bytes.
const MEMORY_STEP: u64 = 4096;
/// Longest name.
const MAX_NAME: usize = 32;
/// Most files that a kernel is given.
const MAX_MODULES: usize = 32;

/// What a description may say.
const KEYS: &[&str] = &[
    "name",
    "processors",
    "memory",
    "kernel",
    "modules",
    "command_line",
    "console",
    "weight",
    "cap",
    "reserve",
    "devices",
    "disk",
    "network",
    "triple_fault",
    "unknown_msr",
    "loopback",
    "cpuid",
    "msr",
    "enlightenments",
];

/// A virtual machine as it was described.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Number of VPs.
    pub processors: u32,
    /// Bytes of memory, a multiple of 4 KiB.
    pub memory: u64,
    /// File of the boot archive.
    pub kernel: String,
    /// Files of the boot archive that the kernel is given.
    pub modules: Vec<String>,
    /// The kernel's command line.
    pub command_line: String,
    /// The serial port that is the console: 0 is COM1.
    pub console: usize,
    /// Weight of its VPs.
    pub weight: u64,
    /// Most processor time of each VP, in percent; `None` for no cap.
    pub cap: Option<u64>,
    /// Processor time that each VP is sure of, in percent.
    pub reserve: u64,
    /// Devices on its bus, names of [`BY_NAME`](super::bus::device::BY_NAME).
    pub devices: Vec<String>,
    /// Disks on its SCSI controller, unit 0 first.
    pub disks: Vec<DiskDescription>,
    /// Its network cards.
    pub networks: Vec<NetworkDescription>,
    /// What a triple fault leads to.
    pub triple_fault: TripleFault,
    /// What becomes of MSRs that it does not have.
    pub msrs: MsrPolicy,
    /// What CPUID says otherwise than the hypervisor would.
    pub cpuid: Vec<CpuidMask>,
    /// Whether it has ports to itself.
    pub loopback: bool,
    /// Which parts of the hypervisor's interface the guest is told of.
    pub enlightenments: Enlightenments,
}

/// What a triple fault leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TripleFault {
    /// The machine stays as it is, to be looked at.
    Crash,
    /// The machine is reset, as a PC is.
    Reset,
}

impl Description {
    /// Reads `text`, the contents of `file`.
    pub fn read(file: &str, text: &[u8]) -> Result<Self, SettingsError> {
        let file = SettingsFile::new(file, text);
        let table = file.parse()?;
        Reader { file }.description(table.get_ref())
    }
}

/// The name that a description without `name` has: its file's.
fn name_of_file(file: &str) -> &str {
    let last = file.rsplit('/').next().unwrap_or(file);
    last.strip_suffix(".toml").unwrap_or(last)
}

/// Whether a machine may be called `name`.
pub fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= MAX_NAME && !name.starts_with('-') && name.chars().all(allowed)
}

/// What a name must be, for errors.
pub const NAME_RULE: &str =
    "a name has 1 to 32 letters, digits, '-', '_' or '.', and does not begin with '-'";

struct Reader<'a> {
    file: SettingsFile<'a>,
}

impl Reader<'_> {
    fn description(&self, table: &DeTable<'_>) -> Result<Description, SettingsError> {
        self.file.known(table, KEYS)?;
        let item = |key| item(table, key);
        let required = |key: &'static str, example| {
            item(key).ok_or_else(|| {
                self.file.error(
                    0,
                    format_args!("{key} is missing: give one, as in {key} = \"{example}\""),
                )
            })
        };
        let (weight, cap, reserve) = self.shares(&item)?;
        Ok(Description {
            name: match item("name") {
                Some(item) => self.name(&item)?,
                None => self.file_name()?,
            },
            processors: self.number(item("processors"), 1, 1..=MAX_PROCESSORS.into())? as u32,
            memory: self.memory(&required("memory", "64MiB")?)?,
            kernel: self.path(&required("kernel", "kernels/hello")?)?,
            modules: item("modules").map_or(Ok(Vec::new()), |item| self.paths(&item))?,
            command_line: match item("command_line") {
                Some(item) => self.file.text(&item)?.to_string(),
                None => String::new(),
            },
            console: self.choice(item("console"), &[("com1", 0), ("com2", 1)])?,
            weight,
            cap,
            reserve,
            devices: item("devices").map_or(Ok(Vec::new()), |item| self.devices(&item))?,
            disks: item("disk").map_or(Ok(Vec::new()), |item| self.disks(&item))?,
            networks: item("network").map_or(Ok(Vec::new()), |item| self.networks(&item))?,
            triple_fault: self.choice(
                item("triple_fault"),
                &[("crash", TripleFault::Crash), ("reset", TripleFault::Reset)],
            )?,
            msrs: self.msrs(item("unknown_msr"), item("msr"))?,
            cpuid: item("cpuid").map_or(Ok(Vec::new()), |item| self.cpuid_masks(&item))?,
            loopback: item("loopback").map_or(Ok(false), |item| self.file.flag(&item))?,
            enlightenments: match item("enlightenments") {
                Some(item) => self.enlightenments(&item)?,
                None => Enlightenments::ALL,
            },
        })
    }

    fn enlightenments(&self, item: &Item<'_, '_>) -> Result<Enlightenments, SettingsError> {
        let table = item.value.get_ref().as_table().ok_or_else(|| {
            self.file.bad(
                item,
                "give a table of switches, as in [enlightenments] and tlb_flush = false",
            )
        })?;
        let keys: Vec<&str> = SWITCHES.iter().map(|switch| switch.key).collect();
        self.file.known(table, &keys)?;
        let mut enlightenments = Enlightenments::ALL;
        for (key, value) in table {
            let key = key.get_ref();
            enlightenments.set(key, self.file.flag(&Item { key, value })?);
        }
        Ok(enlightenments)
    }

    fn devices(&self, item: &Item<'_, '_>) -> Result<Vec<String>, SettingsError> {
        let names: Vec<&str> = BY_NAME.iter().map(|(name, _)| *name).collect();
        let advice = || {
            let names = names.join(", ");
            self.file.bad(
                item,
                format_args!("give a list of devices, each once, of: {names}"),
            )
        };
        let list = item.value.get_ref().as_array().ok_or_else(advice)?;
        let mut devices: Vec<String> = Vec::new();
        for entry in list.iter() {
            let name = entry.get_ref().as_str().ok_or_else(advice)?;
            if !names.contains(&name) || devices.iter().any(|other| other == name) {
                return Err(advice());
            }
            devices.push(name.to_string());
        }
        Ok(devices)
    }

    fn shares<'a, 'i: 'a>(
        &self,
        item: &impl Fn(&'static str) -> Option<Item<'a, 'i>>,
    ) -> Result<(u64, Option<u64>, u64), SettingsError> {
        let weight = self.number(item("weight"), 100, 1..=10_000)?;
        let cap = match item("cap") {
            Some(item) => Some(self.number(Some(item), 0, 1..=100)?),
            None => None,
        };
        let reserve = self.number(item("reserve"), 0, 0..=100)?;
        match (cap, item("reserve")) {
            (Some(cap), Some(item)) if reserve > cap => Err(self
                .file
                .bad(&item, format_args!("it is more than the cap of {cap}"))),
            _ => Ok((weight, cap, reserve)),
        }
    }

    fn name(&self, item: &Item<'_, '_>) -> Result<String, SettingsError> {
        let name = self.file.text(item)?;
        match is_name(name) {
            true => Ok(name.to_string()),
            false => Err(self.file.bad(item, NAME_RULE)),
        }
    }

    fn file_name(&self) -> Result<String, SettingsError> {
        let name = name_of_file(self.file.name());
        match is_name(name) {
            true => Ok(name.to_string()),
            false => Err(self.file.error(
                0,
                format_args!("name is missing, and the file's cannot stand for it: {NAME_RULE}"),
            )),
        }
    }

    fn number(
        &self,
        item: Option<Item<'_, '_>>,
        default: u64,
        range: core::ops::RangeInclusive<u64>,
    ) -> Result<u64, SettingsError> {
        item.map_or(Ok(default), |item| self.file.number(&item, range))
    }

    fn memory(&self, item: &Item<'_, '_>) -> Result<u64, SettingsError> {
        let text = self.file.text(item).map_err(|_| {
            self.file
                .bad(item, "give a size with its unit in quotes, as in \"64MiB\"")
        })?;
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let number = digits.trim().parse::<u64>().ok();
        let shift = match text[digits.len()..].trim() {
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            "" if number.is_some() => {
                return Err(self
                    .file
                    .bad(item, format_args!("give a unit, as in \"{digits}MiB\"")));
            }
            _ => {
                return Err(self
                    .file
                    .bad(item, "give a size in KiB, MiB or GiB, as in \"64MiB\""));
            }
        };
        let size = number
            .and_then(|number| number.checked_mul(1 << shift))
            .filter(|size| size.is_multiple_of(MEMORY_STEP));
        match size {
            Some(size @ MIN_MEMORY..=MAX_MEMORY) => Ok(size),
            _ => Err(self
                .file
                .bad(item, "give a multiple of 4KiB from \"1MiB\" to \"1024GiB\"")),
        }
    }

    fn path(&self, item: &Item<'_, '_>) -> Result<String, SettingsError> {
        let path = self.file.text(item)?;
        match path.is_empty() || path.starts_with('/') {
            true => Err(self
                .file
                .bad(item, "give a file of the boot archive, as in \"kernels/hello\"")),
            false => Ok(path.to_string()),
        }
    }

    fn paths(&self, item: &Item<'_, '_>) -> Result<Vec<String>, SettingsError> {
        let list = item
            .value
            .get_ref()
            .as_array()
            .filter(|list| list.len() <= MAX_MODULES)
            .ok_or_else(|| {
                self.file.bad(
                    item,
                    format_args!("give a list of up to {MAX_MODULES} files, as in [\"disks/root.img\"]"),
                )
            })?;
        list.iter()
            .map(|value| self.path(&Item { key: item.key, value }))
            .collect()
    }

    /// One of `choices`, the first of which is the default.
    fn choice<T: Copy>(&self, item: Option<Item<'_, '_>>, choices: &[(&str, T)]) -> Result<T, SettingsError> {
        item.map_or(Ok(choices[0].1), |item| self.file.choice(&item, choices))
    }
}

#[cfg(test)]
mod tests;
