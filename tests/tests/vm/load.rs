//! Devices of the root at full load, with their DMA translated and their interrupts remapped.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{machine, number, row};

use crate::storage::disk;
use crate::world::World;

/// Frames that are sent and answered.
const FRAMES: u64 = 400;

/// What a disk has moved so far, in bytes.
fn moved(world: &mut World) -> Result<u64> {
    let list = world.json("disk list")?;
    let disks = list["disks"].as_array().context("no disks")?;
    let disk = disks.iter().find(|disk| disk["name"] == "nvme0");
    let disk = disk.context("no nvme0")?;
    Ok(number(disk, "/bytes_read") + number(disk, "/bytes_written"))
}

#[test]
fn disk_and_network_card_at_full_load_stay_inside_their_domains() -> Result<()> {
    let busy = disk(2, "load", &["source = \"nvme0\""]);
    let mut world = World::boot(machine(), &[("busy", busy)])?;
    world.json("root network --wait")?;
    world.start("busy")?;
    world.wait_said("busy", "disk: load on 0:0:0")?;
    let mut before = moved(&mut world)?;
    for _ in 0..3 {
        let ping = format!("root ping 10.0.2.2 --count {FRAMES} --interval 0 --timeout 120");
        let answers = world.json(&ping)?;
        ensure!(number(&answers, "/answered") == FRAMES, "{answers}");
        world.until("the disk goes on", |world| Ok(moved(world)? > before))?;
        before = moved(&mut world)?;
    }
    let counters = &world.json("root network")?["counters"];
    for trouble in ["damaged", "malformed", "unsendable", "resets"] {
        ensure!(counters[trouble] == 0, "{trouble}: {counters}");
    }
    let faults = world.json("hv iommu faults")?;
    ensure!(number(&faults, "/total") == 0, "{faults}");
    let state = world.json("hv iommu")?;
    let devices = world.json("dev list")?;
    for class in ["NVMe controller", "Ethernet controller"] {
        let address = row(&devices, "devices", "class", class)["address"].clone();
        let address = address.as_str().context("no such device")?;
        let standing: &Value = row(&state, "devices", "address", address);
        ensure!(standing["state"] == "attached", "{class}: {state}");
    }
    world.text("vm kill busy").map(drop)
}
