use super::super::super::fake::{FakeSystem, FakeTerminal, block_on};
use super::super::super::session::Session;
use alloc::boxed::Box;
use vsc::checksum::Crc32;
use vsp::storage::disk::DiskError;

/// Runs one line; returns status and output.
fn run(system: &FakeSystem, line: &str) -> (u8, String) {
    let terminal = FakeTerminal::typing(b"");
    let mut session = Session::new(system, Box::new(terminal.clone()));
    let status = block_on(session.run_line(line));
    (status.0, terminal.output().replace("\r\n", "\n"))
}

#[test]
fn disks_are_listed_with_their_users_and_counters() {
    let (status, output) = run(&FakeSystem::new(), "disk list");
    assert_eq!(status, 0);
    assert_eq!(
        output,
        "NAME        SIZE  SECTOR  KIND       USED BY  MODEL\n\
         nvme0    3.0 MiB     512  nvme       none     QEMU NVMe Ctrl\n\
         nvme0p1  1.0 MiB     512  partition  web      data\n\
         \n\
         NAME     READS      READ  WRITES  WRITTEN  FLUSHES  DISCARDS  ERRORS\n\
         nvme0       12  48.0 KiB       0      0 B        0         0       0\n\
         nvme0p1     12  48.0 KiB       0      0 B        0         0       0\n"
    );
}

#[test]
fn a_check_reads_all_of_it() {
    let system = FakeSystem::new();
    let (status, output) = run(&system, "disk check nvme0 --checksum");
    let sum = Crc32::of(&system.disks.medium.lock().bytes);
    assert_eq!(status, 0);
    assert!(
        output.contains("read         3.0 MiB\nbad sectors  0\n"),
        "{output}"
    );
    assert!(output.contains(&format!("CRC-32       {sum:08x}\n")), "{output}");
}

#[test]
fn sectors_that_cannot_be_read_are_found_one_by_one() {
    let system = FakeSystem::new();
    system.disks.medium.lock().unreadable = vec![0, 2500, 2501, 6143];
    let (status, output) = run(&system, "disk check nvme0 --checksum");
    assert_eq!(status, 1);
    assert!(
        output.contains("bad sectors  4\n") && !output.contains("CRC"),
        "{output}"
    );
    for row in [
        "0        1  cannot",
        "2500        2  cannot",
        "6143        1  cannot",
    ] {
        assert!(output.contains(row), "{row}: {output}");
    }
}

#[test]
fn a_disk_that_goes_away_ends_the_check_with_the_reason() {
    let system = FakeSystem::new();
    system.disks.medium.lock().failure = Some(DiskError::Gone);
    let (status, output) = run(&system, "disk check nvme0");
    assert_eq!(
        (status, &*output),
        (1, "disk check: nvme0 at sector 0: the disk is gone\n")
    );
}

#[test]
fn what_destroys_data_wants_to_be_confirmed() {
    let system = FakeSystem::new();
    for line in [
        "disk erase nvme0",
        "disk check nvme0 --write",
        "disk erase nvme0 --discard",
    ] {
        let before = system.disks.medium.lock().bytes.clone();
        let (status, output) = run(&system, line);
        assert!(
            status == 2 && output.contains("add --yes if that is meant"),
            "{output}"
        );
        assert_eq!(system.disks.medium.lock().bytes, before);
    }
}

#[test]
fn a_writing_check_finds_sectors_that_forget() {
    let system = FakeSystem::new();
    let (status, output) = run(&system, "disk check nvme0 --write --yes");
    assert!(status == 0 && system.disks.medium.lock().flushed, "{output}");
    system.disks.medium.lock().bytes.fill(0);
    system.disks.medium.lock().forgetful = vec![77];
    let (status, output) = run(&system, "disk check nvme0 --write --yes");
    assert!(
        status == 1 && output.contains("77        1  reads other than was written"),
        "{output}"
    );
}

#[test]
fn a_disk_in_use_is_not_written() {
    let (status, output) = run(&FakeSystem::new(), "disk erase nvme0p1 --yes");
    assert_eq!(
        (status, &*output),
        (1, "disk erase: 'nvme0p1' is in use by web\n")
    );
}

#[test]
fn an_erased_disk_is_zero_and_flushed() {
    for line in ["disk erase nvme0 --yes", "disk erase nvme0 --discard --yes"] {
        let system = FakeSystem::new();
        assert_eq!(run(&system, line).0, 0);
        let medium = system.disks.medium.lock();
        assert!(medium.flushed && medium.bytes.iter().all(|&byte| byte == 0));
    }
}

#[test]
fn disks_of_memory_are_made_with_a_size() {
    let system = FakeSystem::new();
    assert_eq!(run(&system, "disk create scratch --size 64MiB").0, 0);
    assert_eq!(run(&system, "disk delete scratch").0, 0);
    assert_eq!(run(&system, "disk scan nvme0"), (0, "partitions  1\n".into()));
    assert_eq!(run(&system, "disk reset nvme0").0, 0);
    let calls = [
        "create scratch 67108864",
        "delete scratch",
        "scan nvme0",
        "reset nvme0",
    ];
    assert_eq!(*system.disks.calls.lock(), calls);
    for (line, says) in [
        (
            "disk create scratch",
            "give a size, as in 'disk create scratch --size 64MiB'",
        ),
        (
            "disk create scratch --size 64",
            "give a size in KiB, MiB or GiB, as in 64MiB",
        ),
        ("disk create scratch --size 0MiB", "as in 64MiB"),
    ] {
        let (status, output) = run(&system, line);
        assert!(status == 2 && output.contains(says), "{line}: {output}");
    }
}

#[test]
fn figures_are_shown_for_one_request_and_for_many() {
    let (status, output) = run(&FakeSystem::new(), "disk bench nvme0 --json");
    assert_eq!(status, 0);
    assert!(
        output.contains("\"name\":\"read-4k-qd1\",\"depth\":1,\"rounds\":1024,\"run_time_ns\":4321"),
        "{output}"
    );
    assert!(output.contains("\"name\":\"read-4k-qd32\""), "{output}");
}
