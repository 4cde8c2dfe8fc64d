//! Physical devices of machines: QEMU's `edu`, on the root bus, where nothing can reset it, behind a root port, which can, and
//! behind a bridge to conventional PCI, which puts its own id in the device's place.

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::{machine, row};
use xtask::Machine;

use crate::world::World;

const PLAIN: &str = "0000:00:03.0";
const BEHIND_PORT: &str = "0000:01:00.0";
const BEHIND_BRIDGE: &str = "0000:02:01.0";
/// What the IOMMU knows the last one by.
const BRIDGE: &str = "0000:02:00.0";

fn devices(machine: Machine) -> Machine {
    let devices = [
        "edu,bus=pcie.0,addr=3",
        "pcie-root-port,id=express,bus=pcie.0,addr=5,chassis=1",
        "edu,bus=express",
        "pcie-pci-bridge,id=conventional,bus=pcie.0,addr=6",
        "edu,bus=conventional,addr=1",
    ];
    devices.into_iter().fold(machine, |machine, device| {
        machine.qemu_arg("-device").qemu_arg(device)
    })
}

/// A description of the guest `dma` with more words on its command line.
fn dma(words: &str) -> String {
    format!("memory = \"16MiB\"\nkernel = \"kernels/dma\"\ncommand_line = \"dma {words}\"\n")
}

impl World {
    /// A command is refused, in these words.
    fn is_refused(&mut self, line: &str, words: &str) -> Result<()> {
        let reply = self.run(line)?;
        ensure!(
            reply.status != 0 && reply.text.contains(words),
            "{line}: status {}, {}",
            reply.status,
            reply.text
        );
        Ok(())
    }

    /// How a device stands with the IOMMU: its state and its partition.
    fn standing(&mut self, device: &str) -> Result<(Value, Value)> {
        let state = self.json("hv iommu")?;
        let row = row(&state, "devices", "address", device);
        Ok((row["state"].clone(), row["partition"].clone()))
    }

    /// Waits until a guest `dma forever` has worked with its device, after so many starts.
    fn works(&mut self, name: &str, starts: usize) -> Result<()> {
        self.until(&format!("'{name}' copies"), |world| {
            Ok(world.console_of(name)?.matches("dma: 10 copies").count() == starts)
        })
    }

    /// The machine that a device is assigned to.
    fn machine_of(&mut self, device: &str) -> Result<Value> {
        let list = self.json("dev list")?;
        Ok(row(&list, "devices", "address", device)["machine"].clone())
    }
}

#[test]
fn a_guest_has_its_device_until_it_is_taken_back() -> Result<()> {
    let mut world = World::boot(devices(machine()), &[("loop", dma("forever"))])?;
    world.is_refused("dev assign 0000:00:01.0 dma", "driver 'nvme'")?;
    world.is_refused("dev assign 0000:00:05.0 dma", "is a bridge")?;
    world.is_refused("dev assign 0000:00:09.0 dma", "there is no device")?;
    world.is_refused(
        &format!("dev assign {BEHIND_PORT} nobody"),
        "there is no virtual machine",
    )?;
    world.is_refused(&format!("dev assign {PLAIN} dma"), "--no-reset")?;
    let assigned = world.json(&format!("dev assign {BEHIND_PORT} dma"))?;
    assert_eq!(assigned["reset"], "secondary bus reset by 0000:00:05.0");
    world.is_refused(&format!("dev assign {BEHIND_PORT} loop"), "is assigned to 'dma'")?;
    world.text("vm start dma --wait")?;
    let said = world.console_of("dma")?;
    for line in [
        "device 1234:11e8,bar0=0xe0000000+0x100000",
        "its interrupt has come",
        "it read",
        "done",
    ] {
        ensure!(said.contains(&format!("dma: {line}")), "{said}");
    }
    // It is off, so nobody reaches anything by the device, but it stays the machine's.
    assert_eq!(world.standing(BEHIND_PORT)?.0, "blocked");
    assert_eq!(world.machine_of(BEHIND_PORT)?, "dma");
    world.text(&format!("dev release {BEHIND_PORT}"))?;
    world.is_refused(&format!("dev release {BEHIND_PORT}"), "is not assigned")?;
    // The other one, to a machine that does not end by itself.
    let assigned = world.json(&format!("dev assign {BEHIND_BRIDGE} loop"))?;
    assert_eq!(assigned["requester"], BRIDGE);
    for starts in 1..=2 {
        world.text("vm start loop")?;
        world.works("loop", starts)?;
        let (state, partition) = world.standing(BRIDGE)?;
        assert_eq!(state, "attached");
        assert_ne!(partition, "0x1");
        world.is_refused(&format!("dev release {BEHIND_BRIDGE}"), "'loop' runs with")?;
        world.text("vm kill loop")?;
        assert_eq!(world.standing(BRIDGE)?, ("blocked".into(), "0x1".into()));
    }
    world.text("vm delete loop")?;
    assert_eq!(world.machine_of(BEHIND_BRIDGE)?, Value::Null);
    Ok(())
}

#[test]
fn a_device_of_a_guest_reaches_nobody_elses_memory() -> Result<()> {
    let mut world = World::boot(devices(machine()), &[("thief", dma("beyond=0x8000000"))])?;
    world.text(&format!("dev assign {PLAIN} thief --no-reset"))?;
    world.text("vm start thief --wait")?;
    let said = world.console_of("thief")?;
    ensure!(
        said.contains("it was told to write 0x8000000") && said.contains("dma: done"),
        "{said}"
    );
    let faults = world.json("hv iommu faults")?;
    let rows = faults["faults"].as_array().cloned().unwrap_or_default();
    for access in ["write", "read"] {
        let found = rows.iter().any(|row| {
            row["address"] == "0x8000000" && row["access"] == access && row["device"] != Value::Null
        });
        ensure!(found, "{access}: {faults}");
    }
    Ok(())
}

/// A device is given and taken `rounds` times, while another copies and a third machine keeps its bus busy.
fn given_and_taken(rounds: u32) -> Result<()> {
    let echo = "memory = \"16MiB\"\nkernel = \"kernels/echo\"\ncommand_line = \"echo forever\"\ndevices = [\"echo\"]\n";
    let descriptions = [
        ("busy", echo.to_owned()),
        ("loop", dma("forever")),
        ("other", dma("forever")),
    ];
    let mut world = World::boot(devices(machine()), &descriptions)?;
    world.text(&format!("dev assign {BEHIND_BRIDGE} other"))?;
    world.text("vm start busy")?;
    world.text("vm start other")?;
    world.works("other", 1)?;
    let before = world.json("hv iommu")?;
    for round in 0..rounds {
        world.text(&format!("dev assign {BEHIND_PORT} loop"))?;
        world.text("vm start loop")?;
        // Now and then it is let work, mostly it is killed at some moment of its start.
        if round % 5 == 0 {
            world.works("loop", 1)?;
        }
        world.text("vm kill loop")?;
        world.text("vm delete loop")?;
    }
    assert_eq!(world.standing(BEHIND_PORT)?.0, "blocked");
    let after = world.json("hv iommu")?;
    for key in ["domains", "interrupts", "faults"] {
        assert_eq!(before[key], after[key], "{key}");
    }
    assert_eq!(world.state("other")?, "running");
    Ok(())
}

#[test]
fn a_device_is_given_and_taken_under_load() -> Result<()> {
    given_and_taken(6)
}

#[test]
#[ignore = "a soak of many minutes; the smaller one above runs always"]
fn a_device_is_given_and_taken_a_hundred_times_under_load() -> Result<()> {
    given_and_taken(100)
}
