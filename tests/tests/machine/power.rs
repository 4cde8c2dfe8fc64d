//! Power off, reset, and a machine that does neither.

use std::time::Duration;

use anyhow::Result;
use tests::{Ended, Shell, machine, number};
use xtask::ExitKind;

#[test]
fn poweroff_powers_the_machine_off_and_runs_nothing_after_it() -> Result<()> {
    let ended = Ended::run(&machine().exec(&["poweroff", "version"]), ExitKind::PowerOff)?;
    assert_eq!(ended.lines_with("partita> "), ["partita> poweroff"]);
    Ok(())
}

#[test]
fn reboot_resets_the_machine() -> Result<()> {
    Ended::run(&machine().exec(&["reboot"]), ExitKind::Reset).map(drop)
}

#[test]
fn after_a_reboot_there_is_a_shell_again() -> Result<()> {
    let mut shell = Shell::boot(&machine().restarts(true))?;
    let before = number(&shell.json("root info")?, "/uptime_ns");
    shell.text("echo some time passes")?;
    shell.console().send("reboot\r")?;
    shell.console().wait_for("reboot\n")?;
    shell.console().wait_for("Partita root partition")?;
    shell.console().wait_for_shell()?;
    shell.text("hv selftest --all")?;
    assert!(before > 0 && number(&shell.json("history")?, "/lines/0/number") == 1);
    assert_eq!(shell.json("history")?["lines"][0]["line"], "hv selftest --all");
    Ok(())
}

#[test]
fn without_commands_and_debug_exit_a_machine_waits_until_it_is_powered_off() -> Result<()> {
    let mut session = machine().debug_exit(false).spawn()?;
    session.wait_for_shell()?;
    session.send("poweroff\r")?;
    session.finish()?.expect(ExitKind::PowerOff).map(drop)
}

#[test]
fn commands_of_the_archive_end_a_machine_without_debug_exit_by_power_off() -> Result<()> {
    let machine = machine().debug_exit(false).exec(&["version"]);
    let ended = Ended::run(&machine, ExitKind::PowerOff)?;
    assert_eq!(ended.lines_with("product").len(), 1);
    Ok(())
}

#[test]
fn a_machine_that_falls_silent_is_ended_and_its_registers_are_shown() -> Result<()> {
    let machine = machine()
        .exec(&["hv log --follow"])
        .silence_limit(Duration::from_secs(5));
    let ended = Ended::run(&machine, ExitKind::Hung)?;
    assert!(ended.registers.contains("RIP="), "{}", ended.registers);
    Ok(())
}
