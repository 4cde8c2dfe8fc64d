//! Disks that fail, and guests that are killed while theirs work.

use std::fs;

use anyhow::{Context, Result, ensure};
use tests::machine;

use crate::storage::disk;
use crate::world::{World, counted, ensure_said};

/// First sector that cannot be read: 8 MiB into the disk.
const BAD: u64 = 16384;
/// Sectors that cannot be read: two requests' worth of the demo guest's.
const BAD_SECTORS: u64 = 256;

#[test]
fn sectors_that_cannot_be_read_are_told_to_the_guest_that_reads_them_and_no_other_is_harmed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("bad.img");
    fs::File::create(&file)?.set_len(16 << 20)?;
    let rules: Vec<_> = (BAD..BAD + BAD_SECTORS)
        .step_by(128)
        .map(|sector| serde_json::json!({"event": "none", "iotype": "read", "errno": 5, "sector": sector}))
        .collect();
    let image = serde_json::json!({"driver": "file", "filename": file});
    let faults = serde_json::json!({"driver": "blkdebug", "image": image, "inject-error": rules});
    let bad = serde_json::json!({"driver": "raw", "node-name": "bad", "file": faults});
    let machine = machine()
        .qemu_arg("-blockdev")
        .qemu_arg(bad.to_string())
        .qemu_arg("-device")
        .qemu_arg("nvme,drive=bad,serial=partita1");
    let guests = [
        ("unlucky", disk(1, "sweep read-only", &["source = \"nvme1\""])),
        ("lucky", disk(1, "sweep read-only", &["source = \"nvme0\""])),
    ];
    let mut world = World::boot(machine, &guests)?;
    world.start("unlucky")?;
    world.start("lucky")?;
    // The controller of the one that is not harmed is reset while it works.
    world.text("disk reset nvme0")?;
    for name in ["unlucky", "lucky"] {
        world.wait(name, "off")?;
    }
    let unlucky = world.console_of("unlucky")?;
    ensure_said(
        &unlucky,
        &[
            "disk: 0:0:0 blocks from 16384 on: the unit refuses: sense 3/11/00 at block 16384",
            "disk: 0:0:0 blocks from 16512 on: the unit refuses: sense 3/11/00 at block 16512",
            "disk: 0:0:0 swept: 256 pieces, 2 failed",
            "disk: done",
        ],
    )?;
    let lucky = world.console_of("lucky")?;
    ensure_said(&lucky, &["pieces, 0 failed", "disk: done"])?;
    // The shell's own look finds them as well.
    let reply = world.run("disk check nvme1")?;
    ensure!(
        reply.status == 1 && reply.text.contains("bad sectors  "),
        "{}",
        reply.text
    );
    Ok(())
}

#[test]
fn media_are_changed_while_the_guest_runs() -> Result<()> {
    let drive = disk(1, "media", &["dvd = true"]);
    let archive = machine()
        .file("disks/one.iso", vec![1; 8192])
        .file("disks/two.iso", vec![2; 8192]);
    let mut world = World::boot(archive, &[("viewer", drive)])?;
    world.start("viewer")?;
    world.wait_said("viewer", "disk: 0:0:0 is empty")?;
    ensure!(
        world
            .refused("disk eject viewer 0")?
            .contains("there is nothing in drive 0"),
        "an empty drive was emptied"
    );
    world.text("disk insert viewer 0 archive:disks/one.iso")?;
    world.wait_said("viewer", "disk: 0:0:0 holds 4 blocks")?;
    let shown = world.json("vm show viewer")?;
    ensure!(shown["disks"][0]["source"] == "archive:disks/one.iso", "{shown}");
    // From one to the other, without a moment between them.
    world.text("disk insert viewer 0 archive:disks/two.iso")?;
    world.until("the guest sees the second medium", |world| {
        Ok(world.console_of("viewer")?.matches("holds 4 blocks").count() == 2)
    })?;
    world.text("disk eject viewer 0")?;
    world.until("the guest sees that it is gone", |world| {
        Ok(world.console_of("viewer")?.matches("is empty").count() == 2)
    })?;
    let disks = world.text("disk list")?;
    ensure!(
        !disks.contains("one.iso") && !disks.contains("two.iso"),
        "they are still in use:\n{disks}"
    );
    world.text("vm kill viewer")?;
    world.wait("viewer", "off")
}

/// Kills a guest `kills` times while its disks work, at one moment or another, and looks at what is left.
fn kills_leave_no_trace(kills: usize) -> Result<()> {
    let busy = disk(
        2,
        "load channels",
        &["source = \"nvme0\"", "source = \"ram:16MiB\""],
    );
    let other = disk(1, "load", &["source = \"ram:16MiB\""]);
    let mut world = World::boot(machine(), &[("busy", busy), ("other", other)])?;
    world.start("other")?;
    world.wait_said("other", "disk: load on 0:0:0")?;
    let mut before = None;
    for kill in 0..kills {
        // A new machine each time, as what a console has said stays.
        world.start("busy")?;
        if kill % 4 != 3 {
            world.wait_said("busy", "disk: load on 0:0:0")?;
        }
        let channels = world.json("bus list busy")?;
        let open = channels["channels"].as_array().context("no channels")?;
        if kill % 4 != 3 {
            ensure!(
                open.iter().filter(|channel| channel["state"] == "open").count() >= 2,
                "not two channels at work: {channels}"
            );
        }
        world.text("vm kill busy")?;
        ensure!(
            world.refused("bus list busy")?.contains("off"),
            "it still has channels"
        );
        world.text("vm delete busy")?;
        // Whatever is made once and kept is made in the first four.
        match before {
            Some(before) if kill > 3 => {
                world.until(&format!("all is back after kill {kill}: {before:?}"), |world| {
                    Ok(world.balance()? == before)
                })?;
            }
            _ => before = Some(world.balance()?),
        }
    }
    let sent = |world: &mut World| counted(&world.json("bus list other")?, "sent", |_| true);
    let before = sent(&mut world)?;
    world.until(
        "the other guest's disk goes on",
        |world| Ok(sent(world)? > before),
    )
}

#[test]
fn guests_killed_while_their_disks_work_leave_nothing_behind() -> Result<()> {
    kills_leave_no_trace(12)
}

#[test]
#[ignore = "a soak of many minutes: cargo test -p tests --test vm -- --ignored"]
fn two_hundred_guests_killed_while_their_disks_work_leave_nothing_behind() -> Result<()> {
    kills_leave_no_trace(200)
}
