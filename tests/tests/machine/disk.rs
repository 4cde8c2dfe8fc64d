//! NVMe disks, as the shell shows, checks and erases them; controllers that are poor, and disks that fail.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;
use tests::image::{Images, SECTOR, file_crc32, noise, partition};
use tests::{Shell, machine, number, row};
use xtask::Machine;

const MIB: usize = 1 << 20;

/// The machine with one more file as the QEMU drive `id`.
fn with_drive(machine: Machine, id: &str, path: &Path) -> Machine {
    let drive = format!("if=none,id={id},format=raw,file={}", path.display());
    machine.qemu_arg("-drive").qemu_arg(drive)
}

/// The machine with one more QEMU device.
fn with_device(machine: Machine, device: &str) -> Machine {
    machine.qemu_arg("-device").qemu_arg(device)
}

/// The row of the disk `name` in the list of all disks.
fn disk(shell: &mut Shell, name: &str) -> Result<Value> {
    let disks = shell.json("disk list")?;
    Ok(row(&disks, "disks", "name", name).clone())
}

/// Checks the disk `name` and returns the checksum of all that is on it.
fn checksum(shell: &mut Shell, name: &str) -> Result<String> {
    let check = shell.json(&format!("disk check {name} --checksum"))?;
    assert_eq!(number(&check, "/bad_sectors"), 0, "{check}");
    Ok(check["crc32"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_disk_is_listed_and_all_of_it_is_read() -> Result<()> {
    let images = Images::new()?;
    let path = images.image("disk", &noise(5 * MIB + SECTOR))?;
    let mut shell = Shell::boot(&machine().disk(&path))?;
    let listed = disk(&mut shell, "nvme0")?;
    assert_eq!(
        (
            &listed["size_bytes"],
            &listed["sector_bytes"],
            &listed["kind"],
            &listed["model"]
        ),
        (
            &(5 * MIB + SECTOR).into(),
            &512.into(),
            &"nvme".into(),
            &"QEMU NVMe Ctrl".into()
        )
    );
    let before = number(&listed, "/bytes_read");
    assert_eq!(checksum(&mut shell, "nvme0")?, file_crc32(&path)?);
    let after = number(&disk(&mut shell, "nvme0")?, "/bytes_read");
    assert_eq!(after - before, (5 * MIB + SECTOR) as u64);
    let devices = shell.json("dev list")?;
    assert_eq!(
        row(&devices, "devices", "class", "NVMe controller")["driver"],
        "nvme"
    );
    Ok(())
}

#[test]
fn what_was_written_and_flushed_is_there_after_the_power_is_lost() -> Result<()> {
    let images = Images::new()?;
    let path = images.image("disk", &vec![0; 8 * MIB])?;
    let machine = machine().disk(&path);
    let mut shell = Shell::boot(&machine)?;
    shell.text("disk check nvme0 --write --yes")?;
    let written = checksum(&mut shell, "nvme0")?;
    assert_eq!(number(&disk(&mut shell, "nvme0")?, "/flushes"), 1);
    drop(shell);
    assert_eq!(file_crc32(&path)?, written);
    let mut shell = Shell::boot(&machine)?;
    assert_eq!(checksum(&mut shell, "nvme0")?, written);
    shell.text("disk erase nvme0 --yes")?;
    drop(shell);
    assert!(fs::read(&path)?.iter().all(|&byte| byte == 0));
    Ok(())
}

#[test]
fn partitions_are_disks_of_their_own() -> Result<()> {
    let images = Images::new()?;
    let mut bytes = noise(4 * MIB);
    partition(&mut bytes, &[(64..2048, "boot"), (2048..4096, "data")]);
    let path = images.image("disk", &bytes)?;
    let mut shell = Shell::boot(&machine().disk(&path))?;
    let data = disk(&mut shell, "nvme0p2")?;
    assert_eq!(
        (&data["kind"], &data["sectors"], &data["model"]),
        (&"partition".into(), &2048.into(), &"data".into())
    );
    let part = images.image("part", &bytes[64 * SECTOR..2048 * SECTOR])?;
    assert_eq!(checksum(&mut shell, "nvme0p1")?, file_crc32(&part)?);
    shell.text("disk erase nvme0p2 --yes")?;
    bytes[2048 * SECTOR..4096 * SECTOR].fill(0);
    assert_eq!(
        checksum(&mut shell, "nvme0")?,
        file_crc32(&images.image("expected", &bytes)?)?
    );
    // The table itself.
    shell.text("disk erase nvme0 --yes")?;
    assert_eq!(number(&shell.json("disk scan nvme0")?, "/partitions"), 0);
    assert_eq!(shell.run("disk check nvme0p1")?.status, 1);
    Ok(())
}

#[test]
fn a_controller_may_have_several_namespaces_with_sectors_of_4096_bytes() -> Result<()> {
    let images = Images::new()?;
    let (first, second) = (noise(3 * MIB), noise(2 * MIB));
    let first = images.image("first", &first)?;
    let second = images.image("second", &second)?;
    let large = "logical_block_size=4096,physical_block_size=4096";
    let machine = with_drive(with_drive(machine(), "d1", &first), "d2", &second);
    let machine = with_device(machine, "nvme,id=many,serial=many");
    let machine = with_device(machine, &format!("nvme-ns,bus=many,nsid=1,drive=d1,{large}"));
    let machine = with_device(machine, &format!("nvme-ns,bus=many,nsid=7,drive=d2,{large}"));
    let mut shell = Shell::boot(&machine)?;
    for (name, path) in [("nvme1", &first), ("nvme1n7", &second)] {
        assert_eq!(disk(&mut shell, name)?["sector_bytes"], 4096, "{name}");
        assert_eq!(checksum(&mut shell, name)?, file_crc32(path)?, "{name}");
        shell.text(&format!("disk check {name} --write --yes"))?;
        assert_eq!(checksum(&mut shell, name)?, file_crc32(path)?, "{name}");
    }
    Ok(())
}

#[test]
fn poor_controllers_serve_many_processors() -> Result<()> {
    for properties in [
        "max_ioqpairs=1,msix_qsize=1",
        "max_ioqpairs=2,msix_qsize=3",
        "mdts=1",
    ] {
        let images = Images::new()?;
        let path = images.image("disk", &noise(2 * MIB))?;
        let machine = with_drive(machine().cpus(4), "d1", &path);
        let machine = with_device(machine, &format!("nvme,drive=d1,serial=poor,{properties}"));
        let mut shell = Shell::boot(&machine)?;
        assert_eq!(checksum(&mut shell, "nvme1")?, file_crc32(&path)?, "{properties}");
        shell.text("disk check nvme1 --write --yes")?;
        assert_eq!(checksum(&mut shell, "nvme1")?, file_crc32(&path)?, "{properties}");
    }
    Ok(())
}

#[test]
fn sectors_that_cannot_be_read_are_told_one_by_one() -> Result<()> {
    let images = Images::new()?;
    let path = images.image("disk", &noise(2 * MIB))?;
    let faults = images.image(
        "faults",
        b"[inject-error]\nevent = \"read_aio\"\nerrno = \"5\"\nsector = \"1000\"\nonce = \"off\"\n",
    )?;
    let drive = format!(
        "if=none,id=d1,format=raw,file=blkdebug:{}:{}",
        faults.display(),
        path.display()
    );
    let machine = machine().qemu_arg("-drive").qemu_arg(drive);
    let machine = with_device(machine, "nvme,drive=d1,serial=bad");
    let mut shell = Shell::boot(&machine)?;
    let reply = shell.run("disk check nvme1 --json")?;
    let check: Value = serde_json::from_str(&reply.text)?;
    assert_eq!(reply.status, 1, "{check}");
    // QEMU reads in pieces of its own: the sector is among those that fail.
    assert!(number(&check, "/bad_sectors") >= 1, "{check}");
    let first = number(&check, "/bad/0/first_sector");
    assert!(
        (first..first + number(&check, "/bad/0/sectors")).contains(&1000),
        "{check}"
    );
    assert!(number(&disk(&mut shell, "nvme1")?, "/errors") > 0);
    // The other disk knows nothing of it.
    assert_eq!(number(&disk(&mut shell, "nvme0")?, "/errors"), 0);
    Ok(())
}

#[test]
fn a_controller_that_is_reset_loses_nothing() -> Result<()> {
    let images = Images::new()?;
    let path = images.image("disk", &noise(4 * MIB))?;
    let mut shell = Shell::boot(&machine().disk(&path))?;
    let seen = shell.text("hv selftest disk-reset")?;
    assert!(seen.contains("reads went on over 5 resets"), "{seen}");
    shell.text("disk reset nvme0")?;
    assert_eq!(checksum(&mut shell, "nvme0")?, file_crc32(&path)?);
    assert_eq!(number(&disk(&mut shell, "nvme0")?, "/errors"), 0);
    Ok(())
}

/// On a machine that counts instructions the clock jumps to the next timer while all wait, so that the driver's time-outs
/// pass in a moment, and a disk that takes three real seconds a read is one that does not answer.
#[test]
fn a_disk_that_does_not_answer_fails_and_the_others_go_on() -> Result<()> {
    let images = Images::new()?;
    let path = images.image("disk", &noise(MIB))?;
    let machine = machine()
        .icount(true)
        .disk(&path)
        .qemu_arg("-blockdev")
        .qemu_arg("driver=null-co,node-name=d1,size=16777216,latency-ns=3000000000");
    let mut shell = Shell::boot(&with_device(machine, "nvme,drive=d1,serial=slow"))?;
    assert_eq!(checksum(&mut shell, "nvme0")?, file_crc32(&path)?);
    let reply = shell.run("disk check nvme1")?;
    assert!(
        reply.status == 1 && reply.text.contains("the device was reset"),
        "{}",
        reply.text
    );
    let log = shell.text("root log")?;
    for line in [
        "nvme1: a command takes too long",
        "nvme1: reset: a command does not end",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    assert!(!log.contains("nvme0: reset"), "{log}");
    assert_eq!(checksum(&mut shell, "nvme0")?, file_crc32(&path)?);
    Ok(())
}

#[test]
fn disks_of_memory_come_and_go_with_their_memory() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    let free =
        |shell: &mut Shell| -> Result<u64> { Ok(number(&shell.json("root info")?, "/memory_free_bytes")) };
    let before = free(&mut shell)?;
    shell.text("disk create scratch --size 16MiB")?;
    assert!(before - free(&mut shell)? >= 16 << 20);
    shell.text("disk check scratch --write --yes")?;
    assert_eq!(disk(&mut shell, "scratch")?["kind"], "ram");
    shell.text("disk delete scratch")?;
    // The heap may have grown meanwhile, by blocks of 8 MiB.
    assert!(before - free(&mut shell)? <= 8 << 20);
    Ok(())
}

#[test]
fn files_of_the_archive_are_disks_to_read() -> Result<()> {
    let bytes = noise(1000);
    let images = Images::new()?;
    let mut padded = bytes.clone();
    padded.resize(1024, 0);
    let expected = file_crc32(&images.image("padded", &padded)?)?;
    let mut shell = Shell::boot(&machine().file("disks/small.img", bytes))?;
    assert_eq!(checksum(&mut shell, "archive:disks/small.img")?, expected);
    let reply = shell.run("disk erase archive:disks/small.img --yes")?;
    assert!(
        reply.status == 1 && reply.text.contains("is read-only"),
        "{}",
        reply.text
    );
    Ok(())
}

#[test]
fn mistakes_are_told() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    for (line, status, says) in [
        (
            "disk check nvme9",
            1,
            "there is no disk 'nvme9': 'disk list' shows them",
        ),
        ("disk check nvme0p3", 1, "'disk scan nvme0' finds it"),
        (
            "disk erase nvme0",
            2,
            "all data on nvme0 would be lost: add --yes if that is meant",
        ),
        ("disk delete nvme0", 1, "'nvme0' is not a disk of memory"),
        ("disk create nvme5 --size 1MiB", 1, "cannot be the name of a disk"),
        ("disk create huge --size 99GiB", 1, "there is too little memory"),
        ("disk create small --size 9", 2, "give a size in KiB, MiB or GiB"),
    ] {
        let reply = shell.run(line)?;
        assert_eq!(reply.status, status, "{line}: {}", reply.text);
        assert!(reply.text.contains(says), "{line}: {}", reply.text);
    }
    Ok(())
}
