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

    world.text("vm create prober")?;
    world.text("vm start prober --wait")?;
    let said = world.console_of("prober")?;
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
