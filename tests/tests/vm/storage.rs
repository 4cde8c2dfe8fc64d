//! Disks of machines: the demo `disk`, over disks of memory, of the archive and of the NVMe controller.

use std::fs;

use anyhow::{Context, Result};
use tests::image::crc32;
use tests::machine;
use xtask::images;

use crate::world::{World, ensure_said};

/// A description of the demo with words on its command line, and its disks.
pub(crate) fn disk(processors: u32, words: &str, disks: &[&str]) -> String {
    let disks: String = disks.iter().map(|disk| format!("[[disk]]\n{disk}\n")).collect();
    format!(
        "processors = {processors}\nmemory = \"64MiB\"\nkernel = \"kernels/disk\"\ncommand_line = \"{words}\"\n{disks}"
    )
}

#[test]
fn what_was_flushed_is_there_after_a_reset_and_a_file_is_read_whole() -> Result<()> {
    let mut world = World::boot(machine(), &[])?;
    let said = world.run_to_its_end("disk")?;
    let mut file = fs::read(images::built()?.folder().join("disk"))?;
    file.resize(file.len().next_multiple_of(512), 0);
    let checksum = format!("disk: 0:0:1 has CRC-32 {:08x}", crc32(&file));
    let (first, second) = said
        .split_once("disk: written: 1048576 bytes to 0:0:0, flushed")
        .with_context(|| said.clone())?;
    assert!(
        first.contains("0:0:0: there is no GUID partition table on it"),
        "{said}"
    );
    assert!(
        first.contains(&checksum) && second.contains(&checksum),
        "no {checksum:?} in\n{said}"
    );
    ensure_said(
        second,
        &[
            "disk: 0:0:0 partition 1: 32701 blocks from 34 on, 'demo'",
            "disk: verified: 1048576 bytes on 0:0:0",
            "disk: done",
        ],
    )?;
    assert_eq!(world.state("disk")?, "off");
    Ok(())
}

#[test]
fn what_was_flushed_to_nvme_is_there_when_the_machine_comes_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("nvme.img");
    fs::File::create(&file)?.set_len(32 << 20)?;
    let guest = || disk(1, "off", &["source = \"nvme0\""]);
    for (line, pulled) in [
        ("disk: written: 1048576 bytes", true),
        ("disk: verified: 1048576 bytes", false),
    ] {
        let mut world = World::boot(machine().disk(&file), &[("keeper", guest())])?;
        let said = world.run_to_its_end("keeper")?;
        ensure_said(&said, &[line, "disk: done"])?;
        // The first machine is not shut down: its power goes.
        if !pulled {
            world.text("vm delete keeper")?;
        }
    }
    Ok(())
}

#[test]
fn each_further_vp_brings_a_channel() -> Result<()> {
    let guest = disk(3, "channels", &["source = \"ram:16MiB\""]);
    let mut world = World::boot(machine(), &[("many", guest)])?;
    let said = world.run_to_its_end("many")?;
    ensure_said(
        &said,
        &["disk: 3 channels", "disk: verified: 1048576 bytes", "disk: done"],
    )
}

#[test]
fn a_guest_that_runs_sees_disks_come_and_go() -> Result<()> {
    let guest = disk(1, "watch", &["source = \"ram:16MiB\""]);
    let mut world = World::boot(machine(), &[("watcher", guest)])?;
    world.start("watcher")?;
    world.wait_said("watcher", "disk: change 0")?;
    world.text("disk attach watcher ram:1MiB --lun 7")?;
    world.wait_said(
        "watcher",
        "disk: 0:0:7 is Msft Virtual Disk: 2048 blocks of 512 bytes",
    )?;
    world.wait_said("watcher", "disk: change 1")?;
    world.text("disk detach watcher 0")?;
    world.wait_said("watcher", "disk: change 2")?;
    let said = world.console_of("watcher")?;
    let (_, last) = said.rsplit_once("disk: change 1").with_context(|| said.clone())?;
    assert!(last.contains("0:0:7 is") && !last.contains("0:0:0 is"), "{said}");
    world.text("vm kill watcher")?;
    world.wait("watcher", "off")
}
