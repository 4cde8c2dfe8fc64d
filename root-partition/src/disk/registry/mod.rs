//! Which disks there are, and who uses them.
//!
//! | module | holds |
//! |---|---|
//! | [`claim`] | a disk in somebody's hands |
//! | [`refused`] | why a disk is not to be had |

pub mod claim;
pub mod refused;

pub use claim::{Access, Claim};
pub use refused::DiskRefused;

use super::archive::ArchiveDisk;
use super::gpt::{self, TableError};
use super::ram;
use super::root_disk::{Backend, RootDisk};
use crate::shell::disks::DiskInfo;
use crate::vm::machine::Files;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::task::{Poll, Waker};
use refused::MOST_NAME;
use spin::Mutex;
use vsp::storage::disk::Disk;

const ARCHIVE: &str = "archive:";
const RAM: &str = "ram:";
/// Memory that a disk of memory leaves to the root, in bytes.
const LEFT_TO_THE_ROOT: u64 = 64 << 20;

/// What kind of disk an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Device,
    Partition,
    Memory,
    Archive,
}

struct Entry {
    name: String,
    kind: Kind,
    /// Disks of the same medium overlap where their sectors do.
    medium: u64,
    disk: RootDisk,
    model: Option<String>,
    users: Vec<(u64, String, Access)>,
}

impl Entry {
    fn overlaps(&self, other: &Self) -> bool {
        let (mine, others) = (self.disk.sectors(), other.disk.sectors());
        self.medium == other.medium && mine.start < others.end && others.start < mine.end
    }
}

#[derive(Default)]
struct Inner {
    entries: Vec<Entry>,
    next: u64,
    /// The drivers have looked for disks.
    ready: bool,
    waiting: Vec<Waker>,
}

impl Inner {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn find(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    fn insert(&mut self, entry: Entry) {
        let at = self.entries.partition_point(|other| other.name < entry.name);
        self.entries.insert(at, entry);
    }

    /// Who uses `entry`, or something that it overlaps, so that it cannot be used for `access` too.
    fn conflict(&self, entry: &Entry, access: Access) -> Option<DiskRefused> {
        let overlapping = self.entries.iter().filter(|other| other.overlaps(entry));
        overlapping
            .flat_map(|other| other.users.iter().map(move |user| (other, user)))
            .find(|(_, (_, _, theirs))| access == Access::Write || *theirs == Access::Write)
            .map(|(other, (_, user, _))| DiskRefused::InUse {
                name: other.name.clone(),
                user: user.clone(),
            })
    }
}

/// The disks.
pub struct Registry {
    inner: Mutex<Inner>,
    archive: Arc<dyn Files>,
    /// Free memory of the root, in bytes.
    free_memory: fn() -> u64,
}

impl Registry {
    /// No disks yet, and the files of `archive`.
    pub fn new(archive: Arc<dyn Files>, free_memory: fn() -> u64) -> Self {
        Self {
            inner: Mutex::default(),
            archive,
            free_memory,
        }
    }

