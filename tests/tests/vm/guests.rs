//! The demo guests run to their ends.

use std::time::Duration;

use anyhow::Result;
use tests::machine;

use crate::world::{World, ensure_said};

#[test]
fn hello_starts_its_vps_and_powers_itself_off() -> Result<()> {
    let mut world = World::boot(machine(), &[])?;
    let said = world.run_to_its_end("hello")?;
    ensure_said(
        &said,
        &[
            "hello: running as a child partition",
            "hello: 2 processors",
            "hello: VP 0 says hello",
            "hello: VP 1 says hello",
            "hello: VP 1 has waited for its timer",
            "hello: VP 0 was called by the one before",
            "hello: VP 1 was called by the one before",
            "hello: done",
        ],
    )?;
    assert_eq!(world.state("hello")?, "off");
    assert!(world.log_of("hello")?.contains("the guest powered itself off"));
    Ok(())
}

/// How long the shell may wait for the conformance guest, which has five hundred rules to try.
const CONFORMANCE_LIMIT: Duration = Duration::from_secs(600);

#[test]
fn every_rule_of_the_conformance_guest_holds() -> Result<()> {
    let mut world = World::boot(machine().silence_limit(CONFORMANCE_LIMIT), &[])?;
    world.text("vm create conformance")?;
    let end = world.run("vm start conformance --wait")?;
    let said = world.console_of("conformance")?;
    let failed: Vec<&str> = said.lines().filter(|line| line.starts_with("FAIL ")).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(said.contains("conformance: done"), "{}\n{said}", end.text);
    let passed = said.lines().filter(|line| line.starts_with("PASS ")).count();
    assert!(
        passed >= 400 && said.contains(" 0 failed"),
        "{passed} passed:\n{said}"
    );
    Ok(())
}
