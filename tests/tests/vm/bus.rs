//! The bus of a machine, by the demo guest that has packets echoed.

use anyhow::Result;
use serde_json::Value;
use tests::machine;

use crate::world::{World, counted, ensure_said};

/// A description of the guest `echo` with one word on its command line.
fn echo(word: &str) -> String {
    format!("memory = \"8MiB\"\nkernel = \"kernels/echo\"\ncommand_line = \"{word}\"\ndevices = [\"echo\"]\n")
}

/// The echo channel in a list of channels; null before the guest knows of it.
fn echo_channel(list: &Value) -> Value {
    let channels = list["channels"].as_array().into_iter().flatten();
    let mut echoes = channels.filter(|channel| channel["device"] == "echo");
    echoes.next().cloned().unwrap_or_default()
}

/// Packets that the echo device of a machine has sent back; 0 before its channel is open.
fn sent(world: &mut World, name: &str) -> Result<u64> {
    let list = world.json(&format!("bus list {name}"))?;
    let relid = &echo_channel(&list)["relid"];
    counted(&list, "sent", |row| row["relid"] == *relid)
}

#[test]
fn a_guest_finds_its_channel_opens_it_twice_and_everything_comes_back() -> Result<()> {
    let mut world = World::boot(machine(), &[])?;
    let said = world.run_to_its_end("echo")?;
    ensure_said(
        &said,
        &[
            "echo: version 6.0",
            "echo: round 1: 500 packets, 746750 bytes came back",
            "echo: round 2: 500 packets, 746750 bytes came back",
            "echo: done",
        ],
    )
}

#[test]
fn a_machine_without_devices_has_no_channels_and_is_told_so() -> Result<()> {
    let description = echo("").replace("devices = [\"echo\"]\n", "");
    let mut world = World::boot(machine(), &[("none", description)])?;
    let said = world.run_to_its_end("none")?;
    ensure_said(&said, &["echo: failed: there is no echo device"])?;
    assert!(world.refused("bus list none")?.contains("off"));
    Ok(())
}

#[test]
fn machines_killed_with_open_channels_leave_nothing_and_disturb_no_other() -> Result<()> {
    let descriptions = [("it", echo("forever")), ("other", echo("forever"))];
    let mut world = World::boot(machine(), &descriptions)?;
    world.start("other")?;
    world.text("vm create it")?;
    let mut before = None;
    for cycle in 0..8 {
        world.text("vm start it")?;
        match cycle % 4 {
            // At whatever point of its boot it is.
            0 => {}
            1 => world.text("vm list").map(drop)?,
            _ => {
                world.until("packets come back", |world| Ok(sent(world, "it")? > 100))?;
                let list = world.json("bus list it")?;
                let channel = echo_channel(&list);
                assert_eq!(channel["state"], "open");
                assert_eq!(channel["to_host_bytes"], 16384);
                let received = counted(&list, "received", |row| row["relid"] == channel["relid"])?;
                assert!(received > 100, "{list}");
            }
        }
        world.text("vm kill it")?;
        // Whatever is made once and kept is made in the first four.
        match before {
            Some(before) if cycle > 3 => {
                world.until(&format!("all is back after cycle {cycle}: {before:?}"), |world| {
                    Ok(world.balance()? == before)
                })?;
            }
            _ => before = Some(world.balance()?),
        }
    }
    let before = sent(&mut world, "other")?;
    world.until("the other machine's packets go on", |world| {
        Ok(sent(world, "other")? > before)
    })
}