    /// Completes when the drivers have looked for disks.
    pub async fn ready(&self) {
        poll_fn(|context| {
            let mut inner = self.inner.lock();
            if inner.ready {
                return Poll::Ready(());
            }
            if !inner.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                inner.waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Lets those go on that wait for the drivers.
    pub fn set_ready(&self) {
        let waiting = {
            let mut inner = self.inner.lock();
            inner.ready = true;
            core::mem::take(&mut inner.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Adds a device's disk, `name`.
    pub fn add_device(&self, name: String, backend: Backend, model: Option<String>) {
        let mut inner = self.inner.lock();
        let medium = inner.number();
        inner.insert(Entry {
            name,
            kind: Kind::Device,
            medium,
            disk: RootDisk::whole(backend),
            model,
            users: Vec::new(),
        });
    }

    /// Makes a disk of memory.
    pub fn create(&self, name: &str, bytes: u64) -> Result<(), DiskRefused> {
        let well_formed = name.len() <= MOST_NAME
            && name.starts_with(|first: char| first.is_ascii_alphabetic())
            && name
                .chars()
                .all(|character| character.is_ascii_alphanumeric() || "-_".contains(character));
        if !well_formed || name.starts_with("nvme") {
            return Err(DiskRefused::Name(name.to_string()));
        }
        if self.inner.lock().find(name).is_some() {
            return Err(DiskRefused::Exists(name.to_string()));
        }
        let disk = self.memory_disk(bytes)?;
        let mut inner = self.inner.lock();
        if inner.find(name).is_some() {
            return Err(DiskRefused::Exists(name.to_string()));
        }
        let medium = inner.number();
        inner.insert(Entry {
            name: name.to_string(),
            kind: Kind::Memory,
            medium,
            disk,
            model: None,
            users: Vec::new(),
        });
        Ok(())
    }

    fn memory_disk(&self, bytes: u64) -> Result<RootDisk, DiskRefused> {
        let most = (self.free_memory)().saturating_sub(LEFT_TO_THE_ROOT);
        let refused = || DiskRefused::Memory(bytes >> 20, most >> 20);
        if bytes > most {
            return Err(refused());
        }
        let disk = ram::of_size(bytes).ok_or_else(refused)?;
        Ok(RootDisk::whole(Backend::Ram(Arc::new(disk))))
    }

    /// Forgets a disk of memory that nobody uses. Its memory is free when whoever still looks at it has done so.
    pub fn delete(&self, name: &str) -> Result<(), DiskRefused> {
        let mut inner = self.inner.lock();
        let index = inner.entries.iter().position(|entry| entry.name == name);
        let Some((index, entry)) = index.and_then(|index| Some((index, inner.entries.get(index)?))) else {
            return Err(unknown(&inner, name));
        };
        if entry.kind != Kind::Memory {
            return Err(DiskRefused::NotMemory(name.to_string()));
        }
        if let Some(refused) = inner.conflict(entry, Access::Write) {
            return Err(refused);
        }
        let medium = entry.medium;
        let entry = inner.entries.remove(index);
        inner.entries.retain(|other| other.medium != medium);
        drop(inner);
        drop(entry);
        Ok(())
    }

    /// Takes the disk `name` for `user`, until the claim is dropped. `name` may also be `archive:FILE`, or `ram:64MiB`,
    /// which makes a disk for this claim only. Waits until the drivers have looked for disks.
    pub async fn claim(
        self: &Arc<Self>,
        name: &str,
        user: &str,
        access: Access,
    ) -> Result<Claim, DiskRefused> {
        self.ready().await;
        let temporary = match name.strip_prefix(RAM) {
            Some(text) => Some((
                Kind::Memory,
                self.memory_disk(size(text).ok_or_else(|| DiskRefused::Size(name.into()))?)?,
            )),
            None => name
                .strip_prefix(ARCHIVE)
                .map(|file| Ok((Kind::Archive, self.archive_disk(file)?)))
                .transpose()?,
        };
        let mut inner = self.inner.lock();
        let id = inner.number();
        let user = (id, user.to_string(), access);
        if let Some((kind, disk)) = temporary {
            return self.claim_temporary(&mut inner, name, kind, disk, user);
        }
        let Some(entry) = inner.find(name) else {
            return Err(unknown(&inner, name));
        };
        if access == Access::Write && entry.disk.geometry().read_only {
            return Err(DiskRefused::ReadOnly(name.to_string()));
        }
        if let Some(refused) = inner.conflict(entry, access) {
            return Err(refused);
        }
        let disk = entry.disk.clone();
        if let Some(entry) = inner.entries.iter_mut().find(|entry| entry.name == name) {
            entry.users.push(user);
        }
        Ok(self.claimed(id, name, disk, access))
    }

    /// A disk that is there for this claim alone: it gets an entry of its own, so that it is listed, and that goes with it.
    fn claim_temporary(
        self: &Arc<Self>,
        inner: &mut Inner,
        name: &str,
        kind: Kind,
        disk: RootDisk,
        user: (u64, String, Access),
    ) -> Result<Claim, DiskRefused> {
        let (id, access) = (user.0, user.2);
        if access == Access::Write && disk.geometry().read_only {
            return Err(DiskRefused::ReadOnly(name.to_string()));
        }
        inner.insert(Entry {
            name: name.to_string(),
            kind,
            medium: id,
            disk: disk.clone(),
            model: None,
            users: alloc::vec![user],
        });
        Ok(self.claimed(id, name, disk, access))
    }

    fn claimed(self: &Arc<Self>, id: u64, name: &str, disk: RootDisk, access: Access) -> Claim {
        let disk = match access {
            Access::Read => disk.read_only(),
            Access::Write => disk,
        };
        Claim {
            registry: self.clone(),
            id,
            name: name.to_string(),
            disk,
        }
    }

    /// The disk `name`, whoever uses it, to look at.
    pub async fn look(&self, name: &str) -> Result<RootDisk, DiskRefused> {
        self.ready().await;
        if let Some(file) = name.strip_prefix(ARCHIVE) {
            return self.archive_disk(file);
        }
        let inner = self.inner.lock();
        match inner.find(name) {
            Some(entry) => Ok(entry.disk.read_only()),
            None => Err(unknown(&inner, name)),
        }
    }

    fn archive_disk(&self, file: &str) -> Result<RootDisk, DiskRefused> {
        match self.archive.file(file) {
            Some(bytes) => Ok(RootDisk::whole(Backend::Archive(ArchiveDisk::new(bytes)))),
            None => Err(DiskRefused::Unknown {
                name: format!("{ARCHIVE}{file}"),
                advice: String::from(": the boot archive has no such file"),
            }),
        }
    }

    /// Reads the partition table of the disk `name`. Partitions that are in use stay as they are. Returns how many
    /// partitions the table has.
    pub async fn scan(&self, name: &str) -> Result<usize, DiskRefused> {
        let (disk, kind) = {
            let inner = self.inner.lock();
            let entry = inner.find(name).ok_or_else(|| unknown(&inner, name))?;
            (entry.disk.clone(), entry.kind)
        };
        if !matches!(kind, Kind::Device | Kind::Memory) {
            return Err(DiskRefused::NoPartitions(name.to_string()));
        }
        let partitions = match gpt::read(&disk).await {
            Ok(partitions) => partitions,
            Err(TableError::MISSING) => Vec::new(),
            Err(error) => return Err(DiskRefused::Table(name.to_string(), error)),
        };
        let mut inner = self.inner.lock();
        let Some(medium) = inner.find(name).map(|entry| entry.medium) else {
            return Err(unknown(&inner, name));
        };
        inner.entries.retain(|entry| {
            entry.medium != medium || entry.kind != Kind::Partition || !entry.users.is_empty()
        });
        for partition in &partitions {
            let part_name = format!("{name}p{}", partition.number);
            let Some(part) = disk.part(partition.sectors.clone()) else {
                continue;
            };
            if inner.find(&part_name).is_some() {
                continue;
            }
            inner.insert(Entry {
                name: part_name,
                kind: Kind::Partition,
                medium,
                disk: part,
                model: Some(partition.name.clone()).filter(|name| !name.is_empty()),
                users: Vec::new(),
            });
        }
        Ok(partitions.len())
    }

    /// The disks, by name.
    pub fn list(&self) -> Vec<DiskInfo> {
        self.inner.lock().entries.iter().map(describe).collect()
    }

    /// Their names.
    pub fn names(&self) -> Vec<String> {
        self.inner
            .lock()
            .entries
            .iter()
            .map(|entry| entry.name.clone())
            .collect()
    }

    fn release(&self, id: u64) {
        let gone = {
            let mut inner = self.inner.lock();
            for entry in &mut inner.entries {
                entry.users.retain(|(user, _, _)| *user != id);
            }
            let index = inner.entries.iter().position(|entry| entry.medium == id);
            index.map(|index| inner.entries.remove(index))
        };
        drop(gone);
    }
}

fn describe(entry: &Entry) -> DiskInfo {
    DiskInfo {
        model: entry.model.clone(),
        users: entry.users.iter().map(|(_, user, _)| user.clone()).collect(),
        ..info(&entry.name, &entry.disk, entry.kind == Kind::Partition)
    }
}

/// What the shell shows of `disk`.
pub(super) fn info(name: &str, disk: &RootDisk, is_partition: bool) -> DiskInfo {
    let geometry = disk.geometry();
    DiskInfo {
        name: name.to_string(),
        kind: match disk.backend() {
            _ if is_partition => "partition",
            Backend::Nvme(_) => "nvme",
            Backend::Ram(_) => "ram",
            Backend::Archive(_) => "archive",
        },
        sectors: geometry.sectors,
        sector_size: geometry.sector_size,
        read_only: geometry.read_only,
        write_cache: geometry.write_cache,
        discard: geometry.discard,
        model: None,
        users: Vec::new(),
        counters: disk.counters(),
    }
}

fn unknown(inner: &Inner, name: &str) -> DiskRefused {
    // nvme0p7 where there is an nvme0.
    let parent = name
        .rsplit_once('p')
        .filter(|(parent, number)| number.parse::<u32>().is_ok() && inner.find(parent).is_some());
    let advice = match parent {
        Some((parent, _)) => format!(": if it is new, 'disk scan {parent}' finds it"),
        None if inner.entries.is_empty() => String::from(": there are none"),
        None => String::from(": 'disk list' shows them"),
    };
    DiskRefused::Unknown {
        name: name.to_string(),
        advice,
    }
}

/// A size with its unit, such as `64MiB`, in bytes.
pub fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let shift = match text.get(digits.len()..)? {
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    let number = digits.parse::<u64>().ok().filter(|&number| number > 0)?;
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests;
