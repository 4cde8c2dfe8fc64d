//! Memory that is not a child's.

use anyhow::Result;
use tests::machine;

use crate::world::{World, hello};

/// Parts of a machine's memory that are compared, address and length: what its loader wrote, its code, pages behind it.
const PARTS: [(u64, u64); 3] = [(0x1000, 0x400), (0x20_0000, 0x1000), (0x40_0000, 0x400)];

fn memory(world: &mut World, name: &str) -> Result<Vec<String>> {
    PARTS
        .iter()
        .map(|&(address, length)| world.dump(name, address, length))
        .collect()
}

/// What the conformance guest tries to reach past its memory and by hypercalls, with every other machine's and the root's
/// memory in the same machine.
#[test]
fn a_guest_that_writes_wherever_it_can_changes_nobody_elses_memory() -> Result<()> {
    let prober = "processors = 2\nmemory = \"32MiB\"\nkernel = \"kernels/conformance\"\n\
                  command_line = \"only=isolation,hypercall,calls,privilege\"\n";
    let descriptions = [
        ("canary", hello(1, "forever", "")),
        ("witness", hello(1, "forever", "")),
        ("prober", prober.to_owned()),
    ];
    let mut world = World::boot(machine(), &descriptions)?;
    world.start("canary")?;
    world.start("witness")?;
    world.wait_said("canary", "hello: tick 1")?;
    world.text("vm pause canary")?;
    let before = memory(&mut world, "canary")?;
    let registers = world.text("vm regs canary")?;

    let said = world.run_to_its_end("prober")?;
    assert!(
        said.contains("PASS Isolation") && !said.contains("FAIL "),
        "{said}"
    );

    assert_eq!(memory(&mut world, "canary")?, before);
    assert_eq!(world.text("vm regs canary")?, registers);
    world.text("vm resume canary")?;
    world.goes_on("canary")?;
    world.goes_on("witness")?;
    world.text("hv selftest --all").map(drop)
}

/// Three guests on one processor fill their registers with patterns of their own, and look at each turn whether they find
/// them again.
#[test]
fn no_register_of_a_guest_is_ever_seen_in_another() -> Result<()> {
    let guest = |pattern: &str| {
        format!(
            "memory = \"16MiB\"\nkernel = \"kernels/registers\"\ncommand_line = \"pattern={pattern} rounds=0\"\n"
        )
    };
    let names = ["a", "b", "c"];
    let patterns = ["0x1111", "0x2222", "0xeeee"];
    let descriptions: Vec<_> = names.into_iter().zip(patterns.map(guest)).collect();
    let mut world = World::boot(machine().cpus(1), &descriptions)?;
    for name in names {
        world.start(name)?;
    }
    for name in names {
        world.wait_said(name, "registers: round 20,")?;
    }
    for (name, pattern) in names.into_iter().zip(patterns) {
        let said = world.console_of(name)?;
        assert!(said.contains(&format!("registers: pattern {pattern}")), "{said}");
        assert!(!said.contains("FAIL"), "{name}:\n{said}");
        assert!(!said.contains("registers: at first"), "{name}:\n{said}");
    }
    Ok(())
}

/// Foreign and stale ids, VPs that are not there, full ports: the parent's side of the conformance guest's rules.
#[test]
fn wrong_calls_of_a_parent_are_refused_and_change_nothing() -> Result<()> {
    let mut world = World::boot(machine(), &[])?;
    let reply = world.run("hv selftest hypercalls")?;
    assert_eq!(reply.status, 0, "{}", reply.text);
    assert!(!reply.text.contains("FAIL"), "{}", reply.text);
    for rule in [
        "HvCallPostMessage: message 17 is refused",
        "HvCallMapGpaPages: a stale partition id is refused",
        "HvCallGetMemoryBalance: every page has come back",
    ] {
        assert!(reply.text.contains(rule), "{rule:?} is missing:\n{}", reply.text);
    }
    let rules = reply.text.lines().filter(|line| line.contains("HvCall")).count();
    assert!(rules >= 200, "{rules} rules:\n{}", reply.text);
    Ok(())
}

/// Every kind of intercept, with what its message says; messages and events without a port; the page of statistics.
#[test]
fn a_parent_hears_of_what_a_child_does() -> Result<()> {
    let mut world = World::boot(machine(), &[])?;
    let reply = world.run("hv selftest intercepts")?;
    assert_eq!(reply.status, 0, "{}", reply.text);
    for intercept in [
        "string of an I/O port",
        "exception 0",
        "halt",
        "triple fault",
        "invalid state",
    ] {
        let rule = format!("intercept of {intercept}: its message comes");
        assert!(reply.text.contains(&rule), "{rule:?} is missing:\n{}", reply.text);
    }
    Ok(())
}

#[test]
fn memory_past_a_machines_own_cannot_be_dumped_and_a_part_of_it_can() -> Result<()> {
    let mut world = World::boot(machine(), &[("it", hello(1, "forever", ""))])?;
    world.start("it")?;
    world.dump("it", 0x20_0000, 0x40)?;
    for (address, length) in [("0x800000", "1"), ("0x7fffff", "2"), ("0xffffffffffffffff", "1")] {
        world.refused(&format!("vm dump it {address} {length}"))?;
    }
    Ok(())
}
