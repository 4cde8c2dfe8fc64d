use super::*;
use crate::disk::gpt::tests::{disk as disk_with, put};
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
