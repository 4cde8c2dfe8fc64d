//! The bus of a machine, by the demo guest that has packets echoed.

use anyhow::Result;
use serde_json::Value;
use tests::machine;

use crate::world::World;

/// A description of the guest `echo` with one word on its command line.
fn echo(word: &str) -> String {
    format!("memory = \"8MiB\"\nkernel = \"kernels/echo\"\ncommand_line = \"{word}\"\ndevices = [\"echo\"]\n")
}

/// The row of a list whose `key` is `value`.
fn row(list: &Value, key: &str, value: &Value) -> Option<Value> {
    list.as_array()?.iter().find(|row| row[key] == *value).cloned()
}

/// The echo channel of a machine, and its counters; null before it is open.
fn channel(world: &mut World, name: &str) -> Result<(Value, Value)> {
    let list = world.json(&format!("bus list {name}"))?;
    let channel = row(&list["channels"], "device", &"echo".into()).unwrap_or_default();
    let counters = row(&list["counters"], "relid", &channel["relid"]).unwrap_or_default();
    Ok((channel, counters))
}

/// Packets that the echo device of a machine has sent back; 0 before its channel is open.
fn sent(world: &mut World, name: &str) -> Result<u64> {
    Ok(channel(world, name)?.1["sent"].as_u64().unwrap_or(0))
}

#[test]
fn a_guest_finds_its_channel_opens_it_twice_and_everything_comes_back() -> Result<()> {
    let mut world = World::boot(machine(), &[])?;
    world.text("vm create echo")?;
    world.text("vm start echo --wait")?;
    let said = world.console_of("echo")?;
    for line in [
        "echo: version 6.0",
        "echo: round 1: 500 packets, 746750 bytes came back",
        "echo: round 2: 500 packets, 746750 bytes came back",
        "echo: done",
    ] {
        assert!(said.contains(line), "{line:?} is not in\n{said}");
    }
    Ok(())
}

#[test]
fn a_machine_without_devices_has_no_channels_and_is_told_so() -> Result<()> {
    let description = echo("").replace("devices = [\"echo\"]\n", "");
    let mut world = World::boot(machine(), &[("none", description)])?;
    world.text("vm create none")?;
    world.text("vm start none --wait")?;
    let said = world.console_of("none")?;
    assert!(said.contains("echo: failed: there is no echo device"), "{said}");
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
                let (channel, counters) = channel(&mut world, "it")?;
                assert_eq!(channel["state"], "open");
                assert_eq!(channel["to_host_bytes"], 16384);
                assert!(counters["received"].as_u64() > Some(100), "{counters}");
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
