//! What a Debian guest goes through in its life: one machine, as booting is what takes time, and one fact after the other.

use anyhow::{Context, Result, ensure};
use tests::{number, row};

use crate::world::{Guest, World};

/// The guest, with a shell on its console.
const GUEST: &str = "hard";
/// One that keeps a disk of memory busy.
const NEIGHBOUR: &str = "neighbour";
const KEEP_BUSY: &str = "for module in hv_vmbus sd_mod hv_storvsc; do modprobe $module; done; \
    until [ -b /dev/sda ]; do sleep 0.1; done; \
    while dd if=/dev/zero of=/dev/sda bs=64k count=64 2>/dev/null; do echo written_$((1)); done";

/// Writes, reads back and checks, again and again, until told to stop.
const LOAD: &str = "rm -f /run/stop /run/rounds; (while [ ! -e /run/stop ]; do \
    dd if=/dev/urandom of=/root/load bs=64k count=16 2>/dev/null; md5sum /root/load > /root/load.sum; sync; \
    echo 3 > /proc/sys/vm/drop_caches; md5sum -c /root/load.sum >> /run/rounds 2>&1; done) & true";

#[test]
fn it_has_its_devices_and_the_time_and_disks_come_and_go() -> Result<()> {
    let guest = Guest {
        quiet: true,
        ..Guest::on_disk(GUEST, 2, "")
    };
    World::with(&guest, |world| {
        world.until_said(GUEST, "partita: root file system")?;
        its_bus_has_every_device(world).context("its bus has every device")?;
        world.ensure_same_time(GUEST).context("it knows the time")?;
        a_pause_costs_it_no_time(world).context("a pause costs it no time")?;
        a_disk_comes_and_goes(world).context("a disk comes and goes")?;
        world.ensure_no_complaints_in(GUEST)?;
        world.text(&format!("vm stop {GUEST} --timeout 600")).map(drop)
    })
}

#[test]
#[ignore = "it has not been seen to come to its end yet"]
fn it_goes_on_whatever_happens_to_it() -> Result<()> {
    let guests = [
        Guest {
            quiet: true,
            ..Guest::on_disk(GUEST, 2, "")
        },
        Guest {
            quiet: true,
            more: "[[disk]]\nsource = \"ram:16MiB\"\n",
            ..Guest::new(NEIGHBOUR, 1, KEEP_BUSY)
        },
    ];
    World::boot(&guests)?.try_with(GUEST, |world| {
        world.until_said(GUEST, "partita: root file system")?;
        // A short line first: what is typed before the shell listens may be lost, beyond the serial port's 16 bytes.
        world.ensure_same_time(GUEST)?;
        world.type_into(GUEST, LOAD)?;
        its_processors_come_and_go(world).context("its processors come and go")?;
        it_does_not_notice_a_neighbours_end(world).context("it does not notice a neighbour's end")?;
        world.ensure_no_complaints_in(GUEST)?;
        it_is_told_when_the_guest_does_not_end(world).context("it is told when the guest does not end")?;
        its_disk_is_whole_after_a_kill(world).context("its disk is whole after a kill")?;
        world.ensure_no_complaints_in(GUEST)?;
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

/// A processor goes and comes, under load. Debian 6.1 lets none go that a channel interrupts, so those are moved first.
fn its_processors_come_and_go(world: &mut World) -> Result<()> {
    const MOVE: &str = "for cpu in /sys/bus/vmbus/devices/*/channels/*/cpu; do echo 0 > $cpu || exit 1; done";
    for _ in 0..3 {
        world.type_into(
            GUEST,
            &format!("({MOVE}) && cd /sys/devices/system/cpu && echo 0 > cpu1/online && grep -x 0 online"),
        )?;
        world.type_into(GUEST, "echo 1 > cpu1/online && grep -x 0-1 online; cd /root")?;
    }
    let before = world.type_into(GUEST, "grep HVS: /proc/interrupts")?;
    world.type_into(GUEST, "taskset 2 sleep 0.2")?;
    let after = world.type_into(GUEST, "grep HVS: /proc/interrupts")?;
    let second = |line: &str| {
        line.split_whitespace()
            .nth(2)
            .and_then(|count| count.parse::<u64>().ok())
    };
    ensure!(
        second(&after) > second(&before),
        "the second processor's timer rests: {before} {after}"
    );
    rounds_go_on(world)
}

fn it_does_not_notice_a_neighbours_end(world: &mut World) -> Result<()> {
    world.text(&format!("vm start {NEIGHBOUR}"))?;
    world.until_said(NEIGHBOUR, "written_1")?;
    rounds_go_on(world)?;
    world.text(&format!("vm kill {NEIGHBOUR}"))?;
    rounds_go_on(world)
}

/// The load goes on, and finds what it has written.
fn rounds_go_on(world: &mut World) -> Result<()> {
    let rounds = world.type_into(GUEST, "cat /run/rounds | wc -l")?;
    let wait = format!("until [ $(cat /run/rounds | wc -l) -gt $(({rounds} + 1)) ]; do sleep 0.2; done");
    world.type_into(GUEST, &wait)?;
    let (_, wrong) = world.try_type_into(GUEST, "grep -v OK /run/rounds")?;
    ensure!(wrong.is_empty(), "{wrong}");
    Ok(())
}

/// A guest that hears, and does nothing.
fn it_is_told_when_the_guest_does_not_end(world: &mut World) -> Result<()> {
    world.type_into(GUEST, "mount --bind /bin/true /sbin/poweroff")?;
    let reply = world.run(&format!("vm stop {GUEST} --timeout 3"))?;
    ensure!(reply.status != 0, "it claims to have ended");
    ensure!(reply.text.contains("has not ended within 3 s"), "{}", reply.text);
    world.type_into(GUEST, "umount /sbin/poweroff").map(drop)
}

/// Killed while it writes, it finds a journal to go through, and then a file system without a fault.
fn its_disk_is_whole_after_a_kill(world: &mut World) -> Result<()> {
    rounds_go_on(world)?;
    world.text(&format!("vm kill {GUEST}"))?;
    world.text(&format!("vm start {GUEST}"))?;
    world.until_said(GUEST, "partita: root file system")?;
    let recovered = world.type_into(GUEST, "dmesg | grep -c 'recovery complete'")?;
    ensure!(recovered == "1", "it has recovered {recovered} file systems");
    // Nothing may write, or it would be no wonder if the file system seemed to be at fault.
    world.type_into(GUEST, "pkill hv_; sync; sleep 1; mount -o remount,ro /")?;
    world.type_into(GUEST, "e2fsck -fn /dev/sda")?;
    world.type_into(GUEST, "mount -o remount,rw /").map(drop)
}
