//! Guests that end in every way; whatever one of them does, the root and the others go on.

use anyhow::Result;
use tests::machine;

use crate::world::{World, hello};

/// A world in which a `hello forever` runs: it must go on whatever happens beside it.
fn with_a_witness(descriptions: &[(&str, String)]) -> Result<World> {
    let mut all = vec![("witness", hello(1, "forever", ""))];
    all.extend_from_slice(descriptions);
    let mut world = World::boot(machine(), &all)?;
    world.start("witness")?;
    world.wait_said("witness", "hello: tick 1")?;
    Ok(world)
}

#[test]
fn a_triple_fault_crashes_its_machine_and_says_so_and_harms_nobody() -> Result<()> {
    let mut world = with_a_witness(&[("bad", hello(2, "triple-fault", ""))])?;
    world.text("vm create bad")?;
    let reply = world.refused("vm start bad --wait")?;
    assert!(reply.contains("triple fault of VP 0 at 0x"), "{reply}");
    assert_eq!(world.state("bad")?, "crashed");
    assert!(
        world.log_of("bad")?.contains("crashed: triple fault of VP 0"),
        "{}",
        world.log_of("bad")?
    );
    // It is kept for a look.
    assert!(world.text("vm regs bad")?.contains("RIP"));
    world.goes_on("witness")?;
    world.text("hv selftest --all")?;
    world.text("vm kill bad")?;
    assert_eq!(world.state("bad")?, "off");
    world.text("vm delete bad")?;
    world.goes_on("witness")
}

#[test]
fn an_access_past_its_memory_that_nobody_emulates_crashes_a_machine_alone() -> Result<()> {
    let mut world = with_a_witness(&[("bad", hello(2, "beyond", ""))])?;
    world.start("bad")?;
    world.wait("bad", "crashed")?;
    let log = world.log_of("bad")?;
    assert!(
        log.contains("crashed: VP 0 accessed GPA 0xd0000000, where there is no memory"),
        "{log}"
    );
    assert!(!world.console_of("bad")?.contains("beyond its memory is"));
    world.goes_on("witness")?;
    world.text("vm reset bad")?;
    world.wait("bad", "crashed")?;
    world.text("vm delete bad")?;
    world.goes_on("witness")
}

#[test]
fn a_guest_that_tells_of_its_crash_is_stopped_with_its_text_in_the_log() -> Result<()> {
    let mut world = with_a_witness(&[("bad", hello(2, "crash", ""))])?;
    world.start("bad")?;
    world.wait("bad", "crashed")?;
    let log = world.log_of("bad")?;
    assert!(
        log.contains(
            "guest: hello: what was going on\nguest: hello: and how it ended\ncrashed: the guest says"
        ),
        "{log}"
    );
    assert!(!world.console_of("bad")?.contains("nobody has stopped it"));
    world.text("vm kill bad")?;
    world.goes_on("witness")
}

#[test]
fn a_triple_fault_resets_a_machine_that_is_described_so() -> Result<()> {
    let description = hello(1, "triple-fault", "triple_fault = \"reset\"");
    let mut world = with_a_witness(&[("again", description)])?;
    world.start("again")?;
    world.until("'again' has started three times", |world| {
        let show = world.json("vm show again")?;
        Ok(show["starts"].as_u64() >= Some(3))
    })?;
    world.text("vm kill again")?;
    world.goes_on("witness")
}

#[test]
fn a_guest_that_resets_itself_starts_anew_until_it_is_killed() -> Result<()> {
    let mut world = with_a_witness(&[("again", hello(2, "reset", ""))])?;
    world.start("again")?;
    world.until("'again' has started three times", |world| {
        let show = world.json("vm show again")?;
        Ok(show["starts"].as_u64() >= Some(3))
    })?;
    world.text("vm kill again")?;
    assert_eq!(world.state("again")?, "off");
    world.goes_on("witness")
}

#[test]
fn a_guest_that_reports_its_end_powers_off_and_one_that_is_stuck_is_killed() -> Result<()> {
    let mut world = with_a_witness(&[
        ("panic", hello(2, "panic", "")),
        ("fault", hello(2, "fault", "")),
        ("stuck", hello(2, "stuck", "")),
        ("halted", hello(2, "halted", "")),
    ])?;
    for name in ["panic", "fault"] {
        world.start(name)?;
        world.wait(name, "off")?;
    }
    assert!(world.console_of("panic")?.contains("as the command line asks"));
    for name in ["stuck", "halted"] {
        world.start(name)?;
        world.wait_said(name, &format!("hello: {name}"))?;
        world.goes_on("witness")?;
        world.text(&format!("vm kill {name}"))?;
        assert_eq!(world.state(name)?, "off");
    }
    world.goes_on("witness")
}
