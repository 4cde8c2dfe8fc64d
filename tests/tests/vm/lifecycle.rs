//! Orders in every state, memory that comes back, many machines at once.

use anyhow::Result;
use tests::machine;

use crate::world::{World, hello};

#[test]
fn a_paused_machine_stands_still_and_goes_on_when_it_is_resumed() -> Result<()> {
    let mut world = World::boot(machine(), &[("it", hello(2, "forever", ""))])?;
    world.start("it")?;
    world.wait_said("it", "hello: tick 2")?;
    world.text("vm pause it")?;
    assert_eq!(world.state("it")?, "paused");
    let (ticks, time) = (world.ticks("it")?, world.run_time("it")?);
    world.text("hv selftest --all")?;
    assert_eq!((world.ticks("it")?, world.run_time("it")?), (ticks, time));
    assert!(world.refused("vm pause it")?.contains("paused"));
    world.text("vm resume it")?;
    assert_eq!(world.state("it")?, "running");
    world.goes_on("it")
}

#[test]
fn kill_ends_a_machine_in_every_state_and_reset_starts_it_anew() -> Result<()> {
    let descriptions = [
        ("it", hello(2, "forever", "")),
        ("bad", hello(1, "triple-fault", "")),
    ];
    let mut world = World::boot(machine(), &descriptions)?;
    let off = |world: &mut World, name: &str| -> Result<()> {
        world.text(&format!("vm kill {name}"))?;
        assert_eq!(world.state(name)?, "off");
        Ok(())
    };
    world.start("it")?;
    world.wait_said("it", "hello: tick 1")?;
    off(&mut world, "it")?;
    world.text("vm start it")?;
    world.text("vm pause it")?;
    off(&mut world, "it")?;
    off(&mut world, "it")?;
    world.start("bad")?;
    world.wait("bad", "crashed")?;
    off(&mut world, "bad")?;

    world.text("vm start it")?;
    assert!(world.refused("vm delete it")?.contains("vm kill"));
    assert!(world.refused("vm start it")?.contains("need not be started"));
    let starts =
        |world: &mut World| -> Result<Option<u64>> { Ok(world.json("vm show it")?["starts"].as_u64()) };
    let before = starts(&mut world)?;
    world.text("vm reset it")?;
    assert_eq!(starts(&mut world)?, before.map(|count| count + 1));
    assert_eq!(world.state("it")?, "running");
    world.goes_on("it")?;
    world.text("vm pause it")?;
    world.text("vm reset it")?;
    assert_eq!(world.state("it")?, "running");
    off(&mut world, "it")?;
    world.text("vm delete it")?;
    assert!(world.refused("vm show it")?.contains("it"));
    Ok(())
}

#[test]
fn a_machine_takes_little_more_memory_than_it_has() -> Result<()> {
    const MEMORY: u64 = 8 << 20;
    // The target for what the hypervisor keeps of a child, and page tables for 8 MiB in pages of 4 KiB.
    const MOST: u64 = (256 + 32) << 10;
    let mut world = World::boot(machine(), &[("it", hello(1, "forever", ""))])?;
    world.start("it")?;
    world.text("vm kill it")?;
    let before = world.balance()?.available();
    world.text("vm start it")?;
    world.wait_said("it", "hello: tick 1")?;
    let taken = before - world.balance()?.available();
    println!("a machine takes {} KiB beside its memory", (taken - MEMORY) >> 10);
    assert!((MEMORY..=MEMORY + MOST).contains(&taken), "{taken}");
    Ok(())
}

/// Makes, starts, kills and deletes machines `cycles` times, each at another moment of its life.
fn cycle(world: &mut World, cycles: usize) -> Result<()> {
    for cycle in 0..cycles {
        let name = ["hello", "two", "bad"][cycle % 3];
        world.text(&format!("vm create {name} --name it"))?;
        world.text("vm start it")?;
        match cycle / 3 % 6 {
            0 => {}
            1 => drop(world.text("vm list")?),
            // One that has crashed cannot be paused.
            2 => drop(world.run("vm pause it")?),
            3 => drop(world.run("vm wait it")?),
            4 => drop(world.text("vm stats it")?),
            _ => drop(world.text("vm reset it")?),
        }
        world.text("vm kill it")?;
        world.text("vm delete it")?;
    }
    Ok(())
}

fn cycles_leave_no_trace(cycles: usize) -> Result<()> {
    let descriptions = [("two", hello(2, "", "")), ("bad", hello(1, "triple-fault", ""))];
    let mut world = World::boot(machine(), &descriptions)?;
    // Whatever is made once and kept is made here: the root's heap, its queues, the shell's history.
    cycle(&mut world, 18)?;
    let before = world.balance()?;
    cycle(&mut world, cycles)?;
    assert_eq!(world.balance()?, before);
    Ok(())
}

#[test]
fn machines_that_come_and_go_give_all_memory_back() -> Result<()> {
    cycles_leave_no_trace(36)
}

#[test]
#[ignore = "a soak of many minutes: cargo test -p tests --test vm -- --ignored"]
fn a_thousand_machines_that_come_and_go_give_all_memory_back() -> Result<()> {
    cycles_leave_no_trace(1000)
}

#[test]
fn sixty_four_machines_at_once_all_come_to_their_ends() -> Result<()> {
    const MACHINES: usize = 64;
    let mut world = World::boot(machine(), &[("small", hello(1, "", ""))])?;
    for index in 0..MACHINES {
        world.text(&format!("vm create small --name m{index}"))?;
    }
    for index in 0..MACHINES {
        world.text(&format!("vm start m{index}"))?;
    }
    for index in 0..MACHINES {
        world.wait(&format!("m{index}"), "off")?;
    }
    for index in 0..MACHINES {
        let said = world.console_of(&format!("m{index}"))?;
        assert!(said.contains("hello: done"), "m{index}:\n{said}");
    }
    let states = world.states()?;
    assert!(
        states.len() == MACHINES && states.iter().all(|(_, state)| state == "off"),
        "{states:?}"
    );
    Ok(())
}

#[test]
fn sixty_four_machines_that_run_together_all_make_progress() -> Result<()> {
    const MACHINES: usize = 64;
    let mut world = World::boot(machine(), &[("small", hello(1, "forever", ""))])?;
    for index in 0..MACHINES {
        world.start_as("small", &format!("m{index}"))?;
    }
    let states = world.states()?;
    assert!(
        states.len() == MACHINES && states.iter().all(|(_, state)| state == "running"),
        "{states:?}"
    );
    for index in 0..MACHINES {
        let name = format!("m{index}");
        world.wait_said(&name, "hello: tick 1")?;
        world.goes_on(&name)?;
    }
    Ok(())
}
