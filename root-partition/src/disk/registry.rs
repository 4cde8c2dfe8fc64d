//! Which disks there are, and who uses them.

use super::archive::ArchiveDisk;
use super::gpt::{self, TableError};
use super::ram::RamDisk;
use super::root_disk::{Backend, RootDisk};
use crate::shell::disks::DiskInfo;
use crate::vm::machine::Files;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::Future;
use core::future::poll_fn;
use core::task::{Poll, Waker};
use spin::Mutex;
use vsp::buffer::Buffer;
use vsp::storage::disk::{Disk, DiskError, Durability, Geometry, Request};

const ARCHIVE: &str = "archive:";
const RAM: &str = "ram:";
/// Longest name of a disk that is made.
const MOST_NAME: usize = 32;
/// Memory that a disk of memory leaves to the root, in bytes.
const LEFT_TO_THE_ROOT: u64 = 64 << 20;

/// What a disk is claimed for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Others may read it too.
    Read,
    /// Nobody else may use any of it.
    Write,
}

/// Why a disk is not to be had.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DiskRefused {
    /// There is none of that name.
    #[error("there is no disk '{name}'{advice}")]
    Unknown {
        /// The name.
        name: String,
        /// What to do, beginning with a colon.
        advice: String,
    },
    /// Somebody else uses it, or a part of it.
    #[error("'{name}' is in use by {user}")]
    InUse {
        /// What is used.
        name: String,
        /// By whom.
        user: String,
    },
    /// It cannot be written.
    #[error("'{0}' is read-only")]
    ReadOnly(String),
    /// A disk of that name exists.
    #[error("there is a disk '{0}' already")]
    Exists(String),
    /// The name cannot be one.
    #[error(
        "'{0}' cannot be the name of a disk: take letters, digits, '-' and '_', a letter first, at most {MOST_NAME}, and none that \
         begins with nvme"
    )]
    Name(String),
    /// It is not a disk of memory.
    #[error("'{0}' is not a disk of memory, and stays")]
    NotMemory(String),
    /// It is not one that partitions are looked for on.
    #[error("'{0}' is a partition, or has none")]
    NoPartitions(String),
    /// Its size makes no sense.
    #[error("'{0}': give a size, as in ram:64MiB")]
    Size(String),
    /// There is too little memory.
    #[error("there is too little memory for a disk of {0} MiB; {1} MiB can be had")]
    Memory(u64, u64),
    /// Its partition table cannot be read.
    #[error("'{0}': {1}")]
    Table(String, TableError),
}

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
        let disk = RamDisk::new(bytes).ok_or_else(refused)?;
        Ok(RootDisk::whole(Backend::Ram(disk)))
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
            Err(TableError::Missing) => Vec::new(),
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

/// A disk that is in somebody's hands. Dropping it gives it back.
pub struct Claim {
    registry: Arc<Registry>,
    id: u64,
    name: String,
    disk: RootDisk,
}

impl Claim {
    /// What it was claimed as.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The disk.
    pub const fn disk(&self) -> &RootDisk {
        &self.disk
    }
}

impl Disk for Claim {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    fn at_once(&self, request: Request<'_>) -> Option<Result<(), DiskError>> {
        self.disk.at_once(request)
    }

    fn read(&self, sector: u64, buffer: &Arc<Buffer>) -> impl Future<Output = Result<(), DiskError>> + Send {
        self.disk.read(sector, buffer)
    }

