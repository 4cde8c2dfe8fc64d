//! Devices, the time, pauses, and disks that come and go: one machine, as booting is what takes time, and one fact after the other.

use anyhow::{Context, Result, ensure};
use tests::{number, row};
use xtask::guest::debian::KERNEL_NAME;

use crate::world::{Guest, World};

/// The guest, with a shell on its console.
const GUEST: &str = "hard";
/// The LUN of its drive.
const DRIVE: u32 = 1;

#[test]
fn it_has_its_devices_and_the_time_and_disks_come_and_go() -> Result<()> {
    let guest = Guest {
        more: "[[disk]]
dvd = true",
        ..Guest::on_disk(GUEST, 2, "")
    };
    World::with(&guest, |world| {
        world.until_said(GUEST, "partita: root file system")?;
        its_bus_has_every_device(world).context("its bus has every device")?;
        world.ensure_same_time(GUEST).context("it knows the time")?;
        a_pause_costs_it_no_time(world).context("a pause costs it no time")?;
        media_change_in_its_drive(world).context("media change in its drive")?;
        a_disk_comes_and_goes(world).context("a disk comes and goes")?;
        world.ensure_no_complaints_in(GUEST)?;
        a_disk_goes_while_it_is_read(world).context("a disk goes while it is read")?;
        world.text(&format!("vm stop {GUEST} --timeout 600")).map(drop)
    })
}

/// `/sys/bus/vmbus/devices` has what the host has offered.
fn its_bus_has_every_device(world: &mut World) -> Result<()> {
    let seen = world.type_into(GUEST, "ls /sys/bus/vmbus/devices | sort")?;
    let document = world.json(&format!("bus list {GUEST}"))?;
    let channels = document["channels"].as_array().context("it has no channels")?;
    let mut offered: Vec<&str> = channels
        .iter()
        .filter(|channel| channel["sub_channel"] == 0)
        .filter_map(|channel| channel["instance"].as_str())
        .collect();
    offered.sort_unstable();
    ensure!(
        channels.iter().any(|channel| number(channel, "/sub_channel") > 0),
        "its disks have one channel for two processors: {document}"
    );
    let seen: Vec<&str> = seen.lines().map(str::trim).collect();
    ensure!(seen == offered, "offered are {offered:?}, and it has {seen:?}");
    Ok(())
}

fn a_pause_costs_it_no_time(world: &mut World) -> Result<()> {
    world.text(&format!("vm pause {GUEST}"))?;
    let paused = world.time()?;
    world.until("time has passed", |world| Ok(world.time()? > paused))?;
    world.text(&format!("vm resume {GUEST}"))?;
    world.ensure_same_time(GUEST)
}

/// Its drive is empty, holds one medium and then at once another, and is empty again. The media are files of the boot archive, the
/// first of which is a file of its system too.
fn media_change_in_its_drive(world: &mut World) -> Result<()> {
    const EMPTY: &str = "head -c 1 /dev/sr0 2>&1 | grep 'No medium found'";
    // What is no whole block of a medium, 2048 bytes, is not there.
    const SAME: &str = "busybox cmp -n $(($(stat -c %s /boot/vmlinuz) / 2048 * 2048)) /boot/vmlinuz /dev/sr0";
    const OTHER: &str = "[ $(blockdev --getsize64 /dev/sr0) -lt 1000000 ] && head -c 4 /dev/sr0 | tail -c 3";
    world.type_into(
        GUEST,
        "modprobe sr_mod; until [ -b /dev/sr0 ]; do sleep 0.2; done",
    )?;
    world.type_into(GUEST, EMPTY)?;
    let insert = |world: &mut World, file: &str| {
        let command = format!("disk insert {GUEST} {DRIVE} archive:{file}");
        world.text(&command).map(drop)
    };
    insert(world, KERNEL_NAME)?;
    world.type_into(GUEST, SAME)?;
    insert(world, "kernels/hello")?;
    let begin = world.type_into(GUEST, OTHER)?;
    ensure!(begin == "ELF", "the first medium is still there: {begin}");
    world.text(&format!("disk eject {GUEST} {DRIVE}"))?;
    world.type_into(GUEST, EMPTY).map(drop)
}

/// A second disk: hot-added, used, its sectors given up, and taken away.
fn a_disk_comes_and_goes(world: &mut World) -> Result<()> {
    let attached = world.json(&format!("disk attach {GUEST} nvme0"))?;
    let lun = number(&attached, "/lun");
    world.type_into(GUEST, "until [ -b /dev/sdb ]; do sleep 0.2; done")?;
    world.type_into(
        GUEST,
        "mkfs.ext4 -q -F -E nodiscard /dev/sdb && mount /dev/sdb /mnt && \
         dd if=/dev/urandom of=/mnt/file bs=1M count=16 && rm /mnt/file && sync",
    )?;
    let discards = |world: &mut World| -> Result<u64> {
        let disks = world.json("disk list")?;
        Ok(number(row(&disks, "disks", "name", "nvme0"), "/discards"))
    };
    let before = discards(world)?;
    let trimmed = world.type_into(GUEST, "fstrim -v /mnt && umount /mnt")?;
    ensure!(discards(world)? > before, "nvme0 was told nothing: {trimmed}");
    let left = world.type_into(
        GUEST,
        "blkdiscard -f /dev/sdb 2>/dev/null && head -c 4M /dev/sdb | tr -d '\\0' | wc -c",
    )?;
    ensure!(
        left.ends_with('0') && left.trim() == "0",
        "discarded sectors hold something: {left}"
    );
    world.text(&format!("disk detach {GUEST} {lun}"))?;
    world
        .type_into(GUEST, "until [ ! -e /sys/block/sdb ]; do sleep 0.2; done")
        .map(drop)
}

/// Whoever reads from a disk that is taken away is told so, and nobody waits for ever.
fn a_disk_goes_while_it_is_read(world: &mut World) -> Result<()> {
    const READ: &str = "until [ -b /dev/sdb ]; do sleep 0.2; done; (while dd if=/dev/sdb of=/dev/null bs=64k count=64 iflag=direct 2>/dev/null; \
        do echo read >> /run/reads; done; touch /run/reader_ended) & until [ -e /run/reads ]; do sleep 0.2; done";
    let attached = world.json(&format!("disk attach {GUEST} nvme0"))?;
    let lun = number(&attached, "/lun");
    world.type_into(GUEST, READ)?;
    world.text(&format!("disk detach {GUEST} {lun}"))?;
    world.type_into(
        GUEST,
        "until [ -e /run/reader_ended ] && [ ! -e /sys/block/sdb ]; do sleep 0.2; done; cat /etc/hostname",
    )?;
    Ok(())
}