    fn write(
        &self,
        sector: u64,
        buffer: &Arc<Buffer>,
        durability: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + Send {
        self.disk.write(sector, buffer, durability)
    }

    fn flush(&self) -> impl Future<Output = Result<(), DiskError>> + Send {
        self.disk.flush()
    }

    fn discard(&self, sector: u64, count: u64) -> impl Future<Output = Result<(), DiskError>> + Send {
        self.disk.discard(sector, count)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.registry.release(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::super::gpt::tests::{disk as disk_with, put};
    use super::*;
    use crate::shell::fake::block_on;

    struct Archive;

    impl Files for Archive {
        fn file(&self, name: &str) -> Option<&'static [u8]> {
            (name == "disks/web.img").then_some(&[7; 1000])
        }

        fn descriptions(&self) -> Vec<&'static str> {
            Vec::new()
        }
    }

    fn registry() -> Arc<Registry> {
        let registry = Registry::new(Arc::new(Archive), || 128 << 20);
        registry.set_ready();
        Arc::new(registry)
    }

    /// With `nvme0`, a disk of 1 MiB with two partitions, as far as this module can tell.
    fn with_partitions() -> Arc<Registry> {
        let registry = registry();
        let disk = disk_with(&[(64..128, "boot"), (128..256, "data")]);
        registry.add_device("nvme0".into(), Backend::Ram(disk), Some("model".into()));
        assert_eq!(block_on(registry.scan("nvme0")), Ok(2));
        registry
    }

    fn claim(registry: &Arc<Registry>, name: &str, access: Access) -> Result<Claim, DiskRefused> {
        block_on(registry.claim(name, "web", access))
    }

    #[test]
    fn names_are_listed_in_order_with_kind_and_size() {
        let registry = with_partitions();
        registry.create("scratch", 1 << 20).unwrap();
        let seen: Vec<_> = registry
            .list()
            .into_iter()
            .map(|disk| (disk.name, disk.kind, disk.sectors, disk.model))
            .collect();
        let some = |text: &str| Some(String::from(text));
        assert_eq!(
            seen,
            [
                ("nvme0".into(), "ram", 2048, some("model")),
                ("nvme0p1".into(), "partition", 64, some("boot")),
                ("nvme0p2".into(), "partition", 128, some("data")),
                ("scratch".into(), "ram", 2048, None),
            ]
        );
    }

    #[test]
    fn a_disk_that_is_written_belongs_to_nobody_else() {
        let registry = with_partitions();
        let first = claim(&registry, "nvme0p1", Access::Write).unwrap();
        let in_use = |name: &str| DiskRefused::InUse {
            name: name.into(),
            user: "web".into(),
        };
        for name in ["nvme0p1", "nvme0"] {
            for access in [Access::Read, Access::Write] {
                assert_eq!(
                    claim(&registry, name, access).err(),
                    Some(in_use("nvme0p1")),
                    "{name}"
                );
            }
        }
        let second = claim(&registry, "nvme0p2", Access::Write).unwrap();
        drop(first);
        assert!(claim(&registry, "nvme0p1", Access::Read).is_ok());
        assert_eq!(
            claim(&registry, "nvme0", Access::Read).err(),
            Some(in_use("nvme0p2"))
        );
        drop(second);
        let whole = claim(&registry, "nvme0", Access::Write).unwrap();
        assert_eq!(
            claim(&registry, "nvme0p2", Access::Read).err(),
            Some(in_use("nvme0"))
        );
        drop(whole);
        assert!(registry.list().iter().all(|disk| disk.users.is_empty()));
    }

    #[test]
    fn readers_share_and_cannot_write() {
        let registry = with_partitions();
        let readers = [
            claim(&registry, "nvme0", Access::Read).unwrap(),
            claim(&registry, "nvme0p1", Access::Read).unwrap(),
        ];
        assert!(readers.iter().all(|claim| claim.disk().geometry().read_only));
        assert!(claim(&registry, "nvme0p1", Access::Write).is_err());
    }

    #[test]
    fn a_file_of_the_archive_is_a_read_only_disk() {
        let registry = registry();
        let disk = claim(&registry, "archive:disks/web.img", Access::Read).unwrap();
        assert_eq!((disk.disk().geometry().sectors, registry.names().len()), (2, 1));
        let again = claim(&registry, "archive:disks/web.img", Access::Write);
        assert_eq!(
            again.err(),
            Some(DiskRefused::ReadOnly("archive:disks/web.img".into()))
        );
        drop(disk);
        assert_eq!(registry.names().len(), 0);
        assert!(matches!(
            claim(&registry, "archive:none", Access::Read),
            Err(DiskRefused::Unknown { .. })
        ));
        assert!(block_on(registry.look("archive:disks/web.img")).is_ok());
    }

    #[test]
    fn a_disk_of_memory_of_ones_own_goes_with_its_claim() {
        let registry = registry();
        let first = claim(&registry, "ram:1MiB", Access::Write).unwrap();
        let second = claim(&registry, "ram:1MiB", Access::Write).unwrap();
        assert_eq!(registry.names(), ["ram:1MiB", "ram:1MiB"]);
        drop(first);
        assert_eq!(registry.names().len(), 1);
        drop(second);
        assert_eq!(registry.names().len(), 0);
        for name in ["ram:", "ram:64", "ram:0MiB", "ram:-1MiB", "ram:99999999999GiB"] {
            assert_eq!(
                claim(&registry, name, Access::Write).err(),
                Some(DiskRefused::Size(name.into()))
            );
        }
        assert_eq!(
            claim(&registry, "ram:65MiB", Access::Write).err(),
            Some(DiskRefused::Memory(65, 64))
        );
    }

    #[test]
    fn disks_of_memory_are_made_and_deleted_and_others_are_not() {
        let registry = with_partitions();
        registry.create("scratch", 1 << 20).unwrap();
        assert_eq!(
            registry.create("scratch", 1),
            Err(DiskRefused::Exists("scratch".into()))
        );
        for name in ["nvme1", "", "1st", "a b", "ram:1MiB", "x".repeat(33).as_str()] {
            assert_eq!(registry.create(name, 1), Err(DiskRefused::Name(name.into())));
        }
        let user = claim(&registry, "scratch", Access::Read).unwrap();
        assert!(matches!(
            registry.delete("scratch"),
            Err(DiskRefused::InUse { .. })
        ));
        drop(user);
        assert_eq!(registry.delete("scratch"), Ok(()));
        assert_eq!(
            registry.delete("nvme0"),
            Err(DiskRefused::NotMemory("nvme0".into()))
        );
        let unknown = registry.delete("nvme0p9").unwrap_err().to_string();
        assert!(unknown.ends_with("'disk scan nvme0' finds it"), "{unknown}");
    }

    #[test]
    fn a_scan_finds_new_partitions_and_leaves_those_in_use() {
        let registry = registry();
        let disk = disk_with(&[(64..128, "old"), (128..256, "used")]);
        registry.add_device("nvme0".into(), Backend::Ram(disk.clone()), None);
        assert_eq!(block_on(registry.scan("nvme0")), Ok(2));
        let used = claim(&registry, "nvme0p2", Access::Write).unwrap();
        let new = disk_with(&[(64..100, "new")]);
        let sector = |at| {
            let buffer = crate::memory::dma::buffer(512).unwrap();
            block_on(new.read(at, &buffer)).unwrap();
            let mut bytes = vec![0; 512];
            buffer.copy_to(0, &mut bytes).unwrap();
            bytes
        };
        (1..34).for_each(|at| put(&disk, at, &sector(at)));
        assert_eq!(block_on(registry.scan("nvme0")), Ok(1));
        let sizes: Vec<_> = registry
            .list()
            .iter()
            .map(|disk| (disk.name.clone(), disk.sectors))
            .collect();
        assert_eq!(
            sizes,
            [
                ("nvme0".into(), 2048),
                ("nvme0p1".into(), 36),
                ("nvme0p2".into(), 128)
            ]
        );
        drop(used);
        assert_eq!(
            block_on(registry.scan("nvme0p1")),
            Err(DiskRefused::NoPartitions("nvme0p1".into()))
        );
    }
}
